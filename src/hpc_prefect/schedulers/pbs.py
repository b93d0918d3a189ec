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
from hpc_prefect.schedulers import qstat, qsub
from hpc_prefect.schedulers.base import Answer, NoAnswer, Submission, Ticket, Told

#: A hung server blocks every command without end.
_LIMIT = 60.0
#: `qstat` writes local times without a zone; so it is told where it is.
_UTC = {"TZ": "UTC"}

#: Exit statuses of `qstat` after which its records are whole: 0, or the error about the last bad id
#: modulo 256 (not known, has finished).
_WHOLE = (0, 153, 35)
_UNKNOWN = re.compile(r"Unknown Job Id(?: Error)? (\S+)")
_FINISHED = re.compile(r"(\S+) Job has finished, use -x or -H")
_ILLEGAL = re.compile(r"illegally formed job identifier: (\S+)")
_NO_HISTORY = "not configured to maintain job history"

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

    def environment_problems(self, spec: JobSpec, environment: Mapping[str, str]) -> list[str]:
        return []

    def preamble(self, spec: JobSpec, ticket: Ticket) -> Preamble:
        lines = tuple(f"#PBS {option}" for option in qsub.directives(spec))
        return Preamble(directives=lines, id_expression='"$PBS_JOBID"')

    def submit(self, spec: JobSpec, ticket: Ticket) -> Dialogue[Submission]:
        # On the command line, because it wins over the lines in the script.
        named = ("-N", ticket.tag, "-o", ticket.scheduler_out, "-e", ticket.scheduler_err)
        reply = yield Command(("qsub", *named, ticket.script), timeout=_LIMIT)
        return qsub.submission(reply)

    def observe(
        self, ids: Sequence[str], options: Mapping[str, object]
    ) -> Dialogue[Answer | NoAnswer]:
        if options.get("status_dialect") == "table":
            return (yield from _by_table(ids, options))
        answer: Answer = {}
        left = list(ids)
        if options.get("status_dialect", "json") == "json" and (_at_once(options) or len(ids) == 1):
            reply = yield from _asked(left, answer, options, "-f", "-F", "json")
            if refused := _option_refused(reply):
                return refused
            if reply.code not in _WHOLE:
                return NoAnswer(reply.said)
            answer |= _from_json(reply, left)
            left = [job_id for job_id in left if job_id not in answer]
        if left:
            reply = yield from _asked(left, answer, options, "-f")
            more = _from_text(reply, left, at_once=_at_once(options))
            if isinstance(more, NoAnswer):
                return (answer | dict.fromkeys(left, more)) if answer else more
            answer |= more
        return answer

    def find(
        self, tag: str, options: Mapping[str, object]
    ) -> Dialogue[dict[str, Observation] | NoAnswer]:
        if options.get("status_dialect") == "table":
            return (yield from _find_in_table(tag, options))
        reply = yield Command(("qselect", *_history(options), "-N", tag), timeout=_LIMIT)
        if reply.code != 0 or reply.stderr.strip():
            return _option_refused(reply) or NoAnswer(reply.said)
        ids = reply.stdout.split()
        if not ids:
            return {}
        answer = yield from self.observe(ids, options)
        if isinstance(answer, NoAnswer):
            return answer
        unsure = [each for each in answer.values() if isinstance(each, NoAnswer)]
        if unsure:
            return unsure[0]
        listed = {each: answer.get(each) for each in ids}
        return {
            job_id: seen
            if isinstance(seen, Observation)
            else Observation(id=job_id, state=JobState.UNKNOWN, tag=tag)
            for job_id, seen in listed.items()
        }

    def cancel(
        self, jobs: Mapping[str, str], options: Mapping[str, object]
    ) -> Dialogue[NoAnswer | None]:
        reply = yield Command(("qdel", *jobs), timeout=_LIMIT)
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
        for word in _words(options)
        if not re.fullmatch(r"-[A-Za-z0-9=-]+", word, re.ASCII)
    ]


# --- asking qstat


def _at_once(options: Mapping[str, object]) -> bool:
    return bool(options.get("one_connection", True))


def _words(options: Mapping[str, object]) -> list[str]:
    words = options.get("status_options", ())
    return [str(word) for word in words] if isinstance(words, Iterable) else []


def _history(options: Mapping[str, object]) -> tuple[str, ...]:
    flag = str(options.get("history_flag", "-x"))
    return () if flag == "none" else (flag,)


def _asked(
    ids: list[str], answer: Answer, options: Mapping[str, object], *form: str
) -> Dialogue[Reply]:
    """What qstat says of `ids`. Those that it calls ill-formed move to `answer` as unanswered.

    Of these one is enough and qstat tells nothing of the others: a job of another server, say.
    """
    once = ("-E",) if _at_once(options) else ()
    while True:
        reply = yield _command(*once, *_history(options), *form, *_words(options), *ids)
        bad = set(_ILLEGAL.findall(reply.stderr)) & set(ids)
        if not bad or len(bad) == len(ids):
            return reply
        answer.update(dict.fromkeys(bad, NoAnswer(reply.said)))
        ids[:] = [job_id for job_id in ids if job_id not in bad]


def _command(*words: str) -> Command:
    return Command(("qstat", *words), timeout=_LIMIT, environment=_UTC)


