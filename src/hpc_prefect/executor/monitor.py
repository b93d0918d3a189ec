"""Watches a submitted job: collects evidence until there is a verdict."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable
from functools import partial

from hpc_prefect.errors import NotOurs
from hpc_prefect.executor.attempt import Attempt
from hpc_prefect.executor.output import Output
from hpc_prefect.job import folder as names
from hpc_prefect.job.failure import ADVICE, Reason, Verdict
from hpc_prefect.job.folder import ExitRecord, StartRecord, read_exits, read_starts
from hpc_prefect.job.state import Evidence, JobState, Observation, decide
from hpc_prefect.ledger.job_folder import MOST, JobFolder
from hpc_prefect.schedulers.base import Told


class JobMonitor:
    """One submitted job, up to its verdict. The connection's loop calls it; see `Polled`.

    A known limit: it reads the job's small files, and its output, on the event loop. A file server
    that hangs delays the other jobs of this process too, but nothing is lost.

    Attributes:
        verdict: set once; an exception if the job cannot be watched any more.
        evidence: all evidence at the last look.
    """

    def __init__(
        self,
        attempt: Attempt,
        output: Output,
        cancelled_by: Callable[[], str],
        *,
        ask: bool,
        own: Callable[[Evidence], Evidence] = lambda evidence: evidence,
    ) -> None:
        """Begin now. `cancelled_by`: who of us asked for its end; `ask`: at once, for its state.

        `own` gives what of the evidence tells of it, where its scheduler's job runs more than it.
        """
        loop = asyncio.get_running_loop()
        self.job_id = attempt.job_id
        self.tag = attempt.tag
        self.poll_interval = attempt.request.poll_interval
        self.next_look = loop.time()
        self.wants_answer = ask
        self.verdict: asyncio.Future[Verdict] = loop.create_future()
        self._attempt = attempt
        self._output = output
        self._cancelled_by = cancelled_by
        self._own = own
        self._records = Records(attempt.folder, attempt.words)
        self._outputs = _Outputs(attempt, lambda: attempt.connection.hurry(self))
        self._seen: Observation | None = None
        self._began = self._news_at = self._answered_at = loop.time()
        self._absent_since: float | None = None
        self._untold_since: float | None = None
        self._ended_since: float | None = None
        self._record_since: float | None = None
        self._shown = ""
        self._words = ""  # what a scheduler may have written of its end …
        self._told: Told | None = None  # … and what that tells
        self.evidence = self._collect(loop.time())

    # --- what the connection's loop calls

    def look(self, now: float) -> None:
        """Read the job's own records and output; judge when something is new."""
        looks = self._attempt.connection.looks
        self.next_look = now + looks.pause(now - self._news_at, self._attempt.connection.watched)
        # After its start was seen, only its end is looked for.
        known = self.evidence.start is not None and self.evidence.exit is None
        news = self._records.refresh(starts=not known)
        if news:
            self._news_at, self.next_look = now, now + looks.soonest
        if news or not self._shown or self._time_may_decide():
            self._consider(now)
        if self._records.starts:  # not before: NFS would remember that there is no such file
            self._output.show(now)

    def _time_may_decide(self) -> bool:
        """Whether waiting alone may bring the verdict, since a record is there, or missing."""
        since = (self._record_since, self._ended_since, self._absent_since)
        return bool(self._cancelled_by()) or any(moment is not None for moment in since)

    def answered(self, now: float, seen: Observation | None, asked: float) -> None:
        """Take a useful answer of the scheduler; None when it does not list the job."""
        # Before the answer was given, as `_absent_since` is after: a job is absent for the time
        # that lies between two answers for certain.
        self._answered_at = asked
        self.wants_answer = False
        if seen is not None and seen.tag and seen.tag != self._attempt.tag:
            seen = None  # another job with a reused id
        if seen is None:
            self._absent_since = _since(self._absent_since, now)
        else:
            self._absent_since = None
            self._note(seen)
            ended = seen.state is JobState.ENDED
            self._ended_since = _since(self._ended_since, now) if ended else None
            untold = seen.state is JobState.UNKNOWN
            self._untold_since = _since(self._untold_since, now) if untold else None
        self._records.refresh(starts=True)
        self._consider(now)

    def heartbeat(self) -> None:
        """Renew the claim; ends the watch if it was taken over."""
        self._attempt.heartbeat()

    def broken(self, error: BaseException) -> None:
        """The job cannot be watched any more."""
        if not self.verdict.done():
            self.verdict.set_exception(error)

    # --- what it is for the one who waits for the verdict

    def give_up(self, verdict: Verdict) -> None:
        """Set this verdict without further evidence."""
        self.verdict.set_result(verdict)

    def final_look(self) -> Evidence:
        """What the records say when the verdict is there, with the rest of the output shown."""
        now = asyncio.get_running_loop().time()
        self._records.refresh(starts=True)
        self._output.show(now, last=True)
        self.evidence = self._collect(now)
        return self.evidence

    # --- from what is seen to the verdict

    def _note(self, seen: Observation) -> None:
        before = self._seen
        if before is None or (before.state, before.word) != (seen.state, seen.word):
            self._attempt.folder.note("observed", state=seen.state, word=seen.word)
        self._seen = seen  # if it cannot be journalled it counts as not seen

    def _consider(self, now: float) -> None:
        evidence = self.evidence = self._collect(now)
        self._show(evidence)
        if evidence.exit is None:
            self._record_since = None  # never, or it was requeued and runs again
        elif self._record_since is None:
            self._record_since = now
            self._attempt.connection.hurry(self)
        if self.verdict.done():
            return
        patience = self._attempt.connection.scheduler.patience
        verdict = None if self._outputs.looking else decide(evidence, patience)
        if verdict is not None:
            self.verdict.set_result(verdict)
            self._attempt.connection.release(self)
        elif evidence.exit is not None or evidence.cancel or self._ended_since is not None:
            self.wants_answer = True  # it seems to have ended: only the scheduler knows why

    def _collect(self, now: float) -> Evidence:
        spec, records = self._attempt.request.spec, self._records
        evidence = Evidence(
            job_id=self.job_id,
            walltime=spec.resources.walltime,
            executable=spec.executable.path,
            nodes=spec.resources.num_nodes,
            may_requeue=spec.may_requeue,
            observation=self._seen,
            absent_for=_age(self._absent_since, now) or 0.0,
            silent_for=now - self._answered_at,
            ended_for=_age(self._ended_since, now),
            untold_for=_age(self._untold_since, now),
            record_for=_age(self._record_since, now),
            starts=records.starts,
            exits=records.exits,
            spoiled=records.spoiled,
            cancel=self._cancelled_by(),
        )
        looks_for = spec.expected_outputs and not self.verdict.done()
        end = evidence.exit if looks_for else None
        if end is not None and (missing := self._outputs.missing(end)):
            evidence = dataclasses.replace(evidence, missing_outputs=missing)
        return self._own(self._with_output(evidence))

    def _with_output(self, evidence: Evidence) -> Evidence:
        """Add what others wrote into the folder, if the job seems to have failed.

        These are requests to cancel it, and the scheduler's messages in the job's output.
        """
        record = evidence.exit
        gone = self._ended_since is not None or self._absent_since is not None
        if record.clean if record is not None else not gone:
            return evidence
        cancel = evidence.cancel or self._attempt.cancel_request()
        folder, scheduler = self._attempt.folder, self._attempt.connection.scheduler
        words = folder.scheduler_words(requeued=len(evidence.starts) > 1)
        if words != self._words:  # it is the same at nearly all looks
            self._words, self._told = words, scheduler.read_output(words)
        if self._told is None and cancel == evidence.cancel:
            return evidence
        told, said = (self._told.reason, self._told.words) if self._told else (None, "")
        return dataclasses.replace(evidence, cancel=cancel, told=told, told_words=said)

    def _show(self, evidence: Evidence) -> None:
        """Report a new state to the listener, with the scheduler's word if there is one."""
        seen, start = evidence.observation, evidence.start
        held = seen is not None and seen.state is JobState.HELD
        if start is not None and evidence.exit is None and not held:
            text, minor = f"running as {self.job_id} on {start.host}", True
        elif seen is not None and seen.state in (JobState.QUEUED, JobState.HELD):
            text = f"{seen.state} as {self.job_id}" + (f": {seen.message}" if seen.message else "")
            text += f"; {ADVICE[Reason.HELD].remedy}" if held else ""
            minor = not held
        elif self._attempt.logged_id == self.job_id and not self._shown:
            return
        elif start is None or not self._shown:  # a quick job may have ended already
            text, minor = f"submitted as {self.job_id}", False
        else:
            return
        if text != self._shown:
            self._shown = text
            self._attempt.request.listener.state(
                text, warning=held, minor=minor, job_id=self.job_id
            )


