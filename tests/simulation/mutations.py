"""What the simulation must find: the product with one of its promises taken out.

Each is a change of the source, made in a copy that a child process runs the simulation on. The
product itself is never changed.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import hpc_prefect
from simulation import mix

_SOURCE = Path(hpc_prefect.__file__).parent
_TESTS = Path(__file__).parents[1]


@dataclass(frozen=True)
class Mutation:
    """A text in a file, and what stands there instead; `name` says what is missing then.

    `quantum`: it is looked for in the seeds that have a quantum service, alone.
    `first`: the seed to begin with.
    """

    name: str
    file: str
    old: str
    new: str
    quantum: bool = False
    first: int = 1


#: The first seed of those whose worlds are all of arrays.
OF_ARRAYS = mix.ARRAYS + 1
#: The first of those whose worlds are all of held allocations.
OF_ALLOCATIONS = mix.ALLOCATIONS + 1
#: The first of those whose worlds are all of calls that are alike.
OF_BRANCHES = mix.BRANCHES + 1
#: The first of those whose worlds are all of arrays in held allocations.
OF_HELD_ARRAYS = mix.HELD_ARRAYS + 1
#: Of arrays in held allocations.
HELD_ARRAYS = (
    Mutation(
        "a submission that waits for its turn keeps the allocation that was chosen before",
        "executor/arrays/run.py",
        "            if waits and not following.is_cancelled:\n",
        "            if False:\n",
        first=OF_HELD_ARRAYS,
    ),
    Mutation(
        "a member's record by the script that a stopped process wrote is not known",
        "executor/monitor.py",
        "self.exits = self._known_exits(data, len(self.starts))",
        "self.exits = read_exits(data, self._words)",
        first=OF_HELD_ARRAYS,
    ),
    Mutation(
        "a member whose allocation ended before its turn is not submitted again",
        "executor/arrays/run.py",
        "if verdict.reason is Reason.NEVER_STARTED and is_allocation(handed_to):",
        "if False:",
        first=OF_HELD_ARRAYS,
    ),
    Mutation(
        "an allocation that members came back from is used again",
        "executor/arrays/run.py",
        "                self._request.placing.came_back(following.submission.request.spec.site)\n",
        "                pass\n",
        first=OF_HELD_ARRAYS,
    ),
    Mutation(
        "members in an allocation are followed where the others are",
        "executor/arrays/run.py",
        "submission.connection = self._connect(submission.request.spec.site)",
        "submission.connection = self._connection",
        first=OF_HELD_ARRAYS,
    ),
)
#: Of the numbers of calls that are alike.
BRANCHES = (
    Mutation(
        "an occurrence is counted for the run, not for its place",
        "job/numbers.py",
        "        mine = self.drawn.setdefault(call, [])\n",
        "        call = (), call[1]\n        mine = self.drawn.setdefault(call, [])\n",
        first=OF_BRANCHES,
    ),
    Mutation(
        "a task run that is run again goes on counting",
        "job/numbers.py",
        "            self.used.clear()\n",
        "",
        first=OF_BRANCHES,
    ),
    Mutation(
        "each of several equal task runs counts from 0",
        "job/numbers.py",
        "index if self.around is None else self.around.next_number(call)",
        "index",
        first=OF_BRANCHES,
    ),
)
#: Of held allocations.
ALLOCATIONS = (
    Mutation(
        "a job whose hand-over to an allocation was not answered was not taken",
        "schedulers/allocation/scheduler.py",
        "return Refused(reply.said) if spools.surely_refused(reply) else Unclear(reply.said)",
        "return Refused(reply.said)",
        first=OF_ALLOCATIONS,
    ),
    Mutation(
        "who holds an allocation gives no sign of life",
        "executor/allocation.py",
        "        self._executor.keep(term)\n",
        "",
        first=OF_ALLOCATIONS,
    ),
    Mutation(
        "a job that came too late for an allocation is refused for good",
        "schedulers/allocation/scheduler.py",
        '"NOT_TAKEN", Reason.ALLOCATION_ENDED, why',
        '"NOT_TAKEN", Reason.REJECTED, why',
        first=OF_ALLOCATIONS,
    ),
    # What the simulation has found itself; each of these is a story, too.
    Mutation(
        "a new record of a job that was listed nowhere before it began decides at once",
        "job/state.py",
        " and record_for >= patience.absent:",
        ":",
        first=OF_ALLOCATIONS,
    ),
    Mutation(
        "an allocation's end hides a success whose output is not seen yet",
        "job/state.py",
        "if record is not None and record.clean and seen.cause is Reason.ALLOCATION_ENDED:",
        "if False:",
        first=OF_ALLOCATIONS,
    ),
    Mutation(
        "the end of an allocation's refused batch job is that of the next one",
        "schedulers/allocation/spool.py",
        "return bool(self.gone) and self.gone_as == own",
        "return bool(self.gone)",
        first=OF_ALLOCATIONS,
    ),
    Mutation(
        "an allocation whose agent is silent has as much time left as it last said",
        "executor/allocation.py",
        "if seen.is_over or not (seen.is_late or term.in_doubt):",
        "if True:",
        first=OF_ALLOCATIONS,
    ),
    Mutation(
        "a job that came back from an allocation is handed to it again",
        "executor/allocation.py",
        "if seen.is_over or not (seen.is_late or term.in_doubt):",
        "if seen.is_over or not seen.is_late:",
        first=OF_ALLOCATIONS,
    ),
    Mutation(
        "the exit record of a script that a stopped process wrote in place of ours is not known",
        "executor/monitor.py",
        "        self._words |= self._more_words(self._words)\n",
        "",
        first=OF_ALLOCATIONS,
    ),
    Mutation(
        "a job waits for an allocation that nobody submits",
        "schedulers/allocation/scheduler.py",
        "if look.unheld_for is None or look.unheld_for <= _DEAD:",
        "if True:",
        first=OF_ALLOCATIONS,
    ),
    Mutation(
        "the end of a second start of an allocation's batch job is that of the first",
        "executor/allocation.py",
        "if ledger.facts.get(names.SECOND_START):",
        "if False:",
        first=OF_ALLOCATIONS,
    ),
)
#: Of arrays.
ARRAYS = (
    Mutation(
        "ends that an earlier claimant wrote are taken to be on disk",
        "executor/arrays/monitor.py",
        "[*gone, *kept]",
        "kept",
        first=OF_ARRAYS,
    ),
    Mutation(
        "a lost member of an array that was cancelled is not waited for until it is lost",
        "executor/cancelling.py",
        "answers = 4 * watched.poll_interval",
        "answers = 0.0",
        first=OF_ARRAYS,
    ),
    Mutation(
        "a packed member is judged as its element is",
        "executor/arrays/evidence.py",
        "if self._submission.per_element == 1 or evidence.start is None:",
        "if True:",
        first=OF_ARRAYS,
    ),
    Mutation(
        "the success of a member is not read before it is submitted",
        "executor/arrays/opening.py",
        "        elif _outputs_there(submission, ended):",
        "        elif False:",
        first=OF_ARRAYS,
    ),
    Mutation(
        "what a member came to in an earlier submission counts",
        "executor/arrays/run.py",
        " and self._opened.last[key] == submission.number",
        "",
        first=OF_ARRAYS,
    ),
    Mutation(
        "a scheduler may start members again",
        "job/spec.py",
        " and not self.has_members",
        "",
        first=OF_ARRAYS,
    ),
    Mutation(
        "who was taken over from leaves the intent of a submission that it gave up",
        "executor/attempt.py",
        'self.folder.note("refused", said=str(held))',
        "pass",
        first=OF_ARRAYS,
    ),
    Mutation(
        "a member that is lost is cancelled with those that never started",
        "executor/arrays/run.py",
        "Reason.LOST not in ends and ",
        "",
        first=OF_ARRAYS,
    ),
    Mutation(
        "the list of an array's members is not forced to disk",
        "ledger/array_folder.py",
        "layout.asked_text(asked), durable=True",
        "layout.asked_text(asked)",
        first=OF_ARRAYS,
    ),
    Mutation(
        "a worse code hides that an element was turned away",
        "job/script.py",
        '  [ "$_hp_worst" != {GUARD_CODE} ] || continue\n  [ "$_hp_code" != {GUARD_CODE} ] && [',
        "  [",
        first=OF_ARRAYS,
    ),
    Mutation(
        "jobs cancel does not ask members whether they have begun in an array listed late",
        "operations/cancel.py",
        "alone = self.members_told or self.job.members is None",
        "alone = True",
        first=OF_ARRAYS,
    ),
    Mutation(
        "the list of ended members is removed whether there is one or not",
        "executor/arrays/submission.py",
        "        if self.folder.ended_text():\n            self.claim.check()\n",
        "        if True:\n",
        first=OF_ARRAYS,
    ),
    Mutation(
        "a member is taken out before what is needed of it is read",
        "executor/arrays/monitor.py",
        "            attempt = self._submission.member(index, self._files.holder(index))\n",
        "            self._waiting.discard(index)\n"
        "            self._running.pop(index, None)\n"
        "            attempt = self._submission.member(index, self._files.holder(index))\n",
    ),
)


#: Of purchases at a quantum service.
QUANTUM = (
    Mutation(
        "jobs cancel leaves out what quantum jobs of its tag have cost that ended before",
        "operations/cancel.py",
        'known = request.ids and request.job.kind == "batch"',
        "known = request.ids",
        quantum=True,
    ),
    Mutation(
        "an id that a stopped process notes after the verdict is that of the job",
        "ledger/quantum_folder.py",
        'str(ledger.result.get("job_id", ledger.job_id))',
        "ledger.job_id",
        quantum=True,
    ),
    Mutation(
        "the budget is counted after the POST",
        "ledger/quantum_folder.py",
        "elif ledger.intended:",
        "elif ledger.job_id:",
        quantum=True,
    ),
    Mutation(
        "nobody looks for a quantum job of the same tag after a lost reply",
        "quantum/purchase/attempt.py",
        "if self.request.service.searchable:\n            return self.intended",
        "if self.request.service.searchable:\n            return False",
        quantum=True,
    ),
    Mutation(
        "a cancellation that the service accepts is the end",
        "executor/cancelling.py",
        "            watched.wants_answer = True\n",
        "            watched.wants_answer = True\n            if heard:\n"
        "                watched.give_up(Verdict(reason=asked_for(by), summary='accepted'))\n",
        quantum=True,
    ),
    # What the simulation has found itself; each of these is a story, too.
    Mutation(
        "a second job of one POST that is listed late is not looked for",
        "quantum/purchase/attempt.py",
        "await self._end_others(self.job_id, found)",
        "pass",
        quantum=True,
    ),
    Mutation(
        "a service that does not answer at the end is not asked again for a second job",
        "quantum/purchase/run.py",
        "_TRIES = 10",
        "_TRIES = 1",
        quantum=True,
    ),
    Mutation(
        "a claim is looked at through what NFS remembers before a POST",
        "quantum/purchase/attempt.py",
        "        self.claim.check_anew()",
        "        self.claim.check()",
        quantum=True,
    ),
    Mutation(
        "a verdict is told as it was written, although another one stands",
        "executor/finalize.py",
        "    if first is None or first.verdict.reason is result.verdict.reason:\n",
        "    if True:\n",
        quantum=True,
    ),
    Mutation(
        "an attempt that is listed late is looked for without end",
        "executor/attempt.py",
        "seen = number = max(_newest(transport, request.base), seen)",
        "seen = number = _newest(transport, request.base) or 1",
        quantum=True,
    ),
)

MUTATIONS = (
    Mutation(
        "the start guard is removed from the script",
        "job/script.py",
        '"_hp_guard || _hp_again" if again else "_hp_guard || :"',
        '":"',
    ),
    Mutation(
        "nobody looks for a job of the same tag",
        "executor/submission.py",
        "    while unclear < _MOST_UNCLEAR:\n        if attempt.may_be_there() and await",
        "    while unclear < _MOST_UNCLEAR:\n        if False and await",
    ),
    Mutation(
        "the intent is not forced to disk",
        "executor/attempt.py",
        '"intent",\n            durable=True,',
        '"intent",\n            durable=False,',
    ),
    Mutation(
        "a job that is not listed has ended",
        "job/state.py",
        "return evidence.absent_for - evidence.silent_for >= patience",
        "return evidence.absent_for > 0",
    ),
    Mutation(
        "the claim is not checked before a submission",
        "executor/attempt.py",
        'for a submission."""\n        self.claim.check()',
        'for a submission."""',
    ),
    Mutation(
        "who was stopped while it prepared a submission does not look at its claim again",
        "executor/attempt.py",
        "            self.check_claims()\n        except",
        "            pass\n        except",
    ),
    Mutation(
        "a cancellation that was asked for is believed",
        "executor/cancelling.py",
        "watched.give_up(Verdict(reason=asked_for(by), summary=summary))\n    return False",
        "watched.give_up(Verdict(reason=asked_for(by), summary=summary))\n    return True",
    ),
    Mutation(
        "the history is not asked",
        "schedulers/slurm/scheduler.py",
        'if (left or failed) and options.get("accounting", True):',
        "if False:",
    ),
    Mutation(
        "a journal is written on behind a torn line",
        "ledger/journal.py",
        'b"\\n" + line if line else line',
        "line",
    ),
    Mutation(
        "a job under a number that was used again is ours",
        "executor/monitor.py",
        "if seen is not None and seen.tag and seen.tag != self._attempt.tag:",
        "if False:",
    ),
    Mutation(
        "a start that the scheduler did not count runs the program",
        "job/script.py",
        "run = _run(spec, word, again=bool(again), member=array is not None)",
        "run = _run(spec, word, again=False, member=array is not None)",
    ),
    Mutation(
        "who has no jobs any more lets the neighbours ask for them",
        "executor/connection.py",
        "if self._turns.known_to_others:",
        "if False:",
    ),
    Mutation(
        "who waits for a cancellation in vain goes on waiting",
        "executor/submission.py",
        "        asked.cancel()",
        "        pass",
    ),
    Mutation(
        "what is written to read the file server's clock stays there",
        "ledger/claim.py",
        "    transport.remove(probe)\n",
        "",
    ),
    Mutation(
        "a failed question about a job is taken as the answer that it is not listed",
        "executor/connection.py",
        "if seen.error is not None:",
        "job.answered(now, None, asked)\n                if seen.error is not None:",
    ),
    # What the simulation has found itself; each of these is a story, too.
    Mutation(
        "an answer is as new as the moment when it is read",
        "executor/monitor.py",
        "self._answered_at = asked\n",
        "self._answered_at = now\n",
    ),
    Mutation(
        "an output that NFS remembers as absent is given up soon",
        "job/state.py",
        "outputs: float = 65.0",
        "outputs: float = 10.0",
    ),
    Mutation(
        "an output that was not there before a process was stopped is gone",
        "ledger/job_folder.py",
        "                enough = True\n                continue\n",
        "                return lost\n",
    ),
    Mutation(
        "an earlier run's cancellation of a forgotten job is in the way of each later run",
        "executor/cancelling.py",
        "patience.confirm + patience.lost",
        "patience.confirm",
    ),
    Mutation(
        "jobs of one name of which all have ended are still too many",
        "executor/attempt.py",
        "found.keys() - ended or {max(ended)}",
        "found.keys() - ended",
    ),
    Mutation(
        "an output of a job that was started twice is given up at once",
        "job/state.py",
        "if (evidence.record_for or 0.0) < patience.outputs:",
        "if (evidence.record_for or 0.0) < 1.0:",
    ),
    Mutation(
        "an output of a finished job that NFS remembers as absent is gone",
        "ledger/job_folder.py",
        "if soon <= 0:",
        "if True:",
    ),
    Mutation(
        "a start that could not read its start guard tells how the job ended",
        "job/state.py",
        "if seen.exit_code == FOLDER_CODE and record is not None and record.code != FOLDER_CODE:",
        "if False:",
    ),
    Mutation(
        "a job whose start guard NFS hides has not begun for jobs cancel",
        "operations/snapshot.py",
        'if starts and guard in ("", CLOSED) else guard',
        "if starts and guard == CLOSED else guard",
    ),
    Mutation(
        "the end of a second start that could not use the folder is that of the first",
        "job/state.py",
        "    if _blind_start(evidence, seen):\n",
        "    if False:\n",
    ),
    Mutation(
        "a second start that could not use the folder ends a job that Slurm may start again",
        "job/state.py",
        "    return began and seen.exit_code == FOLDER_CODE\n",
        "    return began and seen.exit_code == FOLDER_CODE and not evidence.may_requeue\n",
    ),
    Mutation(
        "a slot is given to who was cancelled in the same moment",
        "executor/coordination/queue_slots.py",
        "if not turn.cancelled():",
        "if True:",
    ),
    Mutation(
        "an answer of squeue that is cut off tells that a job is not listed",
        "schedulers/slurm/status.py",
        'return (len(parts) - 1) % marks != 0 or "|" in parts[-1]',
        "return False",
    ),
    *ARRAYS,
    *ALLOCATIONS,
    *HELD_ARRAYS,
    *BRANCHES,
    *QUANTUM,
)


