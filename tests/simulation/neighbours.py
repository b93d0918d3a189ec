"""Where a user's processes on one machine meet: the product's `HostPeers`, in memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from hpc_prefect.executor.coordination.host_coordination import HostPeers

if TYPE_CHECKING:
    from simulation.process import Process

T = TypeVar("T")


class MeetingPlace:
    """One machine's; it is gone when the machine loses its power.

    Attributes:
        files: their contents by their names.
        note: what stands in the lock's file: who asked last.
    """

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.note = b""

    def clear(self) -> None:
        self.files.clear()
        self.note = b""


class Neighbours(HostPeers):
    """One process's part in it. A decision is made at once: the lock is never waited for."""

    def __init__(self, process: Process, where: MeetingPlace) -> None:
        super().__init__(name="in memory")
        self._process, self._where = process, where

    def together(self, decide: Callable[[int], T], alone: T) -> T:
        self._process.check()
        return decide(0)

    def noted(self, lock: int) -> bytes:
        return self._where.note

    def note(self, lock: int, text: str) -> None:
        self._where.note = text.encode()

    def names(self) -> list[str]:
        return sorted(self._where.files)

    def read(self, name: str) -> bytes:
        if name not in self._where.files:
            raise FileNotFoundError(name)
        return self._where.files[name]

    def write(self, name: str, data: bytes) -> None:
        self._process.check()
        self._where.files[name] = data

    def remove(self, name: str) -> None:
        self._process.check()
        self._published.pop(name, None)
        self._where.files.pop(name, None)
