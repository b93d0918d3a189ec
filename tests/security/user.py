"""What one user does on a shared machine: a job on the laptop's engine; prints how it ended.

    python user.py WORK_DIR PROGRAM [SIGNAL]

With SIGNAL it makes that file when the job's script is written, and goes on when SIGNAL.done is
there: the moment in which somebody else is at work.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

from hpc_prefect.errors import HpcPrefectError
from hpc_prefect.executor.request import JobRequest
from hpc_prefect.executor.service import executor
from hpc_prefect.job.spec import Executable, JobSpec, Resources, Site
from hpc_prefect.ledger.claim import this_process
from hpc_prefect.transports.local import LocalTransport


class Waiting(LocalTransport):
    def __init__(self, signal: str) -> None:
        self.signal = signal

    def write_atomic(self, path: str, data: bytes, *, mode: int = 0o600) -> None:
        super().write_atomic(path, data, mode=mode)
        if path.endswith("script.sh") and self.signal:
            Path(self.signal).touch()
            while not Path(f"{self.signal}.done").exists():
                time.sleep(0.01)


def main(work_dir: str, program: str, signal: str = "") -> dict[str, str]:
    transport = Waiting(signal)
    try:
        base = f"{transport.root(work_dir)}/campaign/ab/k"
        spool = f"{os.environ['HOME']}/spool"
        spec = JobSpec(
            name="job",
            command_name="command",
            executable=Executable(path=program),
            site=Site(scheduler="local", options={"slots": 2, "spool": spool, "kill_grace": 1.0}),
            resources=Resources(),
            work_dir=work_dir,
        )
        request = JobRequest(
            spec=spec,
            base=base,
            key="k",
            claimant=this_process(),
            poll_interval=0.5,
            max_jobs_in_queue=2,
        )
        result = executor(transport).start(request).result.result(timeout=200)
    except HpcPrefectError as error:
        return {"error": type(error).__name__, "said": str(error)}
    return {"state": result.state, "folder": result.folder, "job_id": result.job_id}


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))
