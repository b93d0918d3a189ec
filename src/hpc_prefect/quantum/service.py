"""The interface to a quantum service of any vendor.

A vendor is a folder of `hpc_prefect.quantum.services` and a line in it. Its methods block; they are
called in threads, several at a time. What they raise is whatever the vendor's client raises:
`kind_of` tells what can be done about it.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from hpc_prefect.quantum.backend import Backend

if TYPE_CHECKING:
    from hpc_prefect.quantum.purchase.attempt import QuantumAttempt
    from hpc_prefect.quantum.purchase.transpile import Transpiled
    from hpc_prefect.quantum.sampling import Request

DONE, ERROR, CANCELLED, QUEUED, RUNNING = "DONE", "ERROR", "CANCELLED", "QUEUED", "RUNNING"
ENDS = (DONE, ERROR, CANCELLED)


class Kind(enum.Enum):
    """What can be done about an error."""

    TRANSIENT = "transient"
    """The network or the server: ask again. The request may have been carried out or not."""
    UNAUTHORIZED = "unauthorized"
    """The token is not accepted (any more): ask with a new one."""
    MISSING = "missing"
    """The thing that was asked for does not exist."""
    CONFLICT = "conflict"
    """Too late: a job to be cancelled has ended."""
    REFUSED = "refused"
    """The service refuses; asking again would get the same answer."""
    FOREIGN = "foreign"
    """Not the service's: a defect, here or in the client."""


@dataclass(frozen=True, kw_only=True)
class DeviceChoice:
    """Which device: a name, or the least busy of those that fit."""

    name: str
    min_num_qubits: int = 0
    only: tuple[str, ...] = ()
    fractional_gates: bool = False


@dataclass(frozen=True, kw_only=True)
class PurchaseTerms:
    """A block's limits on buying, for any vendor.

    Attributes:
        max_qpu_seconds: what one experiment may use; 0 for no limit.
        on_cancel: `cancel` or `keep` a job whose run is cancelled.
    """

    choice: DeviceChoice
    max_qpu_seconds: float = 0.0
    on_cancel: str = "cancel"


@dataclass(frozen=True, kw_only=True)
class Look:
    """What the service says of a job at one moment.

    Attributes:
        status: QUEUED, RUNNING, DONE, ERROR or CANCELLED.
        facts: JSON values: times, place in the queue, seconds.
    """

    status: str
    reason: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def ended(self) -> bool:
        return self.status in ENDS


class QuantumService(Protocol):
    """One account at a vendor's."""

    @property
    def name(self) -> str:
        """The vendor's name in the journal, by which a later process finds the service."""

    @property
    def searchable(self) -> bool:
        """Whether jobs can be found by a tag. If not, a lost reply cannot be resolved."""

    def device(self, choice: DeviceChoice) -> Any:
        """The device, as Qiskit's transpiler takes it."""

    def calibrated_at(self, device: Any) -> str:
        """When the device was calibrated last; empty if it does not say."""

    def usage(self) -> Mapping[str, Any]:
        """What the account has used and may still use, in QPU seconds; empty if unknown."""

    def find(self, tag: str) -> list[tuple[str, str]]:
        """(id, status) of the jobs with this tag, the oldest first."""

    def post(self, order: Any) -> str:
        """Submit an order that the vendor's backend has made; returns the job's id."""

    def look(self, job_id: str) -> Look:
        """How the job is."""

    def cancel(self, job_id: str) -> bool:
        """Request that the job is cancelled; False if it had ended already."""

    def result(self, job_id: str, made_for: Mapping[str, Any]) -> Any:
        """The native result of a job that is done, as often as it is asked for.

        Args:
            made_for: the backend's `facts` at the intent.
        """

    def drop(self, job_id: str) -> None:
        """Forget the client's object of a job that is over."""

    def forget(self) -> None:
        """Sign in again at the next question."""

    def kind_of(self, error: BaseException) -> Kind:
        """The kind of an error that a question raised."""

    def is_of_the_client(self, error: BaseException) -> bool:
        """Whether the client refused what it was given, before it asked the service."""

    def was_answered(self, error: BaseException) -> bool:
        """Whether the service has answered with an error of its own, so that nothing was done."""


class ServiceBackend(Backend, Protocol):
    """A backend that hands its work to a service."""

    @property
    def terms(self) -> PurchaseTerms: ...

    @property
    def service(self) -> QuantumService:
        """The service of this process for the backend's account."""

    @property
    def transpilation(self) -> Mapping[str, Any]:
        """Arguments of Qiskit's transpiler, besides level and seed."""

    def facts(self, request: Request) -> Mapping[str, Any]:
        """What the journal has of this vendor's jobs besides what it has of every job."""

    async def order(self, attempt: QuantumAttempt, transpiled: Transpiled) -> Any:
        """The job as `QuantumService.post` takes it."""
