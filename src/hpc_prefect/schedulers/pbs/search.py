"""Looking for PBS's jobs by their names, many names at once.

`qselect` compares whole names and prints whole ids, but takes only one name. So for many names, one
command first lists the user's jobs, and `qselect` is asked only about the names in that list.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hpc_prefect.job.dialogue import Command, Dialogue, Reply
from hpc_prefect.job.state import JobState, Observation
from hpc_prefect.schedulers.base import Answer, Found, NoAnswer, by_name
from hpc_prefect.schedulers.pbs import qstat
from hpc_prefect.schedulers.pbs import questions as pbs_ask
from hpc_prefect.schedulers.pbs import status as pbs_status
from hpc_prefect.schedulers.pbs.questions import NoHistory

Ids = dict[str, list[str]]


def find(tags: Sequence[str], options: Mapping[str, object]) -> Dialogue[Found | NoAnswer]:
    """All jobs with these names; see `Scheduler.find`."""
    if options.get("status_dialect") == "table":
        return (yield from _in_table(tags, options))
    ids = yield from _by_name(tags, options)
    if isinstance(ids, NoAnswer):
        return ids
    wanted = [each for some in ids.values() for each in some]
    answer = (yield from pbs_status.observe(wanted, options)) if wanted else {}
    if isinstance(answer, NoAnswer):
        answer = dict.fromkeys(wanted, answer)
    return _told(ids, answer)


def _by_name(tags: Sequence[str], options: Mapping[str, object]) -> Dialogue[Ids | NoAnswer]:
    """The ids of the jobs with these names."""
    listed = list(tags) if len(tags) == 1 else (yield from _listed(tags, options))
    if isinstance(listed, NoAnswer):
        return listed
    found: Ids = {tag: [] for tag in tags}
    for tag in listed:
        for listing in pbs_ask.listings(options):
            reply = yield pbs_ask.qselect(*listing, "-N", tag)
            if reply.code != 0 or reply.stderr.strip():
                return pbs_ask.option_refused(reply) or NoAnswer(reply.said)
            found[tag] += [each for each in reply.stdout.split() if each not in found[tag]]
    return found


def _listed(tags: Sequence[str], options: Mapping[str, object]) -> Dialogue[list[str] | NoAnswer]:
    """The names that the user's list of jobs shows; all names if it cannot be read."""
    user = (yield Command(("id", "-un"))).stdout.strip()
    shown: set[str] = set()
    for listing in pbs_ask.listings(options):
        reply = yield pbs_ask.qstat(*listing, "-w", "-u", user)
        refused = pbs_ask.option_refused(reply)
        if refused:
            return refused if isinstance(refused, NoHistory) else list(tags)
        if reply.code != 0:
            return NoAnswer(reply.said)
        names = qstat.read_names(reply.stdout, width=max(map(len, tags)))
        if names is None:
            return list(tags)
        shown |= names
    return [tag for tag in tags if tag in shown]


def _told(ids: Ids, answer: Answer) -> Found:
    """What is known of the jobs with these ids, by their names.

    A job that is no longer listed counts as UNKNOWN: it was there. PBS has compared the names; the
    name in a record does not matter.
    """
    found: Found = {}
    for tag, theirs in ids.items():
        seen = {each: answer.get(each) for each in theirs}
        unsure = [each for each in seen.values() if isinstance(each, NoAnswer)]
        found[tag] = (
            unsure[0]
            if unsure
            else {
                job_id: each
                if isinstance(each, Observation)
                else Observation(id=job_id, state=JobState.UNKNOWN, tag=tag)
                for job_id, each in seen.items()
            }
        )
    return found


# --- in a site's own table


def _in_table(tags: Sequence[str], options: Mapping[str, object]) -> Dialogue[Found | NoAnswer]:
    """The jobs in the tables of queue and history, which may cut names and ids."""
    found: dict[str, dict[str, Observation]] = {tag: {} for tag in tags}
    untold: dict[str, NoAnswer] = {}
    for listing in pbs_ask.listings(options):
        if not found:
            break
        rows = pbs_ask.table_rows((yield pbs_ask.qstat(*pbs_ask.words(options), *listing)))
        if isinstance(rows, NoAnswer):
            return rows
        maybe = {row.id: row for row in rows if any(_may_be(row.name, tag) for tag in found)}
        if maybe:
            reply = yield pbs_ask.qstat(*listing, "-f", *maybe)
            for tag, jobs in _by_records(reply, list(found), list(maybe.values())).items():
                if isinstance(jobs, NoAnswer):
                    untold[tag] = jobs
                    del found[tag]
                else:
                    found[tag] |= jobs
    return {**found, **untold}


def _by_records(reply: Reply, tags: Sequence[str], rows: Sequence[qstat.Row]) -> Found:
    """The rows by the names in their full records, or if there are none by whole names and ids."""
    try:
        records = qstat.read_text(reply.stdout) if reply.code in pbs_ask.WHOLE else {}
    except ValueError:
        records = {}
    records = {job_id: record for job_id, record in records.items() if record}
    if {pbs_ask.number(row.id) for row in rows} <= {pbs_ask.number(job_id) for job_id in records}:
        seen = [qstat.record_observation(*each) for each in records.items()]
        return by_name(tags, seen)
    found: Found = {}
    for tag in tags:
        maybe = [row for row in rows if _may_be(row.name, tag)]
        cut = [row for row in maybe if row.name != tag or "." not in row.id]
        found[tag] = (
            _untold(cut[0], tag) if cut else {row.id: qstat.row_observation(row) for row in maybe}
        )
    return found


def _untold(row: qstat.Row, tag: str) -> NoAnswer:
    return NoAnswer(
        f"qstat lists job {row.id} as {row.name!r}, which may be {tag!r} cut short, and shows no"
        " full record of it. Look at this job; set pbs.status_options of the HPC profile so that"
        " qstat shows whole names and ids"
    )


def _may_be(name: str, tag: str) -> bool:
    """Whether a name in a column, where it may be cut, is the tag or its beginning."""
    shown = name.rstrip("*.+")
    return name == tag or (len(shown) >= 8 and tag.startswith(shown))
