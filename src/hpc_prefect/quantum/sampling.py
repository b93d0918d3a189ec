"""One sampling or estimation: checked, run at most once, recorded. Knows no Prefect."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache, cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from qiskit.circuit import QuantumCircuit
from qiskit.exceptions import QiskitError
from qiskit.primitives import PrimitiveResult
from qiskit.primitives.containers.estimator_pub import EstimatorPub
from qiskit.primitives.containers.sampler_pub import SamplerPub

from hpc_prefect.errors import InvalidJob, LedgerError
from hpc_prefect.job.identity import digest
from hpc_prefect.quantum.backend import Backend, Sampled
from hpc_prefect.quantum.checks import circuit_problems, pub_problems
from hpc_prefect.quantum.circuit_digest import pub_digest
from hpc_prefect.quantum.options import OF_A_PUB, PrimitiveOptions
from hpc_prefect.quantum.result_file import read_finished, write_asked, write_finished
from hpc_prefect.transports.host import host

Log = logging.Logger | logging.LoggerAdapter[Any]

_log = logging.getLogger(__name__)


SAMPLER, ESTIMATOR = "sampler", "estimator"
#: Options that limit a job's cost; the work is the same.
_NOT_WORK = frozenset({"max_execution_time"})


@dataclass(frozen=True)
class Request:
    """What is to be sampled or estimated, complete and checked; made by `ask`.

    Attributes:
        kind: sampler or estimator.
    """

    pubs: tuple[Any, ...]
    options: Any
    backend: Any
    kind: str = SAMPLER

    @cached_property
    def digest(self) -> str:
        """Equal exactly when the work is equal: PUBs, shots, options, backend and seed."""
        identity = dict(self.backend.identity)
        what = "sampling" if self.kind == SAMPLER else "estimation"
        options = {name: v for name, v in self.honoured.items() if name not in _NOT_WORK}
        return digest([what, identity, options, list(self.pub_digests)])

    @cached_property
    def pub_digests(self) -> tuple[str, ...]:
        """The digest of each PUB."""
        return tuple(pub_digest(pub) for pub in self.pubs)

    @property
    def honoured(self) -> dict[str, Any]:
        """The options that the backend uses, by name."""
        used = {name: getattr(self.options, name) for name in sorted(self.backend.honours)}
        if "seed_transpiler" in used:
            used["seed_transpiler"] = self.backend.layout_seed(self.options)
        return used

    def spread(self, pub: Any) -> int | float:
        """The PUB's shots, or its precision."""
        return int(pub.shots) if self.kind == SAMPLER else float(pub.precision)

    @property
    def shots_of_pubs(self) -> list[int]:
        """The shots of each PUB at all of its points; an estimate if a precision is asked for."""
        if self.kind == SAMPLER:
            return [int(pub.shots) * pub.size for pub in self.pubs]
        return [math.ceil(max(pub.precision, 1e-6) ** -2) * pub.size for pub in self.pubs]

    @property
    def shots(self) -> int:
        """All shots of all PUBs at all of their points."""
        return sum(self.shots_of_pubs)


def ask(
    pubs: Iterable[Any],
    options: PrimitiveOptions | None,
    backend: Backend | None,
    *,
    subject: str = "sampling",
    problems: Sequence[str] = (),
    kind: str = SAMPLER,
) -> Request:
    """Check everything that can be known before sampling.

    Args:
        pubs: PUBs in any form that `SamplerPub.coerce` (or `EstimatorPub.coerce`) takes.
        options: None if they could not be read (`problems` says why); then what depends on them is
            not checked.
        backend: None if it could not be built, as with `options`.
        problems: problems that are known already.

    Raises:
        InvalidJob: with all problems, the known ones first.
    """
    found = list(problems)
    if options is not None and backend is not None:
        found += option_problems(options, backend)
    if kind == ESTIMATOR and backend is not None and _cannot_estimate(backend):
        found.append(f"backend_name: the {backend.name} cannot estimate; it samples only")
    coerced = _coerce(pubs, options, found, kind)
    if options is not None and backend is not None:
        further = getattr(backend, "problems", None)  # the backend's own checks
        usable = Request(tuple(coerced.values()), options, backend, kind)
        found += further(usable, list(coerced)) if further else []
    if options is None or backend is None or found:
        raise InvalidJob(subject, found)
    request = Request(tuple(coerced.values()), options, backend, kind)
    if undigested := _undigested(request):
        raise InvalidJob(subject, undigested)
    return request


def _undigested(request: Request) -> list[str]:
    """The problems of PUBs that have no digest."""
    found = []
    for i, pub in enumerate(request.pubs):
        try:
            pub_digest(pub)
        except (TypeError, ValueError, ArithmeticError, QiskitError) as error:
            found.append(f"pub {i}: {error}")
    return found


def _cannot_estimate(backend: Backend) -> bool:
    return backend.simulates and not hasattr(backend, "estimate")


def option_problems(options: PrimitiveOptions, backend: Backend) -> list[str]:
    """Options that the backend needs, and options that it cannot honour."""
    problems = []
    if backend.simulates and options.seed is None:
        problems.append(
            f"seed: the {backend.name} needs one, so that the run can be repeated; put"
            ' "seed": 1234 into the Variable, or pass options={"seed": 1234}'
        )
    plain, own = type(options)(), [name for name in OF_A_PUB if hasattr(options, name)]
    for name in type(options).model_fields:
        is_set = getattr(options, name) != getattr(plain, name)
        if is_set and name not in own and name not in backend.honours:
            usable = ", ".join([*own, *backend.honours])
            problems.append(f"{name}: the {backend.name} cannot honour it; it takes {usable}")
    return problems


