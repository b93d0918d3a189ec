"""What is needed to speak of a quantum job, and to buy one."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from hpc_prefect.executor.service import executor
from hpc_prefect.flow_runs.campaigns import CallIdentity
from hpc_prefect.flow_runs.campaigns.opening import is_over
from hpc_prefect.ledger import claim as claims
from hpc_prefect.ledger.quantum_journal import Journal, QuantumAttempt
from hpc_prefect.quantum.purchase.retry import patiently
from hpc_prefect.quantum.service import PurchaseTerms, QuantumService, ServiceBackend
from hpc_prefect.transports.local import LocalTransport

if TYPE_CHECKING:
    from hpc_prefect.quantum.sampling import Request

T = TypeVar("T")


@dataclass(frozen=True)
class Transpiled:
    """PUBs that the device can run, and what is worth telling about them (JSON values)."""

    pubs: Sequence[Any]
    facts: Sequence[dict[str, Any]]


@dataclass(frozen=True)
class Errand:
    """One job that was bought or will be: all that is needed to wait for it.

    Attributes:
        kind: sampler or estimator.
        digest: of the work.
        folder: of its record and journal.
    """

    kind: str
    digest: str
    folder: Path
    claimant: claims.Claimant
    terms: PurchaseTerms
    service: QuantumService
    log: Any

    @property
    def journal(self) -> Journal:
        return Journal(self.folder)

    @property
    def campaign(self) -> Path:
        """The experiment's folder: `<campaign>/<2 hex>/<key>` without the last two."""
        return self.folder.parent.parent

    async def ask(self, question: Callable[[], T], what: str, *, seconds: float | None = None) -> T:
        """Ask the service until there is an answer; see `retry.patiently`."""
        return await patiently(
            question, what, self.log, kind_of=self.service.kind_of, seconds=seconds
        )


@dataclass(frozen=True, kw_only=True)
class Purchase(Errand):
    """One job to be bought, in its place of the experiment.

    Attributes:
        block: names its backend.
        made_by: the id of the run in whose record it is told.
    """

    block: str
    made_by: str = ""
    request: Request
    place: CallIdentity
    transpile: Callable[[Request, Any], Awaitable[Transpiled]]

    @property
    def backend(self) -> ServiceBackend:
        backend: ServiceBackend = self.request.backend
        return backend

    def seconds_allowed(self, attempt: QuantumAttempt) -> int | None:
        """After how many seconds the service is to stop the job by itself; None for no limit."""
        limits = [self.request.options.max_execution_time, attempt.intent.get("allowed_seconds")]
        limit = min((math.floor(each) for each in limits if each is not None), default=None)
        return None if limit is None else max(1, limit)

    def write_asked(self) -> None:
        """Write down what is asked for: whoever fetches the result needs no circuits. Blocks."""
        from hpc_prefect.quantum.result_file import write_asked
        from hpc_prefect.quantum.sampling import describe

        write_asked(self.folder, describe(self.request) | {"made_by": self.made_by}, self.kind)


def claimed(errand: Errand) -> claims.Claim:
    """The claim on the folder: two processes of one flow run may come to the same place. Blocks.

    It is renewed until `executor().release`.

    Raises:
        JobHeld: another living process works on it.
    """
    transport = LocalTransport()
    transport.make_folder(str(errand.folder))
    claim, _ = claims.take(transport, str(errand.folder), errand.claimant, is_over)
    executor().keep(claim)
    return claim
