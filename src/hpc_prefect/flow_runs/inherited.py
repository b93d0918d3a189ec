"""Whether a call is made in a context that comes from the program's own.

This is set when the package is imported, which is nearly always at a program's top. Importing what
it tells about only at the first call would set it in the context of that call's flow alone.
"""

from __future__ import annotations

from contextvars import ContextVar

#: True in the context that imported us and in all copies of it; a plain thread has no copy.
inherited: ContextVar[bool] = ContextVar("hpc_prefect_inherited", default=False)
inherited.set(True)
