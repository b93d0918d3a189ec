"""Prints an uncaught error of ours as its message, below the script's own lines of the traceback.

Frames of Prefect, of Python and of this package do not help a user with a mistake of their own.
Other errors keep their whole traceback, and so do all with `python -X dev`.
"""

from __future__ import annotations

import os
import sys
import sysconfig
import traceback
from types import TracebackType

from hpc_prefect.errors import HpcPrefectError

_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
#: Folders of code that is not the user's.
_FOREIGN = tuple(
    {
        os.path.join(place, "")
        for name in ("stdlib", "platstdlib", "purelib", "platlib")
        if (place := sysconfig.get_path(name))
    }
    | {os.path.join(_PACKAGE, ""), "<"}
)


def forget_frames(error: BaseException) -> None:
    """At the end of a call: drop our own frames, if the error's message says it all.

    The traceback then ends at the user's call.
    """
    if _says_it_all(error):
        error.__traceback__ = None


def _says_it_all(error: BaseException) -> bool:
    return isinstance(error, HpcPrefectError) and error.says_it_all


def tell_errors_plainly() -> None:
    """Print uncaught errors of this process in this way, unless another hook is installed."""
    if sys.excepthook is sys.__excepthook__ and not sys.flags.dev_mode:
        sys.excepthook = _tell


def _tell(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if not _says_it_all(error):
        sys.__excepthook__(kind, error, trace)
        return
    own = [each for each in traceback.extract_tb(trace) if _is_of_the_user(each.filename)]
    lines = ["Traceback (your own lines; `python -X dev` shows all):\n"] if own else []
    lines += traceback.format_list(own)
    sys.stderr.write("".join([*lines, f"\n{kind.__name__}: {error}\n"]))


def _is_of_the_user(filename: str) -> bool:
    return not filename.startswith(_FOREIGN)
