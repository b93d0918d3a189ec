"""The artifact of one quantum job: where it is, what it cost, what came out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hpc_prefect.flow_runs.artifacts import Content, LiveArtifact, home_of_run
from hpc_prefect.flow_runs.scopes import root_flow
from hpc_prefect.job.quantum_spec import QuantumSpec
from hpc_prefect.job.result import JobResult
from hpc_prefect.quantum.purchase import tally
from hpc_prefect.quantum.purchase.provider import QuantumObservation
from hpc_prefect.quantum.purchase.words import described, place_of, seconds_of
from hpc_prefect.quantum.result_file import read_finished
from hpc_prefect.records.markdown import escaped

#: Seconds between two renewals while the job waits.
REFRESH_EVERY = 15.0
#: How many bars the plot has, and how many letters the longest has.
BARS, WIDTH = 12, 30


class Page:
    """The job's artifact in the flow run of the call; also counts its cost for that run."""

    def __init__(self, work: Path, scope: Sequence[str]) -> None:
        """In the context of the call. `work`: the folder of its record."""
        self._work, self._place = work, place_of(scope)
        self._home, self._root = home_of_run(), root_flow()
        self._artifacts: dict[str, LiveArtifact] = {}  # keys are the jobs' tags
        self._status = ""

    def seen(self, spec: QuantumSpec, tag: str, look: QuantumObservation) -> None:
        """Show a waiting or running job: at each change of state, else every 15 seconds."""
        if look.cause is None:
            now, self._status = look.word != self._status, look.word
            self._show(spec, tag, look.id, lambda: page(spec, tag, self._place, look), now=now)

    def ended(self, spec: QuantumSpec, result: JobResult, look: QuantumObservation | None) -> None:
        """Show the result, or why there is none."""
        if not result.job_id or look is None:
            return
        tally.count(self._root, result, self._work.parent.parent)
        make = self._outcome if result.succeeded else self._failure
        self._show(spec, result.tag, look.id, lambda: make(spec, result, look), now=True)

    def _outcome(self, spec: QuantumSpec, result: JobResult, look: QuantumObservation) -> str:
        kept = read_finished(self._work, spec.digest, spec.primitive)
        return page(spec, result.tag, self._place, look) + outcome(spec.primitive, kept)

    def _failure(self, spec: QuantumSpec, result: JobResult, look: QuantumObservation) -> str:
        text = f"{result.verdict.reason}: {result.verdict.summary}"
        return f"## Quantum job {look.id}\n\n{escaped(text)}\n"

    def _show(
        self, spec: QuantumSpec, tag: str, job_id: str, make: Callable[[], str], *, now: bool
    ) -> None:
        about = f"Quantum job {job_id} on {spec.device}"
        about += f", {self._place}" if self._place else ""
        if tag not in self._artifacts:
            key = f"quantum-job-{tag.removeprefix('hp-')[:20]}"
            self._artifacts[tag] = LiveArtifact(key, self._home, every=REFRESH_EVERY)
        self._artifacts[tag].show(lambda: Content(make(), about), now=now)


def page(spec: QuantumSpec, tag: str, place: str, look: QuantumObservation) -> str:
    """The job's table in Markdown."""
    facts, waits = look.facts, look.cause is None
    rows: list[tuple[str, Any]] = [
        ("state", look.word),
        ("job", f"`{look.id}`, tag `{tag}`"),
        ("device", spec.device),
        ("place", place),
        ("calibrated", spec.calibrated_at),
        ("number in the queue", facts.get("position") if waits else None),
        ("expected to start", facts.get("starts_at") if waits else None),
        ("created", facts.get("created")),
        ("began to run", facts.get("running")),
        ("finished", facts.get("finished")),
        ("QPU time", seconds_of(look)),
        ("shots", spec.shots),
    ]
    for i, circuit in enumerate(spec.transpiled):
        rows.append((f"circuit {i}, transpiled", _circuit(circuit)))
    lines = [f"| {name} | {value} |" for name, value in rows if value not in (None, "")]
    title = f"## Quantum {described(spec.device, look)}\n\n"
    return title + "| | |\n|---|---|\n" + "\n".join(lines) + "\n"


def _circuit(facts: Mapping[str, Any]) -> str:
    return (
        f"depth {facts['depth']}, {facts['size']} operations, {facts['two_qubit_gates']} of them on"
        f" two qubits (level {facts['optimization_level']}, seed {facts['seed_transpiler']})"
    )


def outcome(kind: str, result: Any) -> str:
    """The result of the first PUB."""
    if kind == "estimator":
        return _values(result)
    from qiskit.primitives import BitArray

    registers = [(n, v) for n, v in result[0].data.items() if isinstance(v, BitArray)]
    return _bars(*registers[0]) if registers else ""


def _bars(name: str, bits: Any) -> str:
    """The most frequent bitstrings as bars of text, which any page shows without a plot library."""
    counts: dict[str, int] = bits.get_counts()
    total = sum(counts.values())
    top = sorted(counts.items(), key=lambda each: (-each[1], each[0]))[:BARS]
    most = top[0][1] if top else 1
    lines = [
        f"| `{word}` | {count} | {count / total:.1%} | {_bar(count / most)} |"
        for word, count in top
    ]
    about = f"{len(top)} of {len(counts)} different bitstrings, {total} shots"
    head = f"\n### Register `{name}`: {about}\n\n| bits | count | share | |\n|---|---:|---:|---|\n"
    return head + "\n".join(lines) + "\n"


def _bar(share: float) -> str:
    return "█" * max(1, round(WIDTH * share))


def _values(result: Any) -> str:
    import numpy as np

    data = result[0].data
    pairs = list(zip(np.ravel(data.evs), np.ravel(data.stds), strict=True))
    lines = [f"| {i} | {value:.6g} | {std:.2g} |" for i, (value, std) in enumerate(pairs[:BARS])]
    head = (
        f"\n### First PUB: {len(pairs)} values\n\n| | value | standard error |\n|---|---:|---:|\n"
    )
    return head + "\n".join(lines) + "\n"
