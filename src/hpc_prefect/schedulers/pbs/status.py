"""Asking PBS's `qstat` about jobs by their ids: as JSON, as text, or by a site's own table.

A job's state is read where no text of a user can stand: at its place in the JSON, or in a table,
where the only text of a user is a name without blanks. A text record (`qstat -f`) holds whole
environments, unquoted: it counts only if such a table agrees with it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from hpc_prefect.job.dialogue import Dialogue, Reply
from hpc_prefect.job.state import JobState, Observation
from hpc_prefect.schedulers.base import Answer, NoAnswer
from hpc_prefect.schedulers.pbs import arrays, qstat
from hpc_prefect.schedulers.pbs import questions as pbs_ask

_UNKNOWN = re.compile(r"Unknown Job Id(?: Error)? (\S+)")
_FINISHED = re.compile(r"(\S+) Job has finished, use -x or -H")
_ILLEGAL = re.compile(r"illegally formed job identifier: (\S+)")


def observe(ids: Sequence[str], options: Mapping[str, object]) -> Dialogue[Answer | NoAnswer]:
    """The state of each job, from queue and history at once; see `Scheduler.observe`."""
    answer = yield from _observe(ids, options)
    if isinstance(answer, NoAnswer):
        return answer
    return {job_id: seen for job_id, seen in answer.items() if not _has_moved(seen)}


def _has_moved(seen: Observation | NoAnswer) -> bool:
    return isinstance(seen, Observation) and seen.word == qstat.MOVED


def _observe(ids: Sequence[str], options: Mapping[str, object]) -> Dialogue[Answer | NoAnswer]:
    if options.get("status_dialect") == "table":
        return (yield from _by_table(ids, options))
    answer: Answer = {}
    left = list(ids)
    once = pbs_ask.at_once(options)
    if options.get("status_dialect", "json") == "json" and (once or len(ids) == 1):
        reply = yield from _asked(left, answer, options, "-f", "-F", "json")
        if refused := pbs_ask.option_refused(reply):
            return refused
        if reply.code not in pbs_ask.WHOLE:
            return NoAnswer(reply.said)
        answer |= _from_json(reply, left, options)
        left = [job_id for job_id in left if job_id not in answer]
    if left:
        more = yield from _by_text(left, answer, options)
        if isinstance(more, NoAnswer):
            return (answer | dict.fromkeys(left, more)) if answer else more
        answer |= more
    return answer


def _asked(
    ids: list[str], answer: Answer, options: Mapping[str, object], *form: str
) -> Dialogue[Reply]:
    """What qstat says of `ids`. Ids that it calls ill-formed are moved to `answer`, as `NoAnswer`.

    One such id (a job of another server, say) keeps qstat from telling anything of the others.
    """
    once = ("-E",) if pbs_ask.at_once(options) else ()
    how = (*once, *pbs_ask.history(options), *form, *pbs_ask.words(options))
    while True:
        reply = yield pbs_ask.qstat(*how, *ids)
        bad = set(_ILLEGAL.findall(reply.stderr)) & set(ids)
        if not bad or len(bad) == len(ids):
            return reply
        answer.update(dict.fromkeys(bad, NoAnswer(reply.said)))
        ids[:] = [job_id for job_id in ids if job_id not in bad]


def _from_json(reply: Reply, ids: Sequence[str], options: Mapping[str, object]) -> Answer:
    """The jobs in a JSON answer; none when it cannot be parsed, so that the text is asked for."""
    try:
        records = _matched(ids, qstat.read_json(reply.stdout))
    except ValueError:
        return {}
    history = bool(pbs_ask.history(options))
    return {each: arrays.observation(each, records[each], history=history) for each in records}


def _by_text(
    ids: list[str], answer: Answer, options: Mapping[str, object]
) -> Dialogue[Answer | NoAnswer]:
    """Ask for text records, then for the table of the jobs that have one."""
    reply = yield from _asked(ids, answer, options, "-f")
    if refused := pbs_ask.option_refused(reply):
        return refused
    if reply.code not in pbs_ask.WHOLE:
        return NoAnswer(reply.said)
    try:
        records = _matched(ids, qstat.read_text(reply.stdout))
    except ValueError as error:
        return _unusable("qstat -f", error, reply)
    told = _not_listed(reply, [each for each in ids if each not in records], options)
    if not records:
        return told
    reply = yield from _asked(list(records), told, options)
    try:
        letters = _matched(list(records), qstat.read_letters(reply.stdout))
    except ValueError as error:
        return told | dict.fromkeys(records, _unusable("qstat", error, reply))
    if reply.code not in pbs_ask.WHOLE:
        return told | dict.fromkeys(records, NoAnswer(reply.said))
    for job_id, letter in letters.items():
        told[job_id] = _agreed(job_id, letter, records[job_id], options)
    return told


def _unusable(command: str, error: ValueError, reply: Reply) -> NoAnswer:
    return NoAnswer(f"an answer of {command} cannot be used: {error}: {reply.stdout[:200]!r}")


def _agreed(
    job_id: str, letter: str, record: qstat.Record, options: Mapping[str, object]
) -> Observation | NoAnswer:
    """The table's state, with what the record says of it."""
    if not record:  # it may hold a user's text: see `read_text`
        return arrays.observation(job_id, {"job_state": letter}, codes=False)
    seen = arrays.observation(job_id, record, history=bool(pbs_ask.history(options)))
    if seen.word == letter:
        return seen
    return NoAnswer(f"qstat shows {job_id} as {letter!r}, and its record says {seen.word!r}")


