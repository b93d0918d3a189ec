"""The process's executor: one thread for all callers, and one run for one job."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rig import Counting, Rig, Told, until

from hpc_prefect.executor.service import executor
from hpc_prefect.job.failure import Reason


def test_there_is_one_executor_for_all_threads():
    with ThreadPoolExecutor(8) as pool:
        assert len({id(one) for one in pool.map(lambda _: executor(), range(50))}) == 1


async def test_a_job_that_is_joined_runs_once(rig):
    request = rig.request(rig.spec("until [ -e go ]; do sleep 0.05; done"))
    first, second = executor().start(request), executor().start(request)
    (rig.work / "go").touch()
    results = [await asyncio.wrap_future(handle.result) for handle in (first, second)]
    assert results[0] == results[1]
    assert results[0].succeeded
    assert len(rig.runs()) == 1


def test_a_plain_thread_without_a_loop_may_wait_for_a_job(tmp_path):
    rig = Rig(tmp_path)
    result = executor().start(rig.request(rig.spec())).result.result(60)
    assert result.succeeded
    asyncio.run(rig.close())


async def test_a_caller_that_stops_waiting_does_not_stop_the_job(rig):
    gate, told = rig.folder / "gate", Told()
    spec = rig.spec(f"until [ -e {gate} ]; do sleep 0.05; done")
    request = rig.request(spec, listener=told)
    impatient, patient = executor().start(request), executor().start(request)
    await until(lambda: "running" in str(told.states), "the job's start")
    impatient.result.cancel()
    gate.touch()
    assert (await asyncio.wrap_future(patient.result)).succeeded


async def test_a_cancellation_right_after_the_start_is_not_lost(rig):
    for n in range(10):
        handle = executor().start(rig.request(rig.spec("sleep 600"), f"k{n}"))
        handle.cancel()
        result = await asyncio.wrap_future(handle.result)
        assert result.verdict.reason is Reason.CANCELLED
    assert rig.active() == []


async def test_a_cancellation_after_the_end_changes_nothing(rig):
    handle = executor().start(rig.request(rig.spec()))
    assert (await asyncio.wrap_future(handle.result)).succeeded
    handle.cancel()
    again = executor().start(rig.request(rig.spec()))
    assert (await asyncio.wrap_future(again.result)).collected


async def test_many_callers_in_many_threads_share_one_thread(rig):
    def call(n):
        handle = executor().start(rig.request(spec, f"k{n}"))
        return handle.result.result(60)

    def threads():
        return [t for t in threading.enumerate() if t.name == "hpc-prefect-executor"]

    spec = rig.spec("exit 0")
    executor()
    before = threads()  # executors of other tests have theirs
    with ThreadPoolExecutor(8) as pool:
        loop = asyncio.get_running_loop()
        results = await asyncio.gather(*(loop.run_in_executor(pool, call, n) for n in range(8)))
    assert all(result.succeeded for result in results)
    assert before
    assert set(threads()) <= set(before)


FORKING = """
import os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from rig import Rig
from hpc_prefect.executor.service import executor

rig = Rig(Path(sys.argv[2]))
spec = rig.spec("sleep 0.3")
of_parent = executor()
handle = of_parent.start(rig.request(spec, "parent"))
child = os.fork()
if child == 0:
    fine = executor() is not of_parent
    fine = fine and executor().start(rig.request(spec, "child")).result.result(60).succeeded
    os._exit(0 if fine else 1)
fine = executor() is of_parent and handle.result.result(60).succeeded
_, status = os.waitpid(child, 0)
sys.exit(0 if fine and status == 0 else 1)
"""


async def test_a_forked_child_has_an_executor_of_its_own(rig):
    here = Path(__file__).parent
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", FORKING, str(here), str(rig.folder)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert len(rig.runs()) == 2


LEAVING = """
import sys, threading
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from rig import Rig, Told
from hpc_prefect.executor.service import executor

rig, seen = Rig(Path(sys.argv[2])), threading.Event()
told = Told(lambda text: "running" in text and seen.set())
executor().start(rig.request(rig.spec(sys.argv[3]), listener=told))
assert seen.wait(60)
"""


def test_the_executor_keeps_no_process_from_ending(tmp_path):
    """A script that ends while a job waits leaves it to the next run: the thread is a daemon."""
    here, text = str(Path(__file__).parent), "until [ -e go ]; do sleep 0.05; done"
    done = subprocess.run(
        [sys.executable, "-c", LEAVING, here, str(tmp_path), text],
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | {"PYTHONWARNINGS": ""},
    )
    assert (done.returncode, done.stderr) == (0, "")
    rig = Rig(tmp_path)
    (rig.work / "go").touch()
    transport = Counting()
    result = asyncio.run(rig.run(rig.request(rig.spec(text)), rig.connection(None, transport)))
    assert result.succeeded
    assert "submit" not in transport.verbs()
    assert len(rig.runs()) == 1
    asyncio.run(rig.close())
