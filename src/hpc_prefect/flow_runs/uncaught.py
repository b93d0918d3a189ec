"""Prints an uncaught error of ours as its message, below the script's own lines of the traceback.

Frames of Prefect, of Python and of this package say nothing to whom a mistake of their own is told.
So it is in Prefect's log of a flow or task that failed, too. Every other error keeps all of its
traceback, and so does each with `python -X dev`.
"""

from __future__ import annotations

import logging
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

    The traceback then ends at the user's call. If nobody does, it is
    told plainly.
    """
    if _says_it_all(error):
        error.__traceback__ = None
        print_errors_plainly()


def _says_it_all(error: BaseException | None) -> bool:
    return isinstance(error, HpcPrefectError) and error.says_it_all


def print_errors_plainly() -> None:
    """Print uncaught errors of this process in this way, unless another hook is installed."""
    if sys.excepthook is sys.__excepthook__ and not sys.flags.dev_mode:
        sys.excepthook = _print_error


def _print_error(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    if not _says_it_all(error):
        sys.__excepthook__(kind, error, trace)
        return
    sys.stderr.write(f"{_plain(error, trace)}\n")


def _plain(error: BaseException, trace: TracebackType | None) -> str:
    """The user's own lines, and below them the sentence."""
    own = [each for each in traceback.extract_tb(trace) if _is_of_the_user(each.filename)]
    lines = ["Traceback (your own lines; `python -X dev` shows all):\n"] if own else []
    lines += traceback.format_list(own)
    return "".join([*lines, f"\n{type(error).__name__}: {error}"])


def _is_of_the_user(filename: str) -> bool:
    return not filename.startswith(_FOREIGN)


def _log_plainly(record: logging.LogRecord) -> bool:
    """A filter that lets every record through, and gives those of such an error their text.

    A handler that makes a text of its own, such as one for JSON, has the whole error still.
    """
    error, trace = record.exc_info[1:] if record.exc_info else (None, None)
    if error is None:
        record.exc_info = None  # a state that a task returns is none: the text is `NoneType: None`
    elif _says_it_all(error) and not sys.flags.dev_mode:
        record.exc_text = _plain(error, trace)
    return True


#: Where Prefect logs what a flow, or a task, has raised: its documentation has their names, for
#: whoever configures logging.
for _name in ("prefect.flow_runs", "prefect.task_runs"):
    logging.getLogger(_name).addFilter(_log_plainly)
