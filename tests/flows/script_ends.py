"""A plain script with one job, and an end: python script_ends.py WORK_DIR HOW"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from jobs import job_sync

work_dir, how = sys.argv[1:]


def main() -> None:
    with suppress(ZeroDivisionError):
        1 / 0  # noqa: B018 - what was handled does not count
    job_sync(work_dir, "x")
    if how == "sys.exit":
        sys.exit("input for step 2 is missing")
    elif how == "SystemExit":
        raise SystemExit(3)
    elif how == "os._exit":
        os._exit(0)
    elif how == "error":
        raise ValueError("no")


main()
