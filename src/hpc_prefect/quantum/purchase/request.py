"""The executor's request: a quantum job to buy, or one to attach to."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextvars import Context
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from hpc_prefect.executor.request import JobRequest
from hpc_prefect.job.quantum_spec import QuantumSpec
from hpc_prefect.quantum.purchase.provider import ServiceProvider
from hpc_prefect.quantum.purchase.retry import patiently
from hpc_prefect.quantum.service import QuantumService, ServiceBackend
from hpc_prefect.transports.base import Transport

if TYPE_CHECKING:
    from hpc_prefect.quantum.purchase.show import Page
    from hpc_prefect.quantum.sampling import Request

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Purchase:
    """What is needed to buy a job.

    Attributes:
        made_by: the id of the run whose record has it.
        context: of the call: its tasks and its session belong to the flow run around it.
    """

    request: Request
    made_by: str = ""
    context: Context = field(repr=False)

    @property
    def backend(self) -> ServiceBackend:
        backend: ServiceBackend = self.request.backend
        return backend

    def write_asked(self, work: Path, transport: Transport) -> None:
        """Write down what is sampled, so that the result can be fetched without the circuits.
        Blocks."""
        from hpc_prefect.quantum.result_file import write_asked
        from hpc_prefect.quantum.sampling import describe

        asked = describe(self.request) | {"made_by": self.made_by}
        write_asked(work, asked, self.request.kind, transport)

    def seconds_allowed(self, spec: QuantumSpec) -> int | None:
        """The QPU seconds after which the service stops the job; None for no limit."""
        limits = [self.request.options.max_execution_time, spec.allowed_seconds]
        limit = min((math.floor(each) for each in limits if each is not None), default=None)
        return None if limit is None else max(1, limit)


@dataclass(frozen=True, kw_only=True)
class QuantumRequest(JobRequest):
    """One job; its attempts are in folders beside that of its work, `base`.

    Attributes:
        purchase: None when the job is only attached to.
        page: the job's artifact; used on the executor's loop.
    """

    spec: QuantumSpec  # type: ignore[assignment]  # stands where a batch job has its own
    provider: ServiceProvider
    poll_interval: float = 1.0
    purchase: Purchase | None = None
    page: Page | None = None

    @property
    def service(self) -> QuantumService:
        return self.provider.service

    @property
    def work(self) -> Path:
        """The folder of the record and the result."""
        return Path(self.base)

    @property
    def campaign(self) -> Path:
        """The experiment's folder."""
        return self.work.parent.parent

    async def ask(self, question: Callable[[], T], what: str, *, seconds: float | None = None) -> T:
        """Ask the service until it answers; see `retry.patiently`."""
        tell, kind_of = self.listener.state, self.service.kind_of
        return await patiently(question, what, tell, kind_of=kind_of, seconds=seconds)