def _coerce(
    pubs: Iterable[Any], options: PrimitiveOptions | None, problems: list[str], kind: str
) -> dict[int, Any]:
    """The valid PUBs by number; adds the problems of the others to `problems`."""
    if isinstance(pubs, QuantumCircuit):
        problems.append("pubs: this is one circuit; pass a list of PUBs, such as [circuit]")
        return {}
    coerced = {}
    pubs = list(pubs)
    what, example = ("shots", "1000") if kind == SAMPLER else ("precision", "0.01")
    pub_class: Any = SamplerPub if kind == SAMPLER else EstimatorPub
    for i, pub_like in enumerate(pubs):
        try:
            pub = pub_class.coerce(pub_like, None if options is None else getattr(options, what))
        except (TypeError, ValueError, QiskitError) as error:
            first = pub_like[0] if isinstance(pub_like, tuple) and pub_like else pub_like
            known = isinstance(first, QuantumCircuit)
            more = circuit_problems(first, sampled=kind == SAMPLER) if known else ()
            problems += [f"pub {i}: {each}" for each in (str(error), *more)]
            continue
        found = pub_problems(pub)
        if getattr(pub, what) is None and options is not None:
            found.append(
                f'no {what}; give the PUB its own, put "{what}": {example} into the Variable, or'
                f' pass options={{"{what}": {example}}}'
            )
        problems += [f"pub {i}: {each}" for each in found]
        if not found:
            coerced[i] = pub
    if not pubs:
        problems.append("pubs: there is none; pass at least one")
    return coerced


def read_earlier(request: Request, folder: Path, log: Log = _log) -> PrimitiveResult | None:
    """The result that an earlier run left in `folder`; None also if it is damaged."""
    try:
        earlier = read_finished(folder, request.digest, request.kind)
    except LedgerError as error:
        log.warning("The record of this sampling cannot be used, so it is sampled again: %s", error)
        return None
    if earlier is not None:
        log.info("Sampled by an earlier run, not repeated: %s", folder)
    return earlier


def sample_once(
    request: Request, folder: Path, *, made_by: str = "", log: Log = _log
) -> PrimitiveResult:
    """The result of the sampling in `folder`: of the earlier run that finished it, or a new one.

    Both are the same to the last bit: a new result is returned as it reads back from its record.
    Blocks while the backend samples.

    Args:
        made_by: the id of the run that asks, for the record.
    """
    earlier = read_earlier(request, folder, log)
    if earlier is not None:
        return earlier
    asked = describe(request) | {"made_by": made_by, "asked_at": now_as_iso()}
    write_asked(folder, asked, request.kind)
    start = time.perf_counter()
    try:
        sampled = _run(request)
    except Exception as error:
        error.add_note(f"while sampling on the {request.backend.name}; what was asked: {folder}")
        raise
    seconds = time.perf_counter() - start
    facts = {"seconds": round(seconds, 3), "backend_facts": sampled.facts}
    result = keep(_Here(request.kind, request.digest, folder), asked | facts, sampled.result)
    log.info(
        "%s %s on the %s in %.2f s; record: %s",
        "Sampled" if request.kind == SAMPLER else "Estimated",
        size_of(request),
        request.backend.name,
        seconds,
        folder,
    )
    return result


def _run(request: Request) -> Sampled:
    run = request.backend.run if request.kind == SAMPLER else request.backend.estimate
    sampled: Sampled = run(request.pubs, request.options)
    return sampled


class Recorded(Protocol):
    """Work whose result is stored in a folder."""

    @property
    def kind(self) -> str: ...

    @property
    def digest(self) -> str: ...

    @property
    def folder(self) -> Path: ...


class _Here(NamedTuple):
    kind: str
    digest: str
    folder: Path


def keep(work: Recorded, facts: Mapping[str, Any], result: PrimitiveResult) -> PrimitiveResult:
    """Record a result; returns it as every later run will read it."""
    finished = {**facts, "finished_at": now_as_iso()}
    write_finished(work.folder, finished, result, work.kind)
    kept = read_finished(work.folder, work.digest, work.kind)
    assert kept is not None  # it was just written
    return kept


def size_of(request: Request) -> str:
    """`1 circuit, 100 shots`."""
    circuits = "1 circuit" if len(request.pubs) == 1 else f"{len(request.pubs)} circuits"
    if request.kind == SAMPLER:
        return f"{circuits}, {request.shots} shots"
    return f"{circuits}, {sum(pub.size for pub in request.pubs)} values"


def describe(request: Request) -> dict[str, Any]:
    """The request as the record has it: no secrets, no circuits."""
    pubs = [
        {
            "digest": known,
            ("shots" if request.kind == SAMPLER else "precision"): request.spread(pub),
            "shape": list(pub.shape),
            "parameters": pub.circuit.num_parameters,
            "qubits": pub.circuit.num_qubits,
            "depth": pub.circuit.depth(),
            "operations": dict(pub.circuit.count_ops()),
        }
        for pub, known in zip(request.pubs, request.pub_digests, strict=True)
    ]
    return {
        "digest": request.digest,
        "backend": dict(request.backend.identity),
        "options": request.honoured,
        "shots": request.shots,
        "pubs": pubs,
        "versions": _versions(request.backend),
    }


def _versions(backend: Backend) -> Mapping[str, str]:
    found = {}
    for distribution in ("hpc-prefect", "qiskit", "numpy", *backend.packages):
        if there := _version(distribution):
            found[distribution] = there
    return found


@cache
def _version(distribution: str) -> str:
    """Of what is installed; empty when it is not. To look it up takes some milliseconds."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return ""


def now_as_iso() -> str:
    return iso_time(host().time())


def iso_time(seconds: float) -> str:
    """A time (seconds since 1970) as records have it."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