class _Outputs:
    """Which expected outputs are missing.

    A folder with very many files is searched in a thread, so that no other job waits; until that
    ends there is no verdict.
    """

    def __init__(self, attempt: Attempt, on_seen: Callable[[], None]) -> None:
        self._attempt = attempt
        self._on_seen = on_seen
        self._through: asyncio.Task[tuple[str, ...]] | None = None
        self._written_at: ExitRecord | None = None  # the end at which all of them were seen

    @property
    def looking(self) -> bool:
        """Whether one is being looked through."""
        return self._through is not None

    def missing(self, end: ExitRecord) -> tuple[str, ...]:
        """Those that are missing at this end of the job, each with what is seen instead."""
        if self._written_at == end:
            return ()
        missing = self._seen_through() if self._through else self._seen_at_once()
        if not missing and not self.looking:
            self._written_at = end
        return missing

    def _seen_at_once(self) -> tuple[str, ...]:
        attempt = self._attempt
        spec, before = attempt.request.spec, attempt.outputs_before
        missing = attempt.folder.missing_at_a_glance(spec, before)
        if missing is None:
            work = partial(attempt.folder.missing_outputs, spec, before)
            self._through = asyncio.get_running_loop().create_task(
                attempt.connection.in_thread(work)
            )
            self._through.add_done_callback(lambda done: self._on_seen())
        return missing or ()

    def _seen_through(self) -> tuple[str, ...]:
        if self._through is None or not self._through.done():
            return ()
        done, self._through = self._through, None
        return done.result()


