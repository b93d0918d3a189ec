"""Whatever dies, answers late, or not, or twice: no program runs twice, no state goes back."""

from __future__ import annotations

import os

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from world import FATES, LONG, Fate, Life, World

from hpc_prefect.errors import JobHeld, LedgerError, SchedulerError
from hpc_prefect.job import folder as names
from hpc_prefect.job.failure import Reason
from hpc_prefect.job.folder import read_exits, read_journal, word_digest
from hpc_prefect.job.result import JobResult

#: How far a journal is: nothing of it may be taken back.
RANK = {"intended": 1, "submitted": 2, "lost": 3, "judged": 4}


class Submissions(RuleBasedStateMachine):
    """One job, asked for by process after process; the world asserts that its program runs once."""

    @initialize()
    def begin(self) -> None:
        self.world = World()
        self.told: dict[str, JobResult] = {}
        self.ranks: dict[str, int] = {}
        self.ids: dict[str, str] = {}

    @rule(
        fate=st.builds(
            Fate,
            kind=st.sampled_from(FATES),
            code=st.sampled_from([0, 3]),
            seconds=st.sampled_from([4.0, 100.0]),
            again=st.booleans(),
        )
    )
    @precondition(lambda self: len(self.world.fates) < 3)
    def what_the_next_submission_comes_to(self, fate: Fate) -> None:
        self.world.fates.append(fate)

    @rule(
        trouble=st.sampled_from(["down", "unlisted", "forgetful"]),
        seconds=st.sampled_from([2.0, 10.0, 40.0]),
    )
    def trouble_for_a_while(self, trouble: str, seconds: float) -> None:
        self.world.until[trouble] = self.world.now + seconds

    @rule(seconds=st.sampled_from([0.5, 3.0, 20.0, 400.0]))
    def nobody_looks(self, seconds: float) -> None:
        self.world.pass_to(self.world.now + seconds)

    @rule(dies_at=st.integers(0, 160), elsewhere=st.booleans())
    def a_process_that_dies_at_a_step(self, dies_at: int, elsewhere: bool) -> None:
        self._live(Life(self.world, dies_at=dies_at, elsewhere=elsewhere))

    @rule(seconds=st.floats(0.1, 30.0), elsewhere=st.booleans())
    def a_process_that_dies_after_a_while(self, seconds: float, elsewhere: bool) -> None:
        self._live(Life(self.world, lasts=seconds, elsewhere=elsewhere))

    @rule()
    def a_process_that_lives(self) -> None:
        self._live(Life(self.world))

    def _live(self, life: Life) -> None:
        try:
            result = life.result()
        except (JobHeld, LedgerError, SchedulerError):
            return  # a person has to look; nothing may have happened by it
        if result is not None:
            self._judge(result)

    def _judge(self, result: JobResult) -> None:
        """What was told is what happened, and stays so."""
        reason, folder = result.verdict.reason, result.folder
        (*_, run) = [None, *(run for run in self.world.runs if run.attempt == folder)]
        if reason is Reason.SUCCEEDED:
            assert run is not None
            assert (run.ended, run.code) == (True, 0)
        elif reason is Reason.PROGRAM_FAILED:
            assert run is not None
            assert (run.ended, run.code, result.exit_code) == (True, 3, 3)
        elif reason is Reason.NEVER_STARTED:
            assert run is None
        else:
            assert reason is Reason.LOST, result.verdict
            words = {word_digest(self.world.word(folder))}
            assert not read_exits(self.world.read(f"{folder}/{names.EXIT}"), words)
        before = self.told.setdefault(folder, result)
        assert before.verdict.reason in (reason, Reason.LOST), (before, result)
        self.told[folder] = result

    @invariant()
    def no_journal_goes_back(self) -> None:
        for path, (data, _) in self.world.files.items():
            if not path.endswith(names.JOURNAL):
                continue
            ledger = read_journal(data)
            state = ledger.result.get("state")
            rank = RANK["intended"] if ledger.intended else 0
            rank = RANK["submitted"] if ledger.job_id else rank
            rank = max(rank, RANK["lost" if state == "lost" else "judged"] if state else 0)
            assert rank >= self.ranks.get(path, 0), path
            self.ranks[path] = rank

    @invariant()
    def a_job_that_never_started_never_will(self) -> None:
        ran = {run.attempt for run in self.world.runs}
        never = {f for f, r in self.told.items() if r.verdict.reason is Reason.NEVER_STARTED}
        assert not ran & never

    def teardown(self) -> None:
        """In the end all is well, or a person is asked; and what comes late changes nothing."""
        if not hasattr(self, "world"):
            return
        self.world.fates.clear()
        self.world.pass_to(self.world.now + 400.0)  # no trouble any more, and no old claim
        for _ in range(4):
            self._live(Life(self.world))
            self.world.pass_to(self.world.now + 2 * LONG)
        (*_, newest) = [None, *self.told.values()]
        assert newest is not None, "four calls in fair weather, and no result"
        assert newest.state in ("succeeded", "lost"), newest
        self.no_journal_goes_back()
        self.a_job_that_never_started_never_will()


TestSubmissions = Submissions.TestCase
TestSubmissions.settings = settings(
    max_examples=300 if os.environ.get("CI") == "true" else 60,
    stateful_step_count=12,
    deadline=None,
)
