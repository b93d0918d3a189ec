"""What a flow does that submits and polls, and keeps what it knows in its memory.

    python naive.py FOLDER SUBMIT ACTIVE LABEL...      SUBMIT, ACTIVE: words of the two commands

Written as one writes it without thinking of a process that dies: submit each job, ask until it is
no longer listed, read its output.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path


def run(jobs: list[str], submit: list[str], active: list[str], folder: Path) -> list[str]:
    """Submit all, wait for all, return their outputs."""
    ids = {}
    for n, label in enumerate(jobs):
        script = folder / f"{n}.sh"
        script.write_text(f"#!/bin/bash\n{folder}/program {label} > {folder}/{n}.out\n")
        script.chmod(0o700)
        done = subprocess.run([*submit, str(script)], capture_output=True, text=True)
        ids[n] = done.stdout.split()[-1] if done.returncode == 0 else ""
    waiting = set(ids.values())
    while waiting:
        time.sleep(0.5)
        listed = subprocess.run(active, capture_output=True, text=True).stdout
        waiting = {job_id for job_id in waiting if job_id and job_id in listed}
    return [Path(folder, f"{n}.out").read_text() for n in ids]


if __name__ == "__main__":
    folder, submit, active = Path(sys.argv[1]), sys.argv[2].split(), sys.argv[3].split()
    print(json.dumps(run(sys.argv[4:], submit, active, folder)))