def _option_refused(reply: Reply) -> NoAnswer | None:
    """A sentence for a command that knows no such option, or has no history to show."""
    if _NO_HISTORY in reply.stderr:
        return NoAnswer(f"{reply.said}; set pbs.history_flag of the HPC profile to 'none'")
    if reply.code == 2 or "invalid option" in reply.stderr or "usage:" in reply.stderr.lower():
        said = Reply(reply.code, stderr=re.split(r"\s*usage:", reply.stderr, flags=re.I)[0]).said
        return NoAnswer(
            f"{said}; this site's command does not know an option that it was given: see"
            " pbs.one_connection (-E), pbs.history_flag (-x, -H), pbs.status_options and"
            " pbs.status_dialect (-F json) of the HPC profile"
        )
    return None


# --- reading its answers


def _matched(ids: Sequence[str], records: Mapping[str, qstat.Record]) -> Answer:
    """What was asked for, by the ids that were asked: a site may print another server's name."""
    by_number = {_number(job_id): record for job_id, record in records.items()}
    found: Answer = {}
    for job_id in ids:
        record = records.get(job_id) or by_number.get(_number(job_id))
        if record:
            found[job_id] = qstat.record_observation(job_id, record)
    return found


def _number(job_id: str) -> str:
    return job_id.partition(".")[0]


def _from_json(reply: Reply, ids: Sequence[str]) -> Answer:
    """The jobs in a JSON answer; none when it cannot be parsed, so that the text is asked for."""
    try:
        return _matched(ids, qstat.read_json(reply.stdout))
    except ValueError:
        return {}


def _from_text(reply: Reply, ids: Sequence[str], *, at_once: bool) -> Answer | NoAnswer:
    """What a text answer says of each id: its record, that it is not known, or nothing useful."""
    if refused := _option_refused(reply):
        return refused
    if reply.code not in _WHOLE:
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
    rows = _rows((yield _command(*_words(options))))
    if isinstance(rows, NoAnswer):
        return rows
    answer = _rows_matched(ids, rows)
    left = [job_id for job_id in ids if job_id not in answer]
    history = _history(options)
    if left and history:
        rows = _rows((yield _command(*_words(options), *history)))
        if isinstance(rows, NoAnswer):
            return answer | dict.fromkeys(left, rows)
        answer |= _rows_matched(left, rows)
    ended = [job_id for job_id, seen in answer.items() if _is(seen, JobState.ENDED)]
    if ended and history:
        told = _from_text((yield _command(*history, "-f", *ended)), ended, at_once=False)
        answer |= _in_state(told, JobState.ENDED)
    queued = [job_id for job_id, seen in answer.items() if _is(seen, JobState.QUEUED)]
    if queued:
        told = _from_text((yield _command("-f", *queued)), queued, at_once=False)
        answer |= _in_state(told, JobState.QUEUED)
    return answer


def _in_state(told: Answer | NoAnswer, state: JobState) -> Answer:
    """What full records say of jobs that are in the state in which the table has them."""
    if isinstance(told, NoAnswer):
        return {}
    return {job_id: seen for job_id, seen in told.items() if _is(seen, state)}


def _find_in_table(
    tag: str, options: Mapping[str, object]
) -> Dialogue[dict[str, Observation] | NoAnswer]:
    tables = [(), _history(options)] if _history(options) else [()]
    found: dict[str, Observation] = {}
    for history in tables:
        rows = _rows((yield _command(*_words(options), *history)))
        if isinstance(rows, NoAnswer):
            return rows
        maybe = [row for row in rows if _may_be(row.name, tag) and row.id not in found]
        if maybe:
            # The table may cut names and ids, and the script will see the full id.
            reply = yield _command(*history, "-f", *(row.id for row in maybe))
            named = _named(reply, tag, maybe)
            if isinstance(named, NoAnswer):
                return named
            found |= named
    return found


def _named(reply: Reply, tag: str, rows: Sequence[qstat.Row]) -> dict[str, Observation] | NoAnswer:
    """The full records of that name; without them whole names and ids must be in the table."""
    try:
        records = qstat.read_text(reply.stdout) if reply.code in _WHOLE else {}
    except ValueError:
        records = {}
    if {_number(row.id) for row in rows} <= {_number(job_id) for job_id in records}:
        seen = [qstat.record_observation(*each) for each in records.items()]
        return {each.id: each for each in seen if each.tag == tag}
    whole = [row for row in rows if row.name == tag and "." in row.id]
    if len(whole) == len(rows):
        return {row.id: qstat.row_observation(row) for row in whole}
    return NoAnswer(
        f"qstat lists job {rows[0].id} as {rows[0].name!r}, which may be {tag!r}, but no full"
        " record of it can be read: look at it, and set pbs.status_options of the HPC profile to"
        " what shows whole names and ids"
    )


def _may_be(name: str, tag: str) -> bool:
    """Whether a name in a column, perhaps a narrow one, is the tag or its beginning."""
    shown = name.rstrip("*.+")
    return name == tag or (len(shown) >= 8 and tag.startswith(shown))


def _rows(reply: Reply) -> list[qstat.Row] | NoAnswer:
    if refused := _option_refused(reply):
        return refused
    if reply.code != 0:
        return NoAnswer(reply.said)
    try:
        return qstat.read_table(reply.stdout)
    except ValueError as error:
        return NoAnswer(f"an answer of qstat cannot be used: {error}: {reply.stdout[:200]!r}")


def _rows_matched(ids: Sequence[str], rows: Iterable[qstat.Row]) -> Answer:
    by_number = {_number(row.id): row for row in rows}
    return {
        job_id: qstat.row_observation(
            qstat.Row(job_id, by_number[_number(job_id)].name, by_number[_number(job_id)].word)
        )
        for job_id in ids
        if _number(job_id) in by_number
    }


def _is(seen: Observation | NoAnswer, state: JobState) -> bool:
    return isinstance(seen, Observation) and seen.state is state
