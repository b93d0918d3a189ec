"""PJM: `pjsub`, `pjstat`, `pjdel` of Fujitsu's Technical Computing Suite.

No PJM could be run for this. The sources are the manual of V4.0L20, a large site's guide, and
output of real machines. What none of these shows is marked "assumed".

The queue (`pjstat`) is asked first. The history (`pjstat -H`) shows ended jobs only, and is asked
about those that the queue no longer lists; by default it shows three days.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from hpc_prefect.job import folder as names
from hpc_prefect.job.dialogue import Command, Dialogue, Reply
from hpc_prefect.job.script import Preamble
from hpc_prefect.job.spec import JobSpec
from hpc_prefect.job.state import Patience
from hpc_prefect.schedulers.base import Answer, Found, NoAnswer, Submission, Ticket, Told
from hpc_prefect.schedulers.pjm import arrays
from hpc_prefect.schedulers.pjm import status as pjstat
from hpc_prefect.schedulers.pjm import submit as pjsub

#: Seconds: a command that gets no answer may wait without end.
_LIMIT = 60.0
#: The columns to show, whatever the site's default is. REASON is last, because it holds blanks.
_ITEMS = "jid,jnam,jmdl,st,lst,ec,pc,sn,ermsg"

_ERROR = re.compile(r"^\[ERR\.?\] +PJM +(\d+)", re.MULTILINE | re.ASCII)
#: What `pjdel` says of a job that has ended: it does not exist, or its state allows no deletion.
_GONE = {"0112", "0113"}


class PJMScheduler:
    """`Scheduler` for PJM.

    The patience: `record` is short, because PJM calls a job ended only after its output is there.
    `confirm` is long, because `pjdel` only accepts the request, and an epilogue may follow.
    """

    name = "pjm"
    runs_here = False
    patience = Patience(record=30.0, confirm=60.0)
    ids_per_question = 100
    searchable = True
    throttles_arrays = False
    hurry = 5.0

    def problems(self, spec: JobSpec) -> list[str]:
        return pjsub.problems(spec)

    def environment_problems(self, spec: JobSpec, environment: Mapping[str, str]) -> list[str]:
        return []

    def array_limit(self, options: Mapping[str, object]) -> int:
        return arrays.limit(options)

    def element_id(self, array_id: str, index: int) -> str:
        return f"{array_id}[{index}]"

    def array_of(self, element_id: str) -> str:
        return arrays.array_of(element_id)

    def preamble(self, spec: JobSpec, ticket: Ticket) -> Preamble:
        lines = tuple(f"#PJM {option}" for option in pjsub.directives(spec))
        if spec.array is None:
            return Preamble(directives=lines, id_expression='"$PJM_JOBID"')
        # Made of two variables: the manual does not say how PJM_SUBJOBID is written. Nor does it
        # say whether PJM_JOBID is the id of the whole there, so a `[…]` that may follow is cut off.
        element = r'"${PJM_JOBID%%\[*}[$PJM_BULKNUM]"'
        return Preamble(directives=lines, id_expression=element, index='"$PJM_BULKNUM"')

    def submit(self, spec: JobSpec, ticket: Ticket) -> Dialogue[Submission]:
        options: Sequence[str] = spec.site.options.get("command_options", ())
        if spec.array:
            # PJM would make three files for each sub job, or mix all in one. Without them we lose
            # PJM's line about an end; the codes tell it too, as long as the history has them.
            where = (*arrays.options(spec.array), "-o", "/dev/null", "-e", "/dev/null")
        else:
            statistics = f"{ticket.folder}/{names.SCHEDULER_STATISTICS}"
            where = ("-o", ticket.scheduler_out, "-e", ticket.scheduler_err)
            where += ("-s", "--spath", statistics)
        reply = yield Command(
            (
                # On the command line, which wins over the lines in the script.
                *("pjsub", "-N", ticket.tag, *where),
                *options,
                ticket.script,
            ),
            timeout=120.0,
            # The job starts in the folder in which pjsub is called, and some sites check it.
            cwd=spec.work_dir,
        )
        return pjsub.submission(reply)

    def observe(
        self, ids: Sequence[str], options: Mapping[str, object]
    ) -> Dialogue[Answer | NoAnswer]:
        answer: Answer = {}
        for history in ((), _history(options)):
            left = [each for each in ids if each not in answer]
            answer |= yield from _listed(left, history)
            unanswered = [each for each in answer.values() if isinstance(each, NoAnswer)]
            if not history and len(unanswered) == len(ids):
                return unanswered[0]
        return answer

    def find(
        self, tags: Sequence[str], options: Mapping[str, object]
    ) -> Dialogue[Found | NoAnswer]:
        found: Found = {tag: {} for tag in tags}
        for history in ((), _history(options)):
            left = [tag for tag in tags if not found[tag]]
            if not left:
                break
            which = "jnam=" + "+".join(left)
            rows = _read((yield _pjstat(*history, "-v", filtered=which)))
            if isinstance(rows, NoAnswer):
                return found | dict.fromkeys(left, rows)
            found |= _named(rows, left, which)
        return found

    def cancel(
        self, jobs: Mapping[str, str], options: Mapping[str, object]
    ) -> Dialogue[NoAnswer | None]:
        reply = yield Command(("pjdel", *jobs), timeout=_LIMIT)
        errors = set(_ERROR.findall(reply.stdout + "\n" + reply.stderr))
        if reply.code is not None and errors <= _GONE and (errors or reply.code == 0):
            return None
        return NoAnswer(reply.said)

    def read_output(self, text: str) -> Told | None:
        told = pjstat.written_end(text)
        return Told(*told) if told else None


def _listed(ids: Sequence[str], history: tuple[str, ...]) -> Dialogue[Answer]:
    """What a list says of these jobs. With -E a whole is listed with its sub jobs.

    A filter takes only ids of jobs (assumed). Sub jobs are asked for by operands, and only those
    that the answer about the wholes does not list.
    """
    found: Answer = {}
    jobs = [each for each in ids if not arrays.is_element(each)]
    for some in (jobs, [each for each in ids if arrays.is_element(each)]):
        left = [each for each in some if each not in found]
        if not left:
            continue
        how = (*history, "-E", "-v")
        if some is jobs:
            rows = _read((yield _pjstat(*how, filtered="jid=" + "+".join(left))))
        else:
            rows = _read((yield _pjstat(*how, ids=left)))
        if isinstance(rows, NoAnswer):
            found |= dict.fromkeys(left, rows)
        else:
            found |= arrays.observations(rows, {*ids})
    return found


def _pjstat(*how: str, filtered: str = "", ids: Sequence[str] = ()) -> Command:
    which = ("--filter", filtered) if filtered else tuple(ids)
    return Command(("pjstat", *how, "--choose", _ITEMS, *which), timeout=_LIMIT)


def _history(options: Mapping[str, object]) -> tuple[str, ...]:
    return ("-H", f"day={options.get('history_days', 30)}")


def _read(reply: Reply) -> list[pjstat.Record] | NoAnswer:
    if reply.code != 0 or _ERROR.search(reply.stdout + "\n" + reply.stderr):
        return NoAnswer(reply.said)
    try:
        return pjstat.read_table(reply.stdout)
    except ValueError as error:
        return NoAnswer(f"an answer of pjstat cannot be used: {error}: {reply.stdout[:200]!r}")


def _named(rows: Sequence[pjstat.Record], tags: Sequence[str], which: str) -> Found:
    """The rows by name. The filter compares whole names; the column shows only 10 characters.

    A bulk job counts as one job, also if its sub jobs are listed with it.
    """
    if any(len(pjstat.may_be(row, tags)) != 1 for row in rows):
        return dict.fromkeys(
            tags,
            NoAnswer(
                f"pjstat --filter {which} also lists jobs of other names, or names that cannot be"
                " read; this site's command does not seem to know that filter"
            ),
        )
    found: Found = {}
    for tag in tags:
        ids = [row["JOB_ID"] for row in rows if tag in pjstat.may_be(row, tags)]
        found[tag] = {
            **arrays.observations(rows, {each for each in ids if not arrays.is_element(each)})
        }
    return found
