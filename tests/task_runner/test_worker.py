"""What a worker's program is given, and what it gives Dask's."""

from __future__ import annotations

import socket
from argparse import Namespace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpc_prefect.task_runner.runner import HPCTaskRunner
from hpc_prefect.task_runner.worker import dask_arguments, rank_of, reach

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
        "local_directory": "",
    }
    return Namespace(**plain | changes)


def test_a_single_job_is_one_worker_of_its_own_name() -> None:
    arguments = dask_arguments(given_of(memory=2**30, lifetime=240), {})
    assert arguments[0] == "tls://10.0.0.1:8786"
    pairs = dict(pairwise(arguments))
    assert (pairs["--name"], pairs["--nthreads"]) == ("worker-3", "4")
    assert (pairs["--memory-limit"], pairs["--lifetime"]) == (str(2**30), "240s")


def test_each_rank_of_an_mpi_job_is_a_worker_with_a_name_of_its_own() -> None:
    names = [dask_arguments(given_of(ranks=True), {"PMI_RANK": str(rank)})[2] for rank in range(3)]
    assert names == ["worker-3-0", "worker-3-1", "worker-3-2"]


def test_the_launcher_s_rank_counts_before_that_of_the_batch_script() -> None:
    assert rank_of({"SLURM_PROCID": "0", "OMPI_COMM_WORLD_RANK": "5"}) == "5"


def test_without_a_rank_the_worker_says_so_and_ends() -> None:
    with pytest.raises(SystemExit, match="no launcher has told this process its rank"):
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
    assert again != HPCTaskRunner(**NAMES, workers=3)
    with pytest.raises(ValueError, match="idle_seconds"):
        HPCTaskRunner(**NAMES, idle_seconds=0)
