"""What must have happened in a run of many lives, or the run has shown little: "sometimes"."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable


class Coverage:
    """How often each thing happened."""

    def __init__(self) -> None:
        self.seen: Counter[str] = Counter()

    def sometimes(self, what: str) -> None:
        """This happened."""
        self.seen[what] += 1

    def missing(self, expected: Iterable[str]) -> list[str]:
        """What never did."""
        return [what for what in expected if not self.seen[what]]
