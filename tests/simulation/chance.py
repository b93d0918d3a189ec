"""All that is drawn in a world: each number from a stream of its own name.

A draw more under one name changes nothing under another, and a fault can be left out of a world
that stays the same otherwise. That is what makes a failing seed shrink to a story. Only integers
and one exact multiplication are used, so every machine and every Python draws the same.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Collection, Sequence
from typing import TypeVar

T = TypeVar("T")

_MASK = (1 << 64) - 1
_STEP = 0x9E3779B97F4A7C15
#: A fault that is less likely is rare.
_RARE = 0.1


def _mixed(state: int) -> int:
    """SplitMix64's finalizer: neighbouring states give numbers that have nothing in common."""
    state = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9 & _MASK
    state = (state ^ (state >> 27)) * 0x94D049BB133111EB & _MASK
    return state ^ (state >> 31)


class Chance:
    """What one seed draws.

    Attributes:
        happened: the faults that were drawn, by their names and numbers, in their order.
        fair: no fault is drawn any more.
    """

    def __init__(
        self, seed: int, only: Collection[str] | None = None, *, rare: float = 1.0
    ) -> None:
        """`only`: these faults happen and no others; None: those that the seed draws. `rare`: how
        many times as likely those are that are rare."""
        self.seed = seed
        self._rare = rare
        self.happened: list[str] = []
        self.fair = False
        self._only = None if only is None else frozenset(only)
        self._streams: dict[str, Callable[[], int]] = {}
        self._faults: dict[str, int] = {}

    def bits(self, name: str) -> int:
        """64 of them."""
        return (self._streams.get(name) or self.stream(name))()

    def stream(self, name: str) -> Callable[[], int]:
        """What gives the next 64 bits of a name, for who draws often."""
        if name in self._streams:
            return self._streams[name]
        state = _mixed(self.seed * _STEP + zlib.crc32(name.encode()) & _MASK)

        def bits() -> int:
            nonlocal state
            drawn = state = state + _STEP & _MASK
            # As `_mixed`, which nearly all of the time was spent in calling.
            drawn = (drawn ^ (drawn >> 30)) * 0xBF58476D1CE4E5B9 & _MASK
            drawn = (drawn ^ (drawn >> 27)) * 0x94D049BB133111EB & _MASK
            return drawn ^ (drawn >> 31)

        self._streams[name] = bits
        return bits

    def number(self, name: str, low: float = 0.0, high: float = 1.0) -> float:
        """A number from `low` up to `high`."""
        bits = self._streams.get(name) or self.stream(name)
        return low + (high - low) * ((bits() >> 11) * 2.0**-53)

    def below(self, name: str, most: int) -> int:
        """A whole number from 0 to `most` - 1."""
        return self.bits(name) % most

    def one_of(self, name: str, choices: Sequence[T]) -> T:
        return choices[self.bits(name) % len(choices)]

    def token(self, name: str, size: int) -> str:
        """So many bytes in hexadecimal digits."""
        parts = (f"{self.bits(name):016x}" for _ in range(-(-size // 8)))
        return "".join(parts)[: 2 * size]

    def fault(self, name: str, likely: float) -> bool:
        """Whether something goes wrong now. What is drawn with a name has the same numbers always,
        whether or not it happens."""
        bits = self._streams.get(name) or self.stream(name)
        likely *= self._rare if likely < _RARE else 1.0
        drawn = (bits() >> 11) * 2.0**-53 < likely
        if self.fair:
            return False
        number = self._faults[name] = self._faults.get(name, 0) + 1
        if self._only is None and not drawn:  # as nearly always
            return False
        key = f"{name} {number}"
        if self._only is not None and key not in self._only:
            return False
        self.happened.append(key)
        return True
