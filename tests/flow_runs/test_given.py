"""Parameters that a flow or task changes before its first call tell no experiment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from prefect import flow, task

from hpc_prefect import ONCE, campaign
from hpc_prefect.errors import InvalidJob, JobFailed

from ..flows.jobs import job_sync, runs

pytestmark = pytest.mark.usefixtures("blocks")


def test_a_flow_that_empties_its_list_before_its_first_call_is_refused(tmp_path: Path) -> None:
    @flow
    def outer(work_dir: str, points: list[int]) -> None:
        points.pop(0)
        job_sync(work_dir, "x")

    with pytest.raises(InvalidJob, match="parameter 'points' of the run around it was changed"):
        outer(str(tmp_path), [1, 9])
    assert runs(tmp_path) == []


def test_a_flow_that_changes_its_list_after_its_first_call_is_found_again(tmp_path: Path) -> None:
    @flow
    def outer(work_dir: str, points: list[int], names: dict[str, set[int]]) -> None:
        while points:
            job_sync(work_dir, f"p{points[0]}")
            points.pop(0)

    (tmp_path / "fail-p9").touch()
    with pytest.raises(JobFailed):
        outer(str(tmp_path), [1, 9], {"a": {3, 1, 2}})
    outer(str(tmp_path), [1, 9], {"a": {2, 1, 3}})
    assert runs(tmp_path) == ["p1", "p9", "p9"]


@pytest.mark.parametrize("how", [{}, {"persist_result": False}])
def test_a_task_that_changes_its_input_before_its_call_is_refused(
    tmp_path: Path, how: dict[str, Any]
) -> None:
    @task(**how)
    def relax(work_dir: str, cfg: dict[str, int]) -> None:
        cfg["started"] = 1
        job_sync(work_dir, "x")

    @flow
    def outer(work_dir: str) -> None:
        with campaign("mine"):
            relax(work_dir, {"x": 1})

    with pytest.raises(InvalidJob, match="parameter 'cfg' of the run around it was changed"):
        outer(str(tmp_path))
    assert runs(tmp_path) == []


@pytest.mark.parametrize("how", [{}, {"cache_policy": ONCE}])
def test_a_task_that_leaves_its_inputs_as_they_are_is_found_again(
    tmp_path: Path, how: dict[str, Any]
) -> None:
    @task(**how)
    def relax(work_dir: str, cfg: dict[str, Any], fail: bool) -> None:
        job_sync(work_dir, "x")
        if fail:
            raise ValueError

    @flow
    def outer(work_dir: str) -> None:
        with campaign("mine"):
            relax.submit(work_dir, {"x": [1, {2, 3}]}, False).result()

    outer(str(tmp_path))
    outer(str(tmp_path))
    assert runs(tmp_path) == ["x"]
