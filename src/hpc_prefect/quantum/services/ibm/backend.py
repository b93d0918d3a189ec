"""A quantum computer of IBM Quantum as a backend. Nothing here asks the service.

It hands work to a service, so it has no `run`: the modules beside this one post and fetch.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hpc_prefect.errors import ConfigurationError
from hpc_prefect.extras import missing
from hpc_prefect.quantum.service import DeviceChoice, PurchaseTerms
from hpc_prefect.quantum.services.ibm.client import (
    LEAST_BUSY,
    Account,
    Client,
    PrimitiveOrder,
    client_of,
    has_executor,
)
from hpc_prefect.quantum.services.ibm.options import pub_refused, runtime_problems
from hpc_prefect.quantum.services.ibm.sessions import session_for

#: Environment variables in which IBM's client finds a token.
TOKEN = "QISKIT_IBM_TOKEN"

if TYPE_CHECKING:
    from hpc_prefect.quantum.backends import BackendSpec
    from hpc_prefect.quantum.options import PrimitiveOptions
    from hpc_prefect.quantum.purchase.attempt import QuantumAttempt
    from hpc_prefect.quantum.purchase.transpile import Transpiled
    from hpc_prefect.quantum.sampling import Request


def build(spec: BackendSpec, account: Account | None) -> IBMBackend:
    """The backend of a block.

    Raises:
        ConfigurationError: a package is missing, or fields do not belong together.
    """
    if told := missing("a computer of IBM Quantum", "qiskit", "qiskit_ibm_runtime"):
        raise ConfigurationError(f"backend_name: {told}")
    if spec.backend_name != LEAST_BUSY and (spec.min_num_qubits or spec.only_devices):
        raise ConfigurationError(
            f"min_num_qubits, only_devices: they choose among devices, and {spec.backend_name!r} is"
            f" one; set backend_name to {LEAST_BUSY!r}, or remove them"
        )
    if spec.interface == "executor" and not has_executor():
        raise ConfigurationError(
            "interface: 'executor' came with qiskit-ibm-runtime 0.50; install it, or use 'auto'"
        )
    return IBMBackend(spec, account or Account())


def of_environment() -> Client | None:
    """The service of the account whose token is in the environment."""
    return client_of(Account()) if TOKEN in os.environ else None


class IBMBackend:
    """A device, or the least busy of some; how it is paid for; the account that pays."""

    simulates = False

    def __init__(self, spec: BackendSpec, account: Account) -> None:
        self._spec = spec
        self._account = account
        self.terms = PurchaseTerms(
            choice=DeviceChoice(
                name=spec.backend_name,
                min_num_qubits=spec.min_num_qubits,
                only=spec.only_devices,
                fractional_gates=spec.fractional_gates,
            ),
            max_qpu_seconds=spec.max_qpu_seconds,
            on_cancel=spec.on_cancel,
        )

    @property
    def name(self) -> str:
        return f"IBM device {self._spec.backend_name}"

    @property
    def identity(self) -> Mapping[str, Any]:
        """The device and how circuits are prepared for it; not how or by whom it is paid for."""
        spec = self._spec
        busy = spec.backend_name == LEAST_BUSY
        return {
            "kind": "ibm",
            "name": spec.backend_name,
            "min_num_qubits": spec.min_num_qubits if busy else 0,
            "only": sorted(spec.only_devices) if busy else [],
            "fractional_gates": spec.fractional_gates,
            "transpilation": dict(spec.transpilation),
        }

    @property
    def honours(self) -> Collection[str]:
        return ("seed", "seed_transpiler", "optimization_level", "max_execution_time", "runtime")

    @property
    def packages(self) -> Sequence[str]:
        return ("qiskit-ibm-runtime",)

    @property
    def transpilation(self) -> Mapping[str, Any]:
        return dict(self._spec.transpilation)

    @property
    def service(self) -> Client:
        return client_of(self._account)

    def facts(self, request: Request) -> Mapping[str, Any]:
        """The client's primitive that posts it."""
        return {"interface": self._interface(request)}

    async def order(self, attempt: QuantumAttempt, transpiled: Transpiled) -> PrimitiveOrder:
        """The job as the client posts it, in the run's batch or session if the block wants one."""
        mode, session_id, spec, purchase = self._spec.mode, "", attempt.spec, attempt.purchase
        if mode != "job":
            seconds = self._spec.max_session_seconds
            session_id = await session_for(attempt, self.service, mode=mode, seconds=seconds)
        return PrimitiveOrder(
            kind=spec.primitive,
            interface=str(spec.made_for["interface"]),
            device=spec.device,
            fractional_gates=self._spec.fractional_gates,
            pubs=list(transpiled.pubs),
            options=purchase.request.options.runtime,
            tags=[attempt.tag],
            max_execution_time=purchase.seconds_allowed(spec),
            mode=mode,
            session_id=session_id,
        )

    def _interface(self, request: Request) -> str:
        """The primitives to use: the successors if they are installed and can do the work."""
        if self._spec.interface != "auto":
            return self._spec.interface
        same = len({request.spread(pub) for pub in request.pubs}) == 1
        return "executor" if same and has_executor() else "v2"

    def layout_seed(self, options: PrimitiveOptions) -> int:
        """The transpiler's seed: the same for every call, so that one layout serves them all."""
        return 0 if options.seed_transpiler is None else options.seed_transpiler

    def problems(self, request: Request, numbers: Sequence[int]) -> list[str]:
        """What the service's primitives cannot do of a request.

        Args:
            numbers: of its PUBs, for the messages.
        """
        interface = self._spec.interface
        problems = runtime_problems(request.kind, interface, request.options.runtime)
        if interface == "executor" and len({request.spread(pub) for pub in request.pubs}) > 1:
            what = "shots" if request.kind == "sampler" else "precision"
            problems.append(
                f"pubs: they have different {what}, and a job of the interface 'executor' has one;"
                " make several calls, or use a block with interface 'auto' or 'v2'"
            )
        chosen = self._interface(request)
        for number, pub in zip(numbers, request.pubs, strict=True):
            if request.kind == "estimator" and pub.precision == 0:
                problems.append(
                    f"pub {number}: its precision is 0, which a quantum computer cannot reach;"
                    " give a larger one"
                )
            elif refused := pub_refused(request.kind, chosen, pub):
                problems.append(f"pub {number}: {refused}")
        return problems
