"""Interactive sessions: who types has no script by whose name a later session finds its work."""

from __future__ import annotations

import sys


def is_interactive() -> bool:
    """Whether the lines of this process are typed: in a notebook, in IPython, in Python itself."""
    return hasattr(sys, "ps1") or cell() > 0


def cell() -> int:
    """The number of the notebook's or IPython's cell that runs now; 0 where there are none."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return 0 if shell is None else int(shell.execution_count)
