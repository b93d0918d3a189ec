"""PBS: `qsub`, `qstat`, `qselect`, `qdel` of OpenPBS, PBS Professional, and what is like them.

Seen on OpenPBS 23.06, with its history on. One command asks queue and history about many jobs:
`qstat -E -x -f -F json ID...`. Without -E, `qstat` opens a connection for each id, and its JSON
holds only the first job. With -E, it does not mention a job that PBS does not know; so a job that
the JSON does not list is asked for again as text before it counts as not listed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TypeVar

from hpc_prefect.job.dialogue import Command, Dialogue
from hpc_prefect.job.failure import Reason
from hpc_prefect.job.script import Preamble
from hpc_prefect.job.spec import JobSpec
from hpc_prefect.job.state import Patience
from hpc_prefect.schedulers.base import Answer, Found, NoAnswer, Submission, Ticket, Told
from hpc_prefect.schedulers.pbs import arrays
from hpc_prefect.schedulers.pbs import questions as pbs_ask
from hpc_prefect.schedulers.pbs import search as pbs_search
from hpc_prefect.schedulers.pbs import status as pbs_status
from hpc_prefect.schedulers.pbs import submit as qsub
from hpc_prefect.schedulers.pbs.questions import NoHistory

T = TypeVar("T")

#: What `qdel` says of a job that has ended or is already being deleted.
_GONE = re.compile(
    r"Unknown Job Id|Job has finished|Request invalid for state of job|Delete already in progress"
)

_OWN_LINE = re.compile(r"^=>> PBS: job killed: (\w+) .*", re.MULTILINE)
_KILLED = {
    "walltime": Reason.WALLTIME,
    **dict.fromkeys(("mem", "vmem", "pmem", "pvmem"), Reason.OUT_OF_MEMORY),
    "node": Reason.NODE_FAILURE,  # assumed: "node 1 (host) requested job die, code 15009"
}
#: The cgroups hook's message, with the kernel's own line; assumed. Without that line the limit was
#: only reached, and nothing was killed.
_CGROUP = re.compile(
    r"^Cgroup mem(?:sw)? limit exceeded: .*(?:Killed process|oom-kill).*", re.MULTILINE
)


class PBSScheduler:
    """`Scheduler` for PBS.

    The patience: a job is listed from the moment `qsub` tells its id, and the history holds ended
    jobs for days, so most default values fit. `record` is short, because PBS calls a job ended only
    after its output was copied. `confirm` is long, because PBS by default waits 10 s between its
    two signals, and lists the job as running meanwhile.
    """

    name = "pbs"
    runs_here = False
    patience = Patience(record=30.0, confirm=40.0)
    ids_per_question = 100
    searchable = True
    throttles_arrays = True
    hurry = 2.0

    def __init__(self) -> None:
        self._no_history = False  # the server has told that it keeps none

    def problems(self, spec: JobSpec) -> list[str]:
        return qsub.problems(spec) + _status_problems(spec.site.options)

    def environment_problems(self, spec: JobSpec, environment: Mapping[str, str]) -> list[str]:
        return []

    def array_limit(self, options: Mapping[str, object]) -> int:
        return arrays.limit(options)

    def element_id(self, array_id: str, index: int) -> str:
        return arrays.element_id(array_id, index)

    def array_of(self, element_id: str) -> str:
        return arrays.array_of(element_id)

    def preamble(self, spec: JobSpec, ticket: Ticket) -> Preamble:
        lines = tuple(f"#PBS {option}" for option in qsub.directives(spec))
        plain = Preamble(directives=lines, id_expression='"$PBS_JOBID"')
        if spec.array is None:
            return plain
        # PBS takes only arrays whose subjobs it may start again. With `restarts` always 0 no start
        # counts as such, so the script refuses to run the program a second time.
        return replace(plain, index='"$PBS_ARRAY_INDEX"', restarts="0")

    def submit(self, spec: JobSpec, ticket: Ticket) -> Dialogue[Submission]:
        # PBS would make two files for each subjob, or let all overwrite one. Without them we lose
        # PBS's line about a kill, which Exit_status tells too, and why a script could not begin.
        nowhere = ("/dev/null", "/dev/null")
        out, err = nowhere if spec.array else (ticket.scheduler_out, ticket.scheduler_err)
        # On the command line, which wins over the lines in the script.
        named = ("-N", ticket.tag, "-o", out, "-e", err)
        reply = yield Command(("qsub", *named, ticket.script), timeout=pbs_ask.LIMIT)
        return qsub.submission(reply, array=spec.array is not None)

    def observe(
        self, ids: Sequence[str], options: Mapping[str, object]
    ) -> Dialogue[Answer | NoAnswer]:
        return (yield from self._asked(partial(pbs_status.observe, ids), options))

    def find(
        self, tags: Sequence[str], options: Mapping[str, object]
    ) -> Dialogue[Found | NoAnswer]:
        return (yield from self._asked(partial(pbs_search.find, tags), options))

    def _asked(
        self,
        question: Callable[[Mapping[str, object]], Dialogue[T | NoAnswer]],
        options: Mapping[str, object],
    ) -> Dialogue[T | NoAnswer]:
        """Ask. If the answer is that there is no history, never use the history's option again."""
        if pbs_ask.history(options) and not self._no_history:
            answer = yield from question(options)
            if not isinstance(answer, NoHistory):
                return answer
            self._no_history = True
        # Without a history an ended job is not listed, and nothing more will be told of it.
        self.patience = replace(self.patience, lost=self.patience.absent)
        return (yield from question({**options, "history_flag": "none"}))

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
