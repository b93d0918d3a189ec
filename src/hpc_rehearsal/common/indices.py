"""The waiting parts of an array: runs of indices, each [first, last], with a step."""

from __future__ import annotations

Runs = list[list[int]]


def lowest(runs: Runs) -> int | None:
    return runs[0][0] if runs else None


def holds(runs: Runs, index: int, step: int = 1) -> bool:
    return any(a <= index <= b and (index - a) % step == 0 for a, b in runs)


def count(runs: Runs, step: int = 1) -> int:
    return sum((b - a) // step + 1 for a, b in runs)


def without(runs: Runs, index: int, step: int = 1) -> Runs:
    found: Runs = []
    for a, b in runs:
        if not holds([[a, b]], index, step):
            found.append([a, b])
            continue
        found += [[a, index - step]] if a < index else []
        found += [[index + step, b]] if index < b else []
    return found


def with_one(runs: Runs, index: int, step: int = 1) -> Runs:
    found: Runs = []
    for a, b in sorted([*runs, [index, index]]):
        if found and found[-1][1] + step == a:
            found[-1][1] = b
        else:
            found.append([a, b])
    return found


def text(runs: Runs, step: int = 1) -> str:
    """As `0-2,5,7-11:2`; a minus for none."""
    behind = f":{step}" if step > 1 else ""
    return ",".join(f"{a}-{b}{behind}" if a < b else str(a) for a, b in runs) or "-"