def _matched(ids: Sequence[str], records: Mapping[str, qstat.T]) -> dict[str, qstat.T]:
    """Records by the ids that were asked for: a site may print another name of the server."""
    by_number = {pbs_ask.number(job_id): record for job_id, record in records.items()}
    found = {}
    for job_id in ids:
        if job_id in records:
            found[job_id] = records[job_id]
        elif (short := pbs_ask.number(job_id)) in by_number:
            found[job_id] = by_number[short]
    return found


def _not_listed(reply: Reply, ids: Sequence[str], options: Mapping[str, object]) -> Answer:
    """What an answer says of jobs without a record: ended, or no useful answer. A job that PBS does
    not know is left out."""
    unknown = set(_UNKNOWN.findall(reply.stderr))
    finished = set(_FINISHED.findall(reply.stderr))
    # With -E, qstat mentions only the last of the finished and unknown jobs.
    said = [line for line in reply.stderr.splitlines() if line.strip()]
    silent = pbs_ask.at_once(options) and all(
        _UNKNOWN.search(line) or _FINISHED.search(line) for line in said
    )
    found: Answer = {}
    for job_id in ids:
        if job_id in finished:  # the history was not asked, so nothing tells how it ended
            found[job_id] = Observation(id=job_id, state=JobState.ENDED, word="finished")
        elif job_id not in unknown and not silent:
            found[job_id] = NoAnswer(reply.said)
    return found


# --- a site's own table (assumed: what is known of one is its guide and two printed answers)


def _by_table(ids: Sequence[str], options: Mapping[str, object]) -> Dialogue[Answer | NoAnswer]:
    """The table of the queue, then that of the history, then records for what these do not show.

    A table tells neither why a job waits nor how it ended. The history's table is short (one site
    shows three days, and a hundred rows), so jobs that are not in it are asked about by id.
    """
    how, history = pbs_ask.words(options), pbs_ask.history(options)
    rows = pbs_ask.table_rows((yield pbs_ask.qstat(*how)))
    if isinstance(rows, NoAnswer):
        return rows
    answer = _rows_matched(ids, rows)
    for by_id in (False, True) if history else ():
        left = [job_id for job_id in ids if job_id not in answer]
        if not left:
            break
        reply = yield pbs_ask.qstat(*how, *history, *(left if by_id else ()))
        rows = pbs_ask.table_rows(reply)
        if isinstance(rows, NoAnswer):
            answer |= dict.fromkeys(left, rows)
        else:
            answer |= _rows_matched(left, rows)
    ended = [job_id for job_id, seen in answer.items() if _is(seen, JobState.ENDED)]
    if ended and history:
        answer |= _in_state((yield pbs_ask.qstat(*history, "-f", *ended)), ended, JobState.ENDED)
    queued = [job_id for job_id, seen in answer.items() if _is(seen, JobState.QUEUED)]
    if queued:
        answer |= _in_state((yield pbs_ask.qstat("-f", *queued)), queued, JobState.QUEUED)
    return answer


def _in_state(reply: Reply, ids: Sequence[str], state: JobState) -> Answer:
    """What full records say of jobs; only of those that are in `state`, as in the table."""
    if reply.code not in pbs_ask.WHOLE:
        return {}
    try:
        records = _matched(ids, qstat.read_text(reply.stdout))
    except ValueError:
        return {}
    told = {each: qstat.record_observation(each, record) for each, record in records.items()}
    return {job_id: seen for job_id, seen in told.items() if _is(seen, state)}


def _rows_matched(ids: Sequence[str], rows: Iterable[qstat.Row]) -> Answer:
    listed = _matched(ids, {row.id: row for row in rows})
    return {
        job_id: qstat.row_observation(qstat.Row(job_id, row.name, row.word))
        for job_id, row in listed.items()
    }


def _is(seen: Observation | NoAnswer, state: JobState) -> bool:
    return isinstance(seen, Observation) and seen.state is state
