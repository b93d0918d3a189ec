"""From a seed that found something to a story: the few faults that it takes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from simulation.simulate import Outcome, simulate


def first_wrong(outcome: Outcome) -> str:
    """The kind of what was wrong first; empty when nothing was."""
    return outcome.wrong[0][0] if outcome.wrong else ""


def shrink(
    seed: int,
    kind: str,
    *,
    judge: Callable[[Outcome], str] = first_wrong,
    most_tries: int = 400,
) -> Outcome:
    """The seed's world with as few of its faults as still come to something wrong of this kind.

    A fault that is left out changes nothing else that is drawn. What was never reached before the
    end can be left out at once; of the rest ever smaller parts are tried.
    """
    tries = 0

    def fails(faults: Sequence[str]) -> Outcome | None:
        nonlocal tries
        tries += 1
        outcome = simulate(seed, only=faults)
        return outcome if judge(outcome) == kind else None

    faults = simulate(seed).faults
    while tries < most_tries:
        fewer = _fewer(faults, fails)
        if len(fewer) == len(faults):
            break
        faults = fewer
    return simulate(seed, only=faults, keep=True)


def _fewer(faults: list[str], fails: Callable[[Sequence[str]], Outcome | None]) -> list[str]:
    """Without each part of it that is not needed: halves, quarters, …, single ones."""
    size = len(faults)
    while size > 1:
        size = (size + 1) // 2
        begin = 0
        while begin < len(faults):
            rest = faults[:begin] + faults[begin + size :]
            outcome = fails(rest)
            if outcome is None:
                begin += size
            else:
                # What it has not come to is not needed either.
                faults = [fault for fault in rest if fault in outcome.faults]
    return faults
