"""Runs a command of any scheduler."""

from __future__ import annotations

import os
import signal
import sys

from hpc_rehearsal.common.text import Refusal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


def run(command: Callable[[], int]) -> int:
    """Run it and return its exit status. A `Refusal` is printed to standard error."""
    for stream in (sys.stdout, sys.stderr):
        # Names, paths and values need not be UTF-8.
        stream.reconfigure(errors="surrogateescape")  # type: ignore[union-attr]
    try:
        status = command()
    except Refusal as refused:
        print(refused.text, end="", file=sys.stderr)
        status = refused.code
    except BrokenPipeError:
        return 1
    sys.stdout.flush()
    sys.stderr.flush()
    if status < 0:  # the real one is killed by this signal
        os.kill(os.getpid(), -status)
        signal.pause()
    return status
