"""Every error that this package raises.

    HpcPrefectError
    ├── InvalidJob               bad input, all problems at once; nothing was submitted
    ├── ConfigurationError       a file, a setting or a block's content cannot be used
    │   └── IncompatibleVersions installed packages that cannot work together
    ├── CannotResume             a flow run cannot be resumed
    ├── CannotReproduce          a run cannot be run again as it was
    ├── ServerError              a Prefect server could not be started, reached or stopped
    ├── JobHeld                  another living run holds this job or campaign
    ├── UnknownJob               the name of a job means none, or more than one
    ├── UnknownRun               the name of a run means none, or more than one
    ├── InvalidQuery             a question to the list of runs cannot be read
    ├── LedgerError              a job folder cannot be written or makes no sense
    ├── TransportError           a command could not be run, or a file not reached
    ├── NotOurs                  a file or folder is another user's, or others may change it
    ├── SchedulerError           the scheduler answered, but not usefully (try again)
    ├── JobFailed                the job ended, or will never run; carries the verdict
    │   └── JobTimedOut          the caller's `timeout_seconds` passed; also a TimeoutError
    ├── QuantumServiceError      the quantum service refuses, or cannot be asked
    ├── QuantumJobFailed         a quantum job ended without a result
    ├── WorkersFailed            no worker of a flow's task runner comes any more
    ├── BudgetExceeded           a quantum job would cost more than is left; nothing was bought
    └── NotConverged             a loop did not converge, and its caller asked for an error

    FlowRunCancelled             no HpcPrefectError, and no Exception: the run is being cancelled

`JobFailed.retryable` says whether another attempt makes sense; it is set where the reason is
decided (`hpc_prefect.job.failure`), never read from a text.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hpc_prefect.job.result import JobResult


class HpcPrefectError(Exception):
    """Any error of this package.

    Attributes:
        says_it_all: its message has what happened and what to do, so that a traceback adds nothing.
            False for errors about files, commands and schedulers that misbehave.
    """

    says_it_all = True


class InvalidJob(HpcPrefectError):
    """What was asked for cannot be run as it stands; nothing was submitted.

    Attributes:
        problems: each problem as one sentence, all that were found.
    """

    def __init__(self, subject: str, problems: Sequence[str]) -> None:
        self.subject = subject
        self.problems = tuple(problems)
        count = "1 problem" if len(self.problems) == 1 else f"{len(self.problems)} problems"
        lines = "".join(f"\n  - {problem}" for problem in self.problems)
        super().__init__(f"{subject}: {count}, nothing was submitted:{lines}")

    def __reduce__(self) -> tuple[type[InvalidJob], tuple[str, tuple[str, ...]]]:
        return type(self), (self.subject, self.problems)


class ConfigurationError(HpcPrefectError):
    """A file, a setting or a block's content cannot be used."""


class IncompatibleVersions(ConfigurationError):
    """Installed packages cannot work together."""


class _Refused(HpcPrefectError):
    """What was asked for is not done; nothing was changed.

    Attributes:
        problems: each reason as one sentence, all that were found.
    """

    verb = ""

    def __init__(self, subject: str, problems: Sequence[str]) -> None:
        self.subject = subject
        self.problems = tuple(problems)
        lines = "".join(f"\n  - {problem}" for problem in self.problems)
        super().__init__(f"{subject} cannot be {self.verb}:{lines}")

    def __reduce__(self) -> tuple[type[_Refused], tuple[str, tuple[str, ...]]]:
        return type(self), (self.subject, self.problems)


class CannotResume(_Refused):
    """A flow run cannot be resumed; nothing was changed.

    Attributes:
        problems: each reason as one sentence, all that were found.
    """

    verb = "resumed"


class CannotReproduce(_Refused):
    """A run cannot be run again as it was; nothing was changed.

    Attributes:
        problems: each reason as one sentence, all that were found.
    """

    verb = "reproduced"


class ServerError(HpcPrefectError):
    """A Prefect server could not be started, reached or stopped."""


class JobHeld(HpcPrefectError):
    """Another living run holds this job or campaign."""


class UnknownJob(HpcPrefectError):
    """What was given as the name of a job means none, or more than one."""


class LedgerError(HpcPrefectError):
    """A job folder cannot be written, or what it says makes no sense."""

    says_it_all = False


class TransportError(HpcPrefectError):
    """A command could not be run, or a file could not be reached."""

    says_it_all = False


class NotOurs(HpcPrefectError):
    """A file or folder is not this user's own, or others may change it; it was not believed."""


class SchedulerError(HpcPrefectError):
    """The scheduler answered, but not usefully; nothing was concluded from it."""

    says_it_all = False


class JobFailed(HpcPrefectError):
    """The job did not succeed.

    Attributes:
        result: the whole `JobResult`, with the reason, paths, ids and times.
    """

    def __init__(self, message: str, result: JobResult) -> None:
        super().__init__(message)
        self.result = result

    @property
    def retryable(self) -> bool:
        """Whether another attempt of the same job makes sense."""
        return self.result.verdict.retryable

    def __reduce__(self) -> tuple[type[JobFailed], tuple[str, JobResult]]:
        return type(self), (str(self), self.result)


class JobTimedOut(JobFailed, TimeoutError):
    """The caller's `timeout_seconds` passed before the job ended; the job was cancelled."""


class QuantumServiceError(HpcPrefectError):
    """The quantum service refuses what it is asked for, or cannot be asked."""


class QuantumJobFailed(HpcPrefectError):
    """A quantum job ended without a result; running the same again buys another one.

    Attributes:
        job_id: of the service.
        status: the service's word for how it ended, such as `ERROR` or `CANCELLED`.
    """

    def __init__(self, message: str, job_id: str, status: str) -> None:
        super().__init__(message)
        self.job_id = job_id
        self.status = status

    def __reduce__(self) -> tuple[type[QuantumJobFailed], tuple[str, str, str]]:
        return type(self), (str(self), self.job_id, self.status)


class BudgetExceeded(HpcPrefectError):
    """A quantum job would cost more QPU seconds than are left; it was not bought."""


class WorkersFailed(HpcPrefectError):
    """The jobs of a flow's workers end before a worker comes; the flow's tasks are given up."""


class FlowRunCancelled(BaseException):
    """A flow run around this call was cancelled in Prefect, and its jobs with it.

    No `Exception`, so that a flow that goes on after errors does not go on after this; and no
    `CancelledError`, of which a task group takes no notice when a task of its own raises it.
    """


class NotConverged(HpcPrefectError):
    """A convergence loop stopped without reaching its tolerance."""


class UnknownRun(HpcPrefectError):
    """What was given as the name of a run means none, or more than one."""


class InvalidQuery(HpcPrefectError):
    """What was asked of the list of runs cannot be read, or names what no run has."""
