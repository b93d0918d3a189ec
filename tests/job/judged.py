"""What the one judge is asked in tests: a job of a minute, its records and its scheduler's word."""

from __future__ import annotations

from typing import Any

from hpc_prefect.job.failure import Reason, Verdict
from hpc_prefect.job.folder import ExitRecord, StartRecord
from hpc_prefect.job.state import Evidence, JobState, Observation, Patience, decide

PATIENCE = Patience()
START = StartRecord(token="t1", id="7.a", time=1000.0)


def record(code: int = 0, **fields: Any) -> ExitRecord:
    return ExitRecord(**{"token": "t1", "code": code, "time": 1010.0} | fields)


def seen(state: JobState = JobState.ENDED, **fields: Any) -> Observation:
    return Observation(**{"id": "7.a", "state": state, "word": "W"} | fields)


def judge(
    *exits: ExitRecord, starts: tuple[StartRecord, ...] = (START,), **facts: Any
) -> Verdict | None:
    given = {"job_id": "7.a", "walltime": 60, "executable": "/opt/diag"} | facts
    return decide(Evidence(starts=starts, exits=exits, **given), PATIENCE)


def reason(*exits: ExitRecord, **facts: Any) -> Reason | None:
    verdict = judge(*exits, **facts)
    return verdict.reason if verdict else None
