"""What a caller hands over: the job, its claimant, and a listener."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from hpc_prefect.job.provider import Provider
from hpc_prefect.job.retry import RetryPolicy
from hpc_prefect.job.spec import JobSpec, Site
from hpc_prefect.ledger.claim import Claimant


class Listener(Protocol):
    """Receives a job's events. Called on the executor's thread; must not block."""

    def state(
        self, text: str, *, warning: bool = False, minor: bool = False, job_id: str = ""
    ) -> None:
        """Something happened to the job.

        Args:
            warning: the user should do something about it.
            minor: it may be left out when there is much to report.
            job_id: the scheduler's id, if the text contains it.
        """

    def output(self, stream: str, text: str, path: str) -> None:
        """The program wrote `text` to `stdout` or `stderr`, which is the file `path`."""


class Silence:
    """A `Listener` that ignores all events."""

    def state(
        self, text: str, *, warning: bool = False, minor: bool = False, job_id: str = ""
    ) -> None: ...

    def output(self, stream: str, text: str, path: str) -> None: ...


class Placing(Protocol):
    """Chooses another place for a job than its own scheduler: a held allocation."""

    async def site_for(self, spec: JobSpec) -> Site | None:
        """The place to submit the job to; None for its own scheduler. Runs on the executor's loop.

        Called for each attempt. A submitted job is followed where it is.
        """

    def came_back(self, site: Site) -> None:
        """A job that was handed to this place never started there. Runs on the executor's loop."""


@dataclass(frozen=True)
class JobSubmitted:
    """The result of a request with `submit_only`."""

    job_id: str


@dataclass(frozen=True, kw_only=True)
class JobRequest:
    """All that the executor must know to run one job.

    Attributes:
        base: `<work_dir>/.hpc-prefect/<campaign>/<2 hex>/<key>`; attempts are numbered after it.
        claimant: this process, and the flow run that it works for.
        poll_interval: seconds between two questions to the scheduler.
        max_jobs_in_queue: jobs of this user on this host that may be in the job's queue at once;
            0: no limit.
        queue_full_wait: how many seconds a submission is repeated while the scheduler says that too
            many jobs wait; 0 for ever.
        placing: chooses a place instead of its own scheduler; None for no choice.
        retry: decides what another attempt gets after a failure; None for no retry.
        attach_only: follow what was submitted to its end; submit nothing, whatever happened to it.
        submit_only: end when it is submitted; another call attaches to it later.
        provider: the provider, if that is not the scheduler named in `spec`.
        timeout: seconds after which the job is cancelled, None for never.
        provenance: what the caller knows of where this job comes from; goes into the run record.
        is_over: whether Prefect says that another flow run has ended.
    """

    spec: JobSpec
    base: str
    key: str
    claimant: Claimant
    secrets: dict[str, str] = field(default_factory=dict, repr=False)
    poll_interval: float = 10.0
    max_jobs_in_queue: int = 0
    queue_full_wait: float = 0.0
    placing: Placing | None = None
    retry: RetryPolicy | None = None
    attach_only: bool = False
    submit_only: bool = False
    provider: Provider | None = None
    timeout: float | None = None
    provenance: dict[str, Any] = field(default_factory=dict)
    is_over: Callable[[str], bool] = lambda flow_run: False
    listener: Listener = field(default_factory=Silence)
