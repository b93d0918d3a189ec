"""A quantum job in words, for its log, its page and its messages."""

from __future__ import annotations

from collections.abc import Sequence

from hpc_prefect.quantum import service as words
from hpc_prefect.quantum.purchase.provider import QuantumObservation


def place_of(scope: Sequence[str]) -> str:
    """Where in the experiment a call is, for people: `iter-3/walker-2`; empty at its top.

    The name of the loop around an iteration is left out.
    """
    loops = [i for i, name in enumerate(scope) if name.startswith("iter-")]
    return "/".join(scope[loops[-1] :] if loops else scope)[-60:]


def described(device: str, seen: QuantumObservation) -> str:
    """A job's state in one line."""
    text = f"job {seen.id} on {device}: {seen.word.lower()}"
    position, starts = seen.facts.get("position"), seen.facts.get("starts_at")
    if seen.word == words.QUEUED and position:
        text += f", number {position} in the queue"
    if seen.word == words.QUEUED and starts:
        text += f", expected to start at {starts}"
    if seen.word == words.DONE:
        text += f", {seconds_of(seen)}"
    return text


def seconds_of(seen: QuantumObservation) -> str:
    """QPU seconds in words: the actual ones, or the estimate, marked as such."""
    actual, price = seen.used.get("qpu_seconds"), seen.facts.get("estimated_seconds")
    if actual is not None:
        return f"{actual:g} QPU seconds"
    return "QPU seconds not known" if price is None else f"about {price:g} QPU seconds (estimated)"
