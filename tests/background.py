"""What goes on in threads that nobody waits for: records are written, artifacts sent."""

from __future__ import annotations

import threading
import time

from hpc_prefect.records.write import leaving


def settle(seconds: float = 300) -> None:
    """Wait until those threads have nothing more to do."""
    deadline = time.monotonic() + seconds
    leaving.leave_all()  # what is written is shown, which another thread sends
    while any(thread.name == "hpc-prefect-artifacts" for thread in threading.enumerate()):
        assert time.monotonic() < deadline, "artifacts are still being sent"
        time.sleep(0.02)
