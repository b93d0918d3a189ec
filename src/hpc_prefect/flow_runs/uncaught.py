"""A script that ends by an error of ours: the sentence stands last, and only the script's own lines
stand above it.

Frames of Prefect, of Python and of this package say nothing to whom a mistake of their own is told.
Every other error keeps all of its traceback, and so does each with `python -X dev`.
"""

from __future__ import annotations

import os
import sys
import sysconfig
import traceback
from types import TracebackType

from hpc_prefect.errors import HpcPrefectError

_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
#: Where code lies that is not the user's.
_FOREIGN = tuple(
    {
        os.path.join(place, "")
        for name in ("stdlib", "platstdlib", "purelib", "platlib")
        if (place := sysconfig.get_path(name))
    }
    | {os.path.join(_PACKAGE, ""), "<"}
)


def forget_frames(error: BaseException) -> None:
    """At the end of a call: drop the frames of ours, where the error's message says it all.

    Whoever catches the error then sees the call, and above it their own code.
    """
    if _says_it_all(error):
        error.__traceback__ = None


def _says_it_all(error: BaseException) -> bool:
    return isinstance(error, HpcPrefectError) and error.says_it_all


def tell_errors_plainly() -> None:
    """Have the uncaught errors of this process told so, unless somebody else tells them."""
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
