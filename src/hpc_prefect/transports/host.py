"""What a process takes from its machine: clocks, random numbers, and which processes are alive.

Ledger, executor and operations take these from here and from nowhere else, so that a simulation can
put a machine of its own in their place, as it does with a `Transport` for files and commands.
"""

from __future__ import annotations

import os
import random
import secrets
import socket
import time

from hpc_prefect.local_batch import process


class Host:
    """This machine, as this process sees it; processes as `local_batch.process` writes them."""

    @property
    def name(self) -> str:
        return socket.gethostname()

    @property
    def pid(self) -> int:
        return os.getpid()

    def time(self) -> float:
        """Seconds since 1970, by this host's clock."""
        return time.time()

    def monotonic(self) -> float:
        """Seconds by a clock that all processes of this host share and nobody sets."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)

    def seconds_since_boot(self) -> float:
        return process.seconds_since_boot()

    def token(self, size: int) -> str:
        """So many random bytes, in hexadecimal digits: nobody can guess them."""
        return secrets.token_hex(size)

    def uniform(self, low: float, high: float) -> float:
        """A number between two others, to keep processes out of step."""
        return random.uniform(low, high)

    def identity(self, pid: int) -> str | None:
        """Who has this pid now; None when nobody has."""
        return process.identity(pid)

    def is_of_this_boot(self, who: str) -> bool:
        return process.is_of_this_boot(who)

    def alive(self, who: str) -> bool:
        """Whether a process lives, as far as this host can see."""
        return process.alive(who)

    def dead(self, who: str) -> bool:
        """Whether a process has surely ended."""
        return process.dead(who)


_host = Host()


def host() -> Host:
    """The machine that this process runs on."""
    return _host


class standing_in:  # noqa: N801 - it is used as a statement
    """Have another one in its place, in this whole process: for a simulation of several."""

    def __init__(self, other: Host) -> None:
        self._other = self._before = other

    def __enter__(self) -> None:
        global _host
        self._before, _host = _host, self._other

    def __exit__(self, *trouble: object) -> None:
        global _host
        _host = self._before
