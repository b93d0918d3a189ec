"""The page of a failed job."""

from __future__ import annotations

from hpc_prefect.batch.report import page_key
from hpc_prefect.job.failure import Reason, Verdict
from hpc_prefect.job.result import JobResult


def result(name: str = "job", reason: Reason = Reason.SUCCEEDED, **more: object) -> JobResult:
    values: dict[str, object] = {
        "job_id": "1",
        "name": name,
        "tag": "abcdefghijk",
        "key": "k",
        "attempt": 1,
        "verdict": Verdict(reason=reason, summary="as it is"),
        "folder": name,
        "script_path": "",
        "stdout_path": "",
        "stderr_path": "",
    }
    return JobResult(**values | more)  # type: ignore[arg-type]


def test_a_page_is_titled_by_its_job_where_prefect_takes_its_letters() -> None:
    assert page_key(result("Diag N2")) == "failed-diag-n2-abcdef"
    assert page_key(result("温度")) == "failed-abcdefghijk"