class Records:
    """A job's start and exit records. Their files only grow, so only what is new is read.

    They are opened each time: only then NFS shows the present state; a size may be a minute old.
    """

    def __init__(
        self,
        folder: JobFolder,
        words: frozenset[str],
        more_words: Callable[[frozenset[str]], frozenset[str]] | None = None,
    ) -> None:
        """`more_words`: those that are known by now, if these do not suffice."""
        self._folder = folder
        self._words = words
        self._more_words = more_words or self._words_in_journal
        self._read = {names.START: b"", names.EXIT: b""}
        self._in_one_file = folder.file(names.START) == folder.file(names.EXIT)
        self.spoiled = ""  # in words, what stands in the place of one of them
        self.starts: tuple[StartRecord, ...] = ()
        self.exits: tuple[ExitRecord, ...] = ()

    def refresh(self, *, starts: bool) -> bool:
        """Read new exits, and new starts if there are exits or `starts`; returns whether there are
        any.

        Exits first, so that the start of every exit is known. Where both are in one file, that is
        read once.
        """
        if self._in_one_file:
            return self._refresh_both()
        begun = not self.starts and self._new_starts()
        if not self.starts:
            return False  # as most that wait: nothing else can be there
        ended = self._grown(names.EXIT)
        if ended:
            self.exits = self._known_exits(self._read[names.EXIT])
        again = (starts or ended) and self._new_starts()
        return begun or ended or again

    def _known_exits(self, data: bytes, others: int = 0) -> tuple[ExitRecord, ...]:
        """Those by a script of this attempt, beside so many `others` in the file. Another process,
        which was stopped and went on after we took over, may have written a script of its own in
        place of ours; its word is in the intent of it."""
        exits = read_exits(data, self._words)
        if len(exits) + others == sum(1 for line in data.split(b"\n") if line):
            return exits
        self._words |= self._more_words(self._words)
        return read_exits(data, self._words)

    def _words_in_journal(self, known: frozenset[str]) -> frozenset[str]:
        return self._folder.ledger().words

    def _refresh_both(self) -> bool:
        grown = self._grown(names.START)
        if grown:
            data = self._read[names.START]
            self.starts = read_starts(data)
            self.exits = self._known_exits(data, len(self.starts))
        return grown

    def _new_starts(self) -> bool:
        grown = self._grown(names.START)
        if grown:
            self.starts = read_starts(self._read[names.START])
        return grown

    def _grown(self, name: str) -> bool:
        known = self._read[name]
        path, left = self._folder.file(name), MOST - len(known)
        try:
            news = self._folder.transport.read(path, len(known), left) or b""
        except NotOurs as error:
            news, self.spoiled = b"", str(error)
        if len(news) == left:
            self.spoiled = f"{path} holds more than any record"
        self._read[name] = known + news
        return bool(news)


def _since(earlier: float | None, now: float) -> float:
    return now if earlier is None else earlier


def _age(since: float | None, now: float) -> float | None:
    return None if since is None else now - since
