"""What a worker's program is given, and what it gives Dask's."""

from __future__ import annotations

import logging
import pickle
import socket
import sys
import tempfile
from argparse import Namespace
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpc_prefect.task_runner.jobs import own_modules
from hpc_prefect.task_runner.runner import HPCTaskRunner, quiet
from hpc_prefect.task_runner.worker import (
    dask_arguments,
    forget_keys,
    own_scratch,
    rank_of,
    reach,
)

NAMES = {"execution_profile_block_name": "e", "hpc_profile_block_name": "h"}


def given_of(**changes: object) -> Namespace:
    plain = {
        "scheduler": "tls://10.0.0.1:8786",
        "name": "worker-3",
        "threads": 4,
        "memory": 0,
        "ranks": False,
        "lifetime": 0,
        "patience": 60,
    }
    return Namespace(**plain | changes)


def test_a_single_job_is_one_worker_of_its_own_name() -> None:
    arguments = dask_arguments(given_of(memory=2**30, lifetime=240), {})
    assert arguments[0] == "tls://10.0.0.1:8786"
    pairs = dict(pairwise(arguments))
    assert (pairs["--name"], pairs["--nthreads"]) == ("worker-3", "4")
    assert (pairs["--memory-limit"], pairs["--lifetime"]) == (str(2**30), "240s")


def test_a_worker_of_the_same_machine_is_heard_nowhere_else() -> None:
    here = dict(pairwise(dask_arguments(given_of(scheduler="tls://127.0.0.1:8786"), {})))
    assert here["--host"] == "127.0.0.1"
    elsewhere = dict(pairwise(dask_arguments(given_of(), {})))
    assert "--host" not in elsewhere
    assert here["--dashboard-address"] == elsewhere["--dashboard-address"] == "127.0.0.1:0"


def test_what_tasks_start_does_not_inherit_the_keys() -> None:
    keys = {"DASK_DISTRIBUTED__COMM__TLS__WORKER__KEY": "secret"}
    environment = {"PATH": "/bin", "DASK_LOGGING__DISTRIBUTED": "warning"}
    given = environment | keys
    forget_keys(given)
    assert given == environment


def test_files_of_dask_are_in_no_folder_that_another_user_could_have_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    usual = own_scratch()
    assert Path(usual).stat().st_mode & 0o077 == 0
    assert own_scratch() == usual  # where Dask then clears up
    Path(usual).chmod(0o777)
    assert own_scratch() != usual
    Path(usual).rmdir()
    Path(usual).symlink_to(tmp_path)
    assert own_scratch() != usual


def test_two_runs_at_once_give_dask_s_logger_back_its_level() -> None:
    logger = logging.getLogger("distributed")
    before = logger.level
    first, second = ExitStack(), ExitStack()
    first.enter_context(quiet())
    second.enter_context(quiet())
    first.close()
    assert logger.level == logging.WARNING
    second.close()
    assert logger.level == before


def test_workers_are_told_where_modules_are_that_their_python_does_not_know(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = ["", str(tmp_path / "gone"), f"{sys.prefix}/lib/python", f"{sys.base_prefix}/lib"]
    assert own_modules(path) == [str(tmp_path)]


def test_each_rank_of_an_mpi_job_is_a_worker_with_a_name_of_its_own() -> None:
    names = [dask_arguments(given_of(ranks=True), {"PMI_RANK": str(rank)})[2] for rank in range(3)]
    assert names == ["worker-3-0", "worker-3-1", "worker-3-2"]


def test_the_launcher_s_rank_counts_before_that_of_the_batch_script() -> None:
    assert rank_of({"SLURM_PROCID": "0", "OMPI_COMM_WORLD_RANK": "5"}) == "5"


def test_without_a_rank_the_worker_says_so_and_ends() -> None:
    with pytest.raises(SystemExit, match="this process does not know its rank"):
        dask_arguments(given_of(ranks=True), {"PMI_RANK": "x"})


def test_a_server_that_answers_is_no_reason_to_end() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        reach(f"http://127.0.0.1:{server.getsockname()[1]}/api")


def test_a_server_that_cannot_be_reached_is_told_with_what_to_do() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(SystemExit, match=r"cannot be reached from.*set PREFECT_API_URL"):
        reach(f"http://127.0.0.1:{port}/api")


@given(st.integers(-3, 3), st.integers(-3, 3))
def test_the_least_is_no_more_than_the_most(least: int, most: int) -> None:
    if 0 <= least <= most and most > 0:
        HPCTaskRunner(**NAMES, workers=(least, most))
    else:
        with pytest.raises(ValueError, match="workers is"):
            HPCTaskRunner(**NAMES, workers=(least, most))


def test_a_runner_is_duplicated_with_all_of_its_settings() -> None:
    runner = HPCTaskRunner(**NAMES, workers=3, idle_seconds=5, host="login1", work_dir="w")
    again = runner.duplicate()
    assert again is not runner
    assert again == runner
    assert pickle.loads(pickle.dumps(runner)) == runner
    assert again != HPCTaskRunner(**NAMES, workers=3)
    with pytest.raises(ValueError, match="idle_seconds"):
        HPCTaskRunner(**NAMES, idle_seconds=0)
