"""The results of many jobs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from importlib import import_module
from typing import Any, overload

from hpc_prefect.errors import ConfigurationError, HpcPrefectError
from hpc_prefect.job import notebook
from hpc_prefect.job.result import JobResult

#: How many failed members an error's message describes.
_DESCRIBED = 3


class JobResults(Sequence[JobResult]):
    """The results of `run_jobs_from_blocks`, in the order of its members.

    Each is what `run_job_from_blocks` returns for one job, also for a member that failed.
    """

    def __init__(self, name: str, results: Sequence[JobResult]) -> None:
        self.name = name
        self._results = tuple(results)

    @overload
    def __getitem__(self, which: int) -> JobResult: ...

    @overload
    def __getitem__(self, which: slice) -> JobResults: ...

    def __getitem__(self, which: int | slice) -> JobResult | JobResults:
        if isinstance(which, slice):
            return JobResults(self.name, self._results[which])
        return self._results[which]

    def __len__(self) -> int:
        return len(self._results)

    def __iter__(self) -> Iterator[JobResult]:
        return iter(self._results)

    def __repr__(self) -> str:
        return f"<{self.summary}>"

    def _repr_html_(self) -> str:
        """What a notebook shows: the members, those that failed first."""
        rows = [
            (
                each.name,
                each.state,
                "" if each.succeeded else each.verdict.summary,
                each.job_id,
                each.host,
                notebook.number(each.run_seconds),
                "" if each.succeeded else each.stderr_path,
            )
            for each in sorted(self._results, key=lambda result: result.succeeded)
        ]
        head = ("job", "state", "reason", "id", "host", "seconds", "stderr")
        return notebook.heading(self.summary) + notebook.table(head, rows)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, JobResults) and self._results == other._results

    def __hash__(self) -> int:
        return hash(tuple(result.key for result in self._results))

    @property
    def failed(self) -> JobResults:
        """Those that did not succeed."""
        return JobResults(self.name, [each for each in self._results if not each.succeeded])

    @property
    def summary(self) -> str:
        """`scan: 1000 jobs, 997 succeeded, 2 program failed, 1 walltime exceeded`."""
        return f"{self.name}: {self.counts}"

    @property
    def counts(self) -> str:
        """The summary without the name."""
        ends = Counter(str(result.verdict.reason) for result in self._results)
        told = [f"{count} {reason}" for reason, count in ends.most_common()]
        jobs = "1 job" if len(self) == 1 else f"{len(self)} jobs"
        return ", ".join([jobs, *told])

    @property
    def node_hours(self) -> float:
        """The node-hours of all of them, as far as they are known."""
        return sum(result.node_hours or 0.0 for result in self._results)

    def to_frame(self) -> Any:
        """A `pandas.DataFrame`, a row a job in their order.

        Its columns are `name`, `state`, `reason`, `exit_code`, `signal`, `job_id`, `attempt`,
        `collected`, `host`, `queue_seconds`, `run_seconds`, `node_hours`, and the paths of the
        program's output, `stdout_path` and `stderr_path`.

        Raises:
            ConfigurationError: pandas is not installed.
        """
        try:
            pandas = import_module("pandas")
        except ImportError as error:
            raise ConfigurationError(
                "a table of results needs pandas: pip install pandas"
            ) from error
        return pandas.DataFrame([_row(result) for result in self._results], columns=list(_COLUMNS))

    def raise_for_failures(self) -> None:
        """Raise `JobsFailed` if any did not succeed."""
        if self.failed:
            raise JobsFailed(_message(self), self)


_COLUMNS = (
    *("name", "state", "reason", "exit_code", "signal", "job_id", "attempt", "collected", "host"),
    *("queue_seconds", "run_seconds", "node_hours", "stdout_path", "stderr_path"),
)


def _row(result: JobResult) -> dict[str, Any]:
    values = {name: getattr(result, name, None) for name in _COLUMNS}
    return values | {"reason": result.verdict.reason.value}


class JobsFailed(HpcPrefectError):
    """Some jobs of an array did not succeed.

    Attributes:
        results: of all jobs; `results.failed` has those that did not succeed.
    """

    def __init__(self, message: str, results: JobResults) -> None:
        super().__init__(message)
        self.results = results

    def __reduce__(self) -> tuple[type[JobsFailed], tuple[str, JobResults]]:
        return type(self), (str(self), self.results)


def _message(results: JobResults) -> str:
    from hpc_prefect.batch.task import describe

    failed = results.failed
    count = f"{len(failed)} of {len(results)} jobs of array {results.name} did not succeed"
    ends = Counter(str(result.verdict.reason) for result in failed)
    reasons = ", ".join(f"{number} {reason}" for reason, number in ends.most_common())
    parts = [f"{count}: {reasons}", *(describe(result) for result in failed[:_DESCRIBED])]
    if len(failed) > _DESCRIBED:
        parts.append(f"… and {len(failed) - _DESCRIBED} more: see `results.failed` of this error")
    parts.append("what succeeded is kept: when the flow is started again, only the others run")
    return "\n".join(parts)
