"""A process that ends waits for what is still to be written into its runs' records.

The threads that write are daemons, because a file server may never answer, and a record alone must
not hold an interpreter for ever. So somebody else has to wait for them, with a limit: a thread that
the interpreter joins, which a pool's processes do too. They do not call what `atexit` knows.
"""

from __future__ import annotations

import contextvars
import os
import threading
import weakref
from typing import Protocol


class Leaver(Protocol):
    """Who has something to write, in the process that began it."""

    pid: int

    def leave(self) -> None:
        """Wait until all is written, or nothing moves any more."""


#: A list, because another thread may add to it at any moment, and a fork keeps no lock.
_leavers: list[weakref.ref[Leaver]] = []
_waiting_in: list[int] = []  # the process whose end is waited for


def wait_for(leaver: Leaver) -> None:
    """Have this process not end before it has left."""
    if leaver not in _of_this_process():
        _leavers[:] = [each for each in _leavers if each() is not None]
        _leavers.append(weakref.ref(leaver))
    if _waiting_in == [os.getpid()]:
        return
    _waiting_in[:] = [os.getpid()]
    thread = threading.Thread(target=_wait_for_the_end, name="hpc-prefect-leaving")
    contextvars.Context().run(thread.start)


def _wait_for_the_end() -> None:
    threading.main_thread().join()
    leave_all()


def leave_all() -> None:
    """Wait for all of this process."""
    for each in _of_this_process():
        each.leave()


def _of_this_process() -> list[Leaver]:
    found = [known() for known in list(_leavers)]
    return [each for each in found if each is not None and each.pid == os.getpid()]
