"""A quantum computer of IBM Quantum: what it is and takes. Nothing here asks the service.

It hands work to a service, so it has no `run`: the modules beside this one post and fetch.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hpc_prefect.quantum.services.ibm.client import LEAST_BUSY, Account, DeviceChoice
from hpc_prefect.quantum.services.ibm.options import pub_refused, runtime_problems
from hpc_prefect.quantum.services.ibm.post import BackendTerms, interface_of

if TYPE_CHECKING:
    from hpc_prefect.quantum.backends import BackendSpec
    from hpc_prefect.quantum.options import PrimitiveOptions
    from hpc_prefect.quantum.sampling import Request


class IBMBackend:
    """A device, or the least busy of some; how it is paid for; the account that pays."""

    simulates = False

    def __init__(self, spec: BackendSpec, account: Account) -> None:
        self._spec = spec
        self.account = account
        self.terms = BackendTerms(
            choice=DeviceChoice(
                name=spec.backend_name,
                min_num_qubits=spec.min_num_qubits,
                only=spec.only_devices,
                fractional_gates=spec.fractional_gates,
            ),
            interface=spec.interface,
            mode=spec.mode,
            max_session_seconds=spec.max_session_seconds,
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

    def layout_seed(self, options: PrimitiveOptions) -> int:
        """The transpiler's seed: the same for every call, so that one layout serves them all."""
        return 0 if options.seed_transpiler is None else options.seed_transpiler

    def problems(self, request: Request, numbers: Sequence[int]) -> list[str]:
        """What the service's primitives cannot do of a request.

        Args:
            numbers: of its PUBs, for the messages.
        """
        interface = self.terms.interface
        problems = runtime_problems(request.kind, interface, request.options.runtime)
        if interface == "executor" and len({request.spread(pub) for pub in request.pubs}) > 1:
            what = "shots" if request.kind == "sampler" else "precision"
            problems.append(
                f"pubs: they have different {what}, and a job of the interface 'executor' has one;"
                " make several calls, or use a block with interface 'auto' or 'v2'"
            )
        chosen = interface_of(self.terms, request)
        for number, pub in zip(numbers, request.pubs, strict=True):
            if request.kind == "estimator" and pub.precision == 0:
                problems.append(
                    f"pub {number}: its precision is 0, which a quantum computer cannot reach;"
                    " give a larger one"
                )
            elif refused := pub_refused(request.kind, chosen, pub):
                problems.append(f"pub {number}: {refused}")
        return problems
