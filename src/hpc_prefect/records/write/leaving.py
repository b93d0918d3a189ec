"""At its end, a process waits until the rest of its runs' records is written.

The writing threads are daemons, because a file server may never answer, and a record must not keep
an interpreter alive for ever. So another thread waits for them, with a limit. The interpreter joins
this thread at its end. (Processes of a pool do so too, but do not call `atexit` functions.)
"""

from __future__ import annotations

import contextvars
import os
import threading
import weakref
from typing import Protocol


class Leaver(Protocol):
    """Something that writes and that the process `pid` waits for at its end."""

    pid: int

    def leave(self) -> None:
        """Wait until all is written, or no progress is made."""


#: A list, because another thread may add to it at any moment, and a fork keeps no lock.
_leavers: list[weakref.ref[Leaver]] = []
_waiting_in: list[int] = []  # the pid of the process in which the waiting thread runs


def wait_for(leaver: Leaver) -> None:
    """Let this process call `leaver.leave()` before it ends."""
    if leaver not in _of_this_process():
        _leavers[:] = [each for each in _leavers if each() is not None]
        _leavers.append(weakref.ref(leaver))
    if _waiting_in == [os.getpid()]:
        return
    _waiting_in[:] = [os.getpid()]
    # Said, because a thread is a daemon like the one that makes it, and a daemon is not joined.
    thread = threading.Thread(target=_wait_for_the_end, name="hpc-prefect-leaving", daemon=False)
    contextvars.Context().run(thread.start)


def _wait_for_the_end() -> None:
    threading.main_thread().join()
    leave_all()


def leave_all() -> None:
    """Wait for all leavers of this process."""
    for each in _of_this_process():
        each.leave()


def _of_this_process() -> list[Leaver]:
    found = [known() for known in list(_leavers)]
    return [each for each in found if each is not None and each.pid == os.getpid()]
