"""What goes on in threads that nobody waits for: records are written, artifacts sent."""

from __future__ import annotations

import threading
import time

_THREADS = ("hpc-prefect-record", "hpc-prefect-record-aside", "hpc-prefect-artifacts")


def settle(seconds: float = 300) -> None:
    """Wait until those threads have nothing more to do."""
    deadline = time.monotonic() + seconds
    while any(thread.name in _THREADS for thread in threading.enumerate()):
        assert time.monotonic() < deadline, "records or artifacts are still being written"
        time.sleep(0.02)
