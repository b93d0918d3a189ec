"""What Prefect's log and page, and the run's record, show of an array while it runs."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection

from hpc_prefect.batch.task import tail_of
from hpc_prefect.executor.arrays.request import ArrayRequest, Counts
from hpc_prefect.flow_runs.artifacts import Content, LiveArtifact, home_of_run
from hpc_prefect.flow_runs.recording import noting
from hpc_prefect.flow_runs.run_log import RunLog
from hpc_prefect.job.failure import Reason
from hpc_prefect.job.identity import slug
from hpc_prefect.job.result import JobResult
from hpc_prefect.records.job_folders import batch_end
from hpc_prefect.records.markdown import escaped

#: Seconds between two lines in the log about an array's progress.
EVERY = 10.0
#: How many failed members are logged one by one, and how many lines of stderr of each.
_TOLD, _LINES = 20, 5


class ArrayProgress:
    """An `ArrayListener` for a task run of Prefect."""

    def __init__(self, request: ArrayRequest, log: RunLog) -> None:
        self._name, self._log = request.spec.name, log
        self._all = len(request.members)
        self._counts: Callable[[], Counts] = Counts
        self._began = self._told_at = time.monotonic()
        self._told = self._collected = 0
        self._reasons: Counter[str] = Counter()
        self._later = noting()
        self._page = LiveArtifact(f"array-{slug(self._name)}", home_of_run())

    def begun(self, counts: Callable[[], Counts]) -> None:
        self._counts = counts
        self._log.now = self.line
        self._page.show(self._content)

    def ended(self, results: Collection[JobResult]) -> None:
        self._collected += sum(result.collected for result in results)
        for result in results:
            if not result.succeeded:
                self._tell_failed(result)
        self._page.show(self._content)
        now = time.monotonic()
        if now - self._told_at >= EVERY:
            self._told_at = now
            self._log.state(self.line())

    def submission_ended(self, whole: JobResult, members: int) -> None:
        # Of an earlier call's members only those that are used; its failed ones are in its own
        # run's record.
        used = {"members": members, "ends": {Reason.SUCCEEDED.value: members}}
        self._later(lambda: [("job-ended", batch_end(whole) | (used if whole.collected else {}))])

    def close(self) -> None:
        """The array has ended, or is no longer followed: show what is known now."""
        self._page.show(self._content, now=True)

    def line(self) -> str:
        """The progress in one line."""
        counts = self._counts()
        parts = [f"{counts.ended} of {self._all} ended"]
        parts += [f"{counts.failed} failed"] if counts.failed else []
        parts += [f"{counts.running} running"] if counts.running else []
        left = self._seconds_left(counts)
        return ", ".join(parts) + ("" if left is None else f"; about {_minutes(left)} left")

    def _seconds_left(self, counts: Counts) -> float | None:
        """An estimate by the pace of the members that ran in this call."""
        ran, left = counts.ended - self._collected, self._all - counts.ended
        if ran <= 0 or left <= 0:
            return None
        return (time.monotonic() - self._began) * left / ran

    def _tell_failed(self, result: JobResult) -> None:
        self._reasons[str(result.verdict.reason)] += 1
        self._told += 1
        if self._told > _TOLD + 1:
            return
        if self._told == _TOLD + 1:
            text = "further failed members are not logged; the call's results have all of them"
            self._log.state(text, warning=True)
            return
        verdict = result.verdict
        text = f"{result.name} ({result.job_id}): {verdict.reason}: {verdict.summary}"
        if tail := tail_of(result.stderr_path):
            text += "".join(f"\n  {line}" for line in tail.splitlines()[-_LINES:])
        self._log.state(text, warning=True)

    def _content(self) -> Content:
        counts = self._counts()
        rows = [
            ("members", self._all),
            ("waiting", counts.waiting),
            ("running", counts.running),
            ("succeeded", counts.ended - counts.failed),
            ("of these by an earlier run", self._collected),
            ("failed", counts.failed),
            *((f"- {reason}", count) for reason, count in self._reasons.most_common()),
        ]
        table = "\n".join(f"| {what} | {count} |" for what, count in rows)
        title = f"## {escaped(self._name)}\n\n{escaped(self.line())}\n\n"
        return Content(f"{title}| | |\n|---|---:|\n{table}\n", self.line())


def _minutes(seconds: float) -> str:
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60)} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
