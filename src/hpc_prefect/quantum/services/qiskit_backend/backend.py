"""A vendor's Qiskit backend that a block names. Nothing here asks the vendor."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from importlib import import_module
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

from hpc_prefect.errors import ConfigurationError
from hpc_prefect.extras import missing
from hpc_prefect.quantum.service import DeviceChoice, PurchaseTerms
from hpc_prefect.quantum.services.qiskit_backend.service import BackendService, CircuitOrder

if TYPE_CHECKING:
    from hpc_prefect.quantum.backends import BackendSpec
    from hpc_prefect.quantum.options import PrimitiveOptions
    from hpc_prefect.quantum.purchase.attempt import QuantumAttempt
    from hpc_prefect.quantum.purchase.transpile import Transpiled
    from hpc_prefect.quantum.sampling import Request

#: A provider package may name its backends here, so that users need no import path.
ENTRY_POINTS = "hpc_prefect.quantum_backends"

_services: dict[str, BackendService] = {}
_lock = threading.Lock()


def build(spec: BackendSpec, account: None) -> QiskitBackend:
    """The backend of a block.

    Raises:
        ConfigurationError: it cannot be imported, or cannot be a backend.
    """
    if told := missing("a Qiskit backend", "qiskit"):
        raise ConfigurationError(f"backend_name: {told}")
    path = spec.backend_name
    make = _maker(path)
    with _lock:
        service = _services.setdefault(path, BackendService(path, make))
    return QiskitBackend(spec, service)


def of_environment() -> None:
    """None: only the block says which backend a job is on."""
    return


def _maker(path: str) -> Callable[[], Any]:
    """The function that makes the backend, by import path `package.module:name` or entry point."""
    module, separator, name = path.partition(":")
    try:
        if separator:
            found: Any = import_module(module)
            for part in name.split("."):
                found = getattr(found, part)
        else:
            (point,) = entry_points(group=ENTRY_POINTS, name=path)
            found = point.load()
    except ValueError:
        known = ", ".join(sorted(each.name for each in entry_points(group=ENTRY_POINTS)))
        raise ConfigurationError(
            f"backend_name: no installed package names a backend {path!r} (entry points of the"
            f" group {ENTRY_POINTS}: {known or 'none'}); give its import path, package.module:name"
        ) from None
    except (ImportError, AttributeError) as error:
        raise ConfigurationError(f"backend_name: {path!r} cannot be imported: {error}") from error
    if inspect.isclass(found) or inspect.isroutine(found):
        making: Callable[[], Any] = found
        return making
    return lambda: found


class QiskitBackend:
    """A vendor's backend, which samples."""

    simulates = False

    def __init__(self, spec: BackendSpec, service: BackendService) -> None:
        self._spec = spec
        self.service = service
        self.terms = PurchaseTerms(
            choice=DeviceChoice(name=spec.backend_name),
            max_qpu_seconds=spec.max_qpu_seconds,
            on_cancel=spec.on_cancel,
        )

    @property
    def name(self) -> str:
        return f"Qiskit backend {self._spec.backend_name}"

    @property
    def identity(self) -> Mapping[str, Any]:
        spec = self._spec
        transpilation = dict(spec.transpilation)
        return {"kind": "qiskit", "name": spec.backend_name, "transpilation": transpilation}

    @property
    def honours(self) -> Collection[str]:
        return ("seed", "seed_transpiler", "optimization_level", "runtime")

    @property
    def packages(self) -> Sequence[str]:
        module = self._spec.backend_name.partition(":")[0].partition(".")[0]
        return (module,)

    @property
    def transpilation(self) -> Mapping[str, Any]:
        return dict(self._spec.transpilation)

    def layout_seed(self, options: PrimitiveOptions) -> int:
        """The transpiler's seed: the same for every call, so that one layout serves them all."""
        return 0 if options.seed_transpiler is None else options.seed_transpiler

    def problems(self, request: Request, numbers: Sequence[int]) -> list[str]:
        """What such a backend cannot do in a request."""
        if request.kind != "sampler":
            return [f"backend_name: the {self.name} cannot estimate; it samples only"]
        found = []
        if len({pub.shots for pub in request.pubs}) > 1:
            found.append("pubs: they have different shots, and a job has one; make several calls")
        if taken := sorted({"shots", "memory"} & set(request.options.runtime)):
            found.append(f"runtime: {', '.join(taken)} cannot be set; give shots in its place")
        return found

    def facts(self, request: Request) -> Mapping[str, Any]:
        """The layout of the job's experiments; fetching the result then needs no circuits."""
        from hpc_prefect.quantum.services.qiskit_backend.samples import layout_of

        return {"layout": layout_of(request.pubs)}

    async def order(self, attempt: QuantumAttempt, transpiled: Transpiled) -> CircuitOrder:
        """The job as the vendor's `run` takes it."""
        from hpc_prefect.quantum.services.qiskit_backend.samples import bound

        return CircuitOrder(
            circuits=bound(transpiled.pubs),
            shots=int(transpiled.pubs[0].shots),
            options=attempt.purchase.request.options.runtime,
        )
