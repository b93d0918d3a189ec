"""PBS: `qsub`, `qstat`, `qselect`, `qdel` of OpenPBS, PBS Professional, and what is like them.

Seen on OpenPBS 23.06, with its history on. One question about many jobs asks queue and history at
once: `qstat -E -x -f -F json ID...`. Without -E, `qstat` opens a connection for each id, and its
JSON holds the first job only; with -E, a job that PBS does not know is passed over in silence, so
what the JSON does not list is asked for once more as text before it counts as not listed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from hpc_prefect.job.dialogue import Command, Dialogue, Reply
from hpc_prefect.job.failure import Reason
from hpc_prefect.job.script import Preamble
from hpc_prefect.job.spec import JobSpec
from hpc_prefect.job.state import JobState, Observation, Patience
from hpc_prefect.schedulers import pbs_ask, pbs_search, qstat, qsub
from hpc_prefect.schedulers.base import Answer, Found, NoAnswer, Submission, Ticket, Told

_UNKNOWN = re.compile(r"Unknown Job Id(?: Error)? (\S+)")
_FINISHED = re.compile(r"(\S+) Job has finished, use -x or -H")
_ILLEGAL = re.compile(r"illegally formed job identifier: (\S+)")

#: What `qdel` says of a job that needs no end any more.
_GONE = re.compile(
    r"Unknown Job Id|Job has finished|Request invalid for state of job|Delete already in progress"
)

_OWN_LINE = re.compile(r"^=>> PBS: job killed: (\w+) .*", re.MULTILINE)
_KILLED = {
    "walltime": Reason.WALLTIME,
    **dict.fromkeys(("mem", "vmem", "pmem", "pvmem"), Reason.OUT_OF_MEMORY),
    "node": Reason.NODE_FAILURE,  # assumed: "node 1 (host) requested job die, code 15009"
}
#: Of the hook for cgroups, with the kernel's own line; assumed. Without that line the limit was
#: only touched.
_CGROUP = re.compile(
    r"^Cgroup mem(?:sw)? limit exceeded: .*(?:Killed process|oom-kill).*", re.MULTILINE
)


class PBSScheduler:
    """`Scheduler` for PBS.

    The patience: a job is listed from the moment `qsub` tells its id, and the history holds ended
    ones for days, so the common values do. `record` is short, because a job ends in PBS's words
    only after its output was copied. `confirm` is long, because PBS gives a job 10 s between its
    two signals, by default, and lists it as running meanwhile.
    """

    name = "pbs"
    runs_here = False
    patience = Patience(record=30.0, confirm=40.0)
    ids_per_question = 100
    hurry = 2.0

    def problems(self, spec: JobSpec) -> list[str]:
        return qsub.problems(spec) + _status_problems(spec.site.options)

    def preamble(self, spec: JobSpec, ticket: Ticket) -> Preamble:
        lines = tuple(f"#PBS {option}" for option in qsub.directives(spec))
        return Preamble(directives=lines, id_expression='"$PBS_JOBID"')

    def submit(self, spec: JobSpec, ticket: Ticket) -> Dialogue[Submission]:
        # On the command line, because it wins over the lines in the script.
        named = ("-N", ticket.tag, "-o", ticket.scheduler_out, "-e", ticket.scheduler_err)
        reply = yield Command(("qsub", *named, ticket.script), timeout=pbs_ask.LIMIT)
        return qsub.submission(reply)

    def observe(
        self, ids: Sequence[str], options: Mapping[str, object]
    ) -> Dialogue[Answer | NoAnswer]:
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
            answer |= _from_json(reply, left)
            left = [job_id for job_id in left if job_id not in answer]
        if left:
            reply = yield from _asked(left, answer, options, "-f")
            more = _from_text(reply, left, at_once=once)
            if isinstance(more, NoAnswer):
                return (answer | dict.fromkeys(left, more)) if answer else more
            answer |= more
        return answer

    def find(
        self, tags: Sequence[str], options: Mapping[str, object]
    ) -> Dialogue[Found | NoAnswer]:
        if options.get("status_dialect") == "table":
            return (yield from pbs_search.in_table(tags, options))
        ids = yield from pbs_search.by_name(tags, options)
        if isinstance(ids, NoAnswer):
            return ids
        wanted = [each for some in ids.values() for each in some]
        answer = (yield from self.observe(wanted, options)) if wanted else {}
        if isinstance(answer, NoAnswer):
            return pbs_search.told(ids, dict.fromkeys(wanted, answer))
        return pbs_search.told(ids, answer)

    def cancel(
        self, jobs: Mapping[str, str], options: Mapping[str, object]
    ) -> Dialogue[NoAnswer | None]:
        reply = yield Command(("qdel", *jobs), timeout=pbs_ask.LIMIT)
        said = [line for line in reply.stderr.splitlines() if line.strip()]
        if reply.code == 0 or (reply.code and said and all(_GONE.search(line) for line in said)):
            return None
        return NoAnswer(reply.said)

    def read_output(self, text: str) -> Told | None:
        killed = [match for match in _OWN_LINE.finditer(text) if match[1] in _KILLED]
        if killed:
            return Told(_KILLED[killed[-1][1]], killed[-1][0].strip())
        killed = list(_CGROUP.finditer(text))
        return Told(Reason.OUT_OF_MEMORY, killed[-1][0].strip()) if killed else None


def _status_problems(options: Mapping[str, object]) -> list[str]:
    return [
        f"pbs.status_options {word!r}: write one option of qstat, such as -ll"
        for word in pbs_ask.words(options)
        if not re.fullmatch(r"-[A-Za-z0-9=-]+", word, re.ASCII)
    ]


# --- asking qstat


def _asked(
    ids: list[str], answer: Answer, options: Mapping[str, object], *form: str
) -> Dialogue[Reply]:
    """What qstat says of `ids`. Those that it calls ill-formed move to `answer` as unanswered.

    Of these one is enough and qstat tells nothing of the others: a job of another server, say.
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


