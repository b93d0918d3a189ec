"""Interactive sessions, which have no script name by which a later session could find its work."""

from __future__ import annotations

import sys


def is_interactive() -> bool:
    """Whether this process is interactive: a notebook, IPython or Python's own prompt."""
    return hasattr(sys, "ps1") or cell() > 0


def cell() -> int:
    """The number of the notebook's or IPython's cell that runs now; 0 where there are none."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return 0 if shell is None else int(shell.execution_count)
