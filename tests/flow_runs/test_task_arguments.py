"""No setting of Prefect's decides how often a task of ours is run, or what is kept of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

SETTINGS = {
    "PREFECT_TASKS_DEFAULT_RETRIES": "2",
    "PREFECT_TASKS_DEFAULT_RETRY_DELAY_SECONDS": "1",
    "PREFECT_TASKS_DEFAULT_PERSIST_RESULT": "true",
    "PREFECT_TASKS_REFRESH_CACHE": "true",
    "PREFECT_TASKS_DEFAULT_NO_CACHE": "true",
    "PREFECT_RESULTS_PERSIST_BY_DEFAULT": "true",
    "PREFECT_LOGGING_LOG_PRINTS": "true",
}
ARGUMENTS = (
    *("retries", "retry_delay_seconds", "persist_result", "refresh_cache", "log_prints"),
    *("tags", "timeout_seconds", "result_storage", "result_storage_key", "cache_policy"),
)
#: Imports every module of the package, and prints the arguments of every task in it.
PROGRAM = f"""
import importlib, json, pkgutil
from prefect import Task, Flow
import hpc_prefect

found, flows = {{}}, []
for module in pkgutil.walk_packages(hpc_prefect.__path__, "hpc_prefect."):
    if "rehearsal" in module.name or module.name.endswith("__main__"):
        continue
    try:
        here = importlib.import_module(module.name)
    except ImportError:
        continue
    for each in vars(here).values():
        if isinstance(each, Task):
            policy = type(each.cache_policy).__name__
            found[each.name] = {{
                name: getattr(each, name) for name in {ARGUMENTS[:-1]!r}
            }} | {{"tags": sorted(each.tags), "cache_policy": policy}}
        elif isinstance(each, Flow):
            flows.append(each.name)
tasks = importlib.import_module("hpc_prefect.batch.task")
again = tasks._job_task.with_options(retries=3)
found["hpc-job with retries"] = {{"retries": again.retries, "delay": again.retry_delay_seconds,
    "persist": again.persist_result, "refresh": again.refresh_cache}}
print(json.dumps([found, flows]))
"""


def tasks_with(**settings: str) -> list[object]:
    plain = {name: text for name, text in os.environ.items() if name not in SETTINGS}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=plain | settings, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    found: list[object] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.fixture(scope="module")
def plain() -> list[object]:
    return tasks_with()


def test_every_task_is_found(plain: list[object]) -> None:
    found = plain[0]
    assert isinstance(found, dict)
    assert found.keys() >= {"hpc-job", "sample", "estimate", "submit", "fetch", "transpile"}


def test_no_flow_is_ours_whose_retries_a_setting_could_fill(plain: list[object]) -> None:
    assert plain[1] == []


def test_their_arguments_are_the_same_under_any_settings(plain: list[object]) -> None:
    assert tasks_with(**SETTINGS) == plain
