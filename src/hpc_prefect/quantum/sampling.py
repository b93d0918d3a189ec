"""One sampling: checked, run at most once, recorded. Knows no Prefect."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from qiskit.circuit import QuantumCircuit
from qiskit.exceptions import QiskitError
from qiskit.primitives import PrimitiveResult
from qiskit.primitives.containers.sampler_pub import SamplerPub

from hpc_prefect.errors import InvalidJob, LedgerError
from hpc_prefect.job.identity import digest
from hpc_prefect.quantum.backends import SamplingBackend
from hpc_prefect.quantum.canonical import pub_digest
from hpc_prefect.quantum.options import SamplerOptions
from hpc_prefect.quantum.record import read_finished, write_asked, write_finished

Log = logging.Logger | logging.LoggerAdapter[Any]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Request:
    """What is to be sampled, complete and checked; `ask` makes it."""

    pubs: tuple[SamplerPub, ...]
    options: SamplerOptions
    backend: SamplingBackend

    @cached_property
    def digest(self) -> str:
        """Equal exactly when the work is equal: PUBs, shots, options, backend and seed."""
        identity = dict(self.backend.identity)
        return digest(["sampling", identity, self.honoured, list(self.pub_digests)])

    @cached_property
    def pub_digests(self) -> tuple[str, ...]:
        """The digest of each PUB."""
        return tuple(pub_digest(pub) for pub in self.pubs)

    @property
    def honoured(self) -> dict[str, Any]:
        """The options that the backend uses, by name."""
        used = {name: getattr(self.options, name) for name in sorted(self.backend.honours)}
        if "seed_transpiler" in used:
            used["seed_transpiler"] = self.options.layout_seed
        return used

    @property
    def shots(self) -> int:
        """All shots of all PUBs at all of their points."""
        return sum(int(pub.shots) * pub.size for pub in self.pubs)


def ask(
    pubs: Iterable[Any],
    options: SamplerOptions | None,
    backend: SamplingBackend | None,
    *,
    subject: str = "sampling",
    problems: Sequence[str] = (),
) -> Request:
    """Check everything that can be known before sampling.

    Args:
        pubs: PUBs in any form that `SamplerPub.coerce` takes.
        options: None if they could not be read, which `problems` tells; then what depends on them
            is not checked.
        backend: None if there is none, as with `options`.
        problems: what is known to be wrong already.

    Raises:
        InvalidJob: with all problems that were found, after those that were known.
    """
    found = list(problems)
    if options is not None and backend is not None:
        found += option_problems(options, backend)
    coerced = _coerce(pubs, options, found)
    if found or options is None or backend is None:
        raise InvalidJob(subject, found)
    request = Request(tuple(coerced), options, backend)
    try:
        _ = request.digest
    except (TypeError, ValueError) as error:
        raise InvalidJob(subject, [f"pubs: {error}"]) from error
    return request


def option_problems(options: SamplerOptions, backend: SamplingBackend) -> list[str]:
    """What the backend misses in the options, and what it cannot honour."""
    problems = []
    if "seed" in backend.honours and options.seed is None:
        problems.append(
            f"seed: the {backend.name} needs one, so that the run can be repeated; put"
            ' "seed": 1234 into the Variable, or pass options={"seed": 1234}'
        )
    for name, field in SamplerOptions.model_fields.items():
        is_set = getattr(options, name) != field.default
        if is_set and name != "shots" and name not in backend.honours:
            usable = ", ".join(["shots", *backend.honours])
            problems.append(f"{name}: the {backend.name} cannot honour it; it takes {usable}")
    return problems


def _coerce(
    pubs: Iterable[Any], options: SamplerOptions | None, problems: list[str]
) -> list[SamplerPub]:
    if isinstance(pubs, QuantumCircuit):
        problems.append("pubs: this is one circuit; pass a list of PUBs, such as [circuit]")
        return []
    coerced = []
    pubs = list(pubs)
    for i, pub_like in enumerate(pubs):
        try:
            pub = SamplerPub.coerce(pub_like, None if options is None else options.shots)
        except (TypeError, ValueError, QiskitError) as error:
            problems.append(f"pub {i}: {error}")
            continue
        if pub.shots is None and options is not None:
            problems.append(
                f'pub {i}: no shots; give the PUB its own, put "shots": 1000 into the Variable, or'
                ' pass options={"shots": 1000}'
            )
        if not pub.circuit.cregs:
            problems.append(f"pub {i}: the circuit measures nothing; add measurements")
        coerced.append(pub)
    if not pubs:
        problems.append("pubs: there is none; pass at least one")
    return coerced


def sample_once(request: Request, folder: Path, *, log: Log = _log) -> PrimitiveResult:
    """The result of the sampling in `folder`: of the earlier run that finished it, or a new one.

    Both are the same to the last bit: a new result is returned as it was recorded, with metadata
    as JSON has it. Blocks while the backend samples.
    """
    try:
        earlier = read_finished(folder, request.digest)
    except LedgerError as error:
        log.warning("The record of this sampling is not usable, sampling again: %s", error)
    else:
        if earlier is not None:
            log.info("Sampled by an earlier run, not repeated: %s", folder)
            return earlier
    asked = describe(request) | {"asked_at": _now()}
    write_asked(folder, asked)
    start = time.perf_counter()
    try:
        sampled = request.backend.run(request.pubs, request.options)
    except Exception as error:
        error.add_note(f"while sampling on the {request.backend.name}; what was asked: {folder}")
        raise
    seconds = time.perf_counter() - start
    facts = {"finished_at": _now(), "seconds": round(seconds, 3), "backend_facts": sampled.facts}
    write_finished(folder, asked | facts, sampled.result)
    log.info(
        "Sampled %s, %s shots on the %s in %.2f s; record: %s",
        "1 circuit" if len(request.pubs) == 1 else f"{len(request.pubs)} circuits",
        request.shots,
        request.backend.name,
        seconds,
        folder,
    )
    result = read_finished(folder, request.digest)
    assert result is not None  # it was written two statements ago
    return result


def describe(request: Request) -> dict[str, Any]:
    """What was asked, for the record: no secrets, no circuits."""
    pubs = [
        {
            "digest": known,
            "shots": int(pub.shots),
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


def _versions(backend: SamplingBackend) -> Mapping[str, str]:
    found = {}
    for distribution in ("hpc-prefect", "qiskit", "numpy", *backend.packages):
        try:
            found[distribution] = version(distribution)
        except PackageNotFoundError:
            continue
    return found


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
