"""Whether a plain script ran to its last line.

Exit handlers cannot see a `sys.exit("…")`, and `sys.last_type` may be of an old error. But each
frame of a module has its last instruction, and that is the module's return only when its code ran
to its end.
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
        # The outermost frame may be a function of `runpy`. A profiler or debugger that runs a
        # script may catch its exit: so the script has to have returned as well.
        wanted = frame.f_back is None or frame.f_code.co_name == "<module>"
        if wanted and not any(frame is each for each in _main):
            _main.append(frame)
        frame = frame.f_back


def came_to_its_end() -> bool:
    """Whether all noted modules have returned; asked when the process ends.

    Never true in an interactive session, where each line is a module and none is known to be the
    last.
    """
    if sys.flags.inspect or hasattr(sys, "ps1"):
        return False
    from_script = any(frame.f_globals.get("__name__") == "__main__" for frame in _main)
    return from_script and all(map(_has_returned, _main))


def _has_returned(frame: FrameType) -> bool:
    name = dis.opname[frame.f_code.co_code[frame.f_lasti]]
    return name in ("RETURN_VALUE", "RETURN_CONST")