def copy_with(mutation: Mutation, folder: Path) -> Path:
    """A copy of the product with one change; returns what PYTHONPATH needs."""
    target = folder / _SOURCE.name
    shutil.copytree(_SOURCE, target, ignore=shutil.ignore_patterns("__pycache__"))
    file = target / mutation.file
    text = file.read_text()
    assert text.count(mutation.old) == 1, f"{mutation.name}: {mutation.file} has changed"
    file.write_text(text.replace(mutation.old, mutation.new))
    return folder


def run_on(mutation: Mutation, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """`python -m simulation` with these words, on the product with that change."""
    path = os.pathsep.join([str(copy_with(mutation, folder)), str(_TESTS)])
    return subprocess.run(
        [sys.executable, "-m", "simulation", *words],
        env=os.environ | {"PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
    )


def lives_until_found(mutation: Mutation, folder: Path, *, first: int, seeds: int) -> int | None:
    """After how many lives the simulation finds it; None when it does not."""
    words = ["--first", str(first), "--seeds", str(seeds), "--most", "1"]
    done = run_on(mutation, folder, *words, *["--quantum"] * mutation.quantum)
    last = done.stdout.strip().split("\n")[-1]
    lives = re.search(r"\blives=(\d+)", last)
    assert lives, f"{mutation.name}: {done.stdout[-500:]}{done.stderr[-2000:]}"
    return int(lives[1]) if done.returncode == 1 else None


def main() -> None:
    """`python -m simulation.mutations`: each of them, and after how many lives it was found."""
    import tempfile

    chosen = [m for m in MUTATIONS if not sys.argv[1:] or any(w in m.name for w in sys.argv[1:])]
    for mutation in chosen:
        with tempfile.TemporaryDirectory() as folder:
            lives = lives_until_found(mutation, Path(folder), first=mutation.first, seeds=15_000)
        print(f"{'-' if lives is None else lives:>7}  {mutation.name}", flush=True)


if __name__ == "__main__":
    main()