# --- reading its answers


def _matched(ids: Sequence[str], records: Mapping[str, qstat.Record]) -> Answer:
    """What was asked for, by the ids that were asked: a site may print another server's name."""
    by_number = {pbs_ask.number(job_id): record for job_id, record in records.items()}
    found: Answer = {}
    for job_id in ids:
        record = records.get(job_id) or by_number.get(pbs_ask.number(job_id))
        if record:
            found[job_id] = qstat.record_observation(job_id, record)
    return found


def _from_json(reply: Reply, ids: Sequence[str]) -> Answer:
    """The jobs in a JSON answer; none when it cannot be parsed, so that the text is asked for."""
    try:
        return _matched(ids, qstat.read_json(reply.stdout))
    except ValueError:
        return {}


def _from_text(reply: Reply, ids: Sequence[str], *, at_once: bool) -> Answer | NoAnswer:
    """What a text answer says of each id: its record, that it is not known, or nothing useful."""
    if refused := pbs_ask.option_refused(reply):
        return refused
    if reply.code not in pbs_ask.WHOLE:
        return NoAnswer(reply.said)
    try:
        found = _matched(ids, qstat.read_text(reply.stdout))
    except ValueError as error:
        return NoAnswer(f"an answer of qstat -f cannot be used: {error}: {reply.stdout[:200]!r}")
    unknown = set(_UNKNOWN.findall(reply.stderr))
    finished = set(_FINISHED.findall(reply.stderr))
    # With -E, finished and unknown jobs are passed over in silence, but for the last one.
    said = [line for line in reply.stderr.splitlines() if line.strip()]
    silent = at_once and all(_UNKNOWN.search(line) or _FINISHED.search(line) for line in said)
    for job_id in ids:
        if job_id in found or job_id in unknown:
            continue
        if job_id in finished:  # a history that was not asked: how it ended is not told
            found[job_id] = Observation(id=job_id, state=JobState.ENDED, word="finished")
        elif not silent:
            found[job_id] = NoAnswer(reply.said)
    return found


# --- a site's own table (assumed: what is known of one is its guide and two printed answers)


def _by_table(ids: Sequence[str], options: Mapping[str, object]) -> Dialogue[Answer | NoAnswer]:
    """The table of the queue, then that of the history, then the records of what they leave open.

    The table tells neither why a job waits nor how one ended.
    """
    rows = pbs_search.table_rows((yield pbs_ask.qstat(*pbs_ask.words(options))))
    if isinstance(rows, NoAnswer):
        return rows
    answer = _rows_matched(ids, rows)
    left = [job_id for job_id in ids if job_id not in answer]
    history = pbs_ask.history(options)
    if left and history:
        rows = pbs_search.table_rows((yield pbs_ask.qstat(*pbs_ask.words(options), *history)))
        if isinstance(rows, NoAnswer):
            return answer | dict.fromkeys(left, rows)
        answer |= _rows_matched(left, rows)
    ended = [job_id for job_id, seen in answer.items() if _is(seen, JobState.ENDED)]
    if ended and history:
        told = _from_text((yield pbs_ask.qstat(*history, "-f", *ended)), ended, at_once=False)
        answer |= _in_state(told, JobState.ENDED)
    queued = [job_id for job_id, seen in answer.items() if _is(seen, JobState.QUEUED)]
    if queued:
        told = _from_text((yield pbs_ask.qstat("-f", *queued)), queued, at_once=False)
        answer |= _in_state(told, JobState.QUEUED)
    return answer


def _in_state(told: Answer | NoAnswer, state: JobState) -> Answer:
    """What full records say of jobs that are in the state in which the table has them."""
    if isinstance(told, NoAnswer):
        return {}
    return {job_id: seen for job_id, seen in told.items() if _is(seen, state)}


def _rows_matched(ids: Sequence[str], rows: Iterable[qstat.Row]) -> Answer:
    by_number = {pbs_ask.number(row.id): row for row in rows}
    listed = {job_id: by_number.get(pbs_ask.number(job_id)) for job_id in ids}
    return {
        job_id: qstat.row_observation(qstat.Row(job_id, row.name, row.word))
        for job_id, row in listed.items()
        if row is not None
    }


def _is(seen: Observation | NoAnswer, state: JobState) -> bool:
    return isinstance(seen, Observation) and seen.state is state
