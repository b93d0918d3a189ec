"""Whether a plain script has come to its end: by running to its last line, and not otherwise.

Python tells its exit handlers nothing of `sys.exit("…")`, and `sys.last_type` may be of an error
long ago. But each frame of a module knows the last instruction that it ran, and that is the return
of the module only when its code came to its end.
"""

from __future__ import annotations

import dis
import sys
import threading
from types import FrameType

_main: list[FrameType] = []


def note_main() -> None:
    """Note the modules that the main thread runs now: the script, and what runs it."""
    frame = sys._current_frames().get(threading.main_thread().ident or 0)
    while frame is not None:
        # The outermost may be a function of `runpy`; what runs a script, such as a profiler or a
        # debugger, may catch its exit: the script has to have returned as well.
        wanted = frame.f_back is None or frame.f_code.co_name == "<module>"
        if wanted and not any(frame is each for each in _main):
            _main.append(frame)
        frame = frame.f_back


def came_to_its_end() -> bool:
    """Asked when the process ends: whether all that was noted returned.

    Never in an interactive session, where each line is a module and nobody knows which was last.
    """
    if sys.flags.inspect or hasattr(sys, "ps1"):
        return False
    from_script = any(frame.f_globals.get("__name__") == "__main__" for frame in _main)
    return from_script and all(map(_has_returned, _main))


def _has_returned(frame: FrameType) -> bool:
    name = dis.opname[frame.f_code.co_code[frame.f_lasti]]
    return name in ("RETURN_VALUE", "RETURN_CONST")
