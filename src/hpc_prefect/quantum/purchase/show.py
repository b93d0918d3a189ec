"""The artifact of one quantum job: where it is, what it cost, what came out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from hpc_prefect.flow_runs.artifacts import Content, LiveArtifact, home_of_run
from hpc_prefect.quantum.purchase.look import describe, place_of, seconds_of
from hpc_prefect.quantum.purchase.retry import first_line
from hpc_prefect.records.markdown import escaped

if TYPE_CHECKING:
    from hpc_prefect.ledger.quantum_journal import QuantumAttempt
    from hpc_prefect.quantum.purchase.errand import Errand
    from hpc_prefect.quantum.service import Look

#: Seconds between two renewals while the job waits.
REFRESH_EVERY = 15.0
#: Bars of the plot, and the letters of the longest.
BARS, WIDTH = 12, 30


class Page:
    """The job's artifact."""

    def __init__(self, errand: Errand, attempt: QuantumAttempt) -> None:
        self._kind, self._attempt = errand.kind, attempt
        where = place_of(attempt.intent.get("scope") or ())
        self._about = f"Quantum job {attempt.job_id} on {attempt.device}"
        self._about += f", {where}" if where else ""
        key = f"quantum-job-{attempt.tag.removeprefix('hp-')[:20]}"
        self._artifact = LiveArtifact(key, home_of_run(), every=REFRESH_EVERY)
        self._status = ""

    def seen(self, look: Look) -> None:
        """Show a job that waits or runs: at each change of state, else now and then."""
        if not look.ended:
            self._show(lambda: page(self._attempt, look), now=look.status != self._status)
            self._status = look.status

    def done(self, look: Look, result: Any) -> None:
        """Show what came out."""
        self._show(lambda: page(self._attempt, look) + outcome(self._kind, result), now=True)

    def failed(self, error: Exception) -> None:
        """Show why there is no result."""
        text = f"## Quantum job {self._attempt.job_id}\n\n{escaped(first_line(error))}\n"
        self._show(lambda: text, now=True)

    def _show(self, make: Callable[[], str], *, now: bool) -> None:
        self._artifact.show(lambda: Content(make(), self._about), now=now)


def page(attempt: QuantumAttempt, look: Look) -> str:
    """The job's table in Markdown."""
    facts, intent = look.facts, attempt.intent
    rows: list[tuple[str, Any]] = [
        ("state", look.status),
        ("job", f"`{attempt.job_id}`, tag `{attempt.tag}`, attempt {attempt.number}"),
        ("device", attempt.device),
        ("place", place_of(intent.get("scope") or ())),
        ("calibrated", intent.get("calibrated_at")),
        ("number in the queue", facts.get("position") if not look.ended else None),
        ("expected to start", facts.get("starts_at") if not look.ended else None),
        ("created", facts.get("created")),
        ("began to run", facts.get("running")),
        ("finished", facts.get("finished")),
        ("QPU time", seconds_of(look)),
        ("shots", intent.get("shots")),
    ]
    for i, circuit in enumerate(intent.get("transpiled") or ()):
        rows.append((f"circuit {i}, transpiled", _circuit(circuit)))
    lines = [f"| {name} | {value} |" for name, value in rows if value not in (None, "")]
    title = f"## Quantum {describe(attempt, look)}\n\n"
    return title + "| | |\n|---|---|\n" + "\n".join(lines) + "\n"


def _circuit(facts: Mapping[str, Any]) -> str:
    return (
        f"depth {facts['depth']}, {facts['size']} operations, {facts['two_qubit_gates']} of them on"
        f" two qubits (level {facts['optimization_level']}, seed {facts['seed_transpiler']})"
    )


def outcome(kind: str, result: Any) -> str:
    """What came out, of the first PUB."""
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
