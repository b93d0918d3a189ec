"""What counts as an output that the job wrote: whatever is not exactly as it was before."""

from __future__ import annotations

import os
import shutil

import pytest

from hpc_prefect.executor.ledger import JobFolder
from hpc_prefect.job.failure import Reason
from hpc_prefect.transports.local import LocalTransport

OLD = (1_000_000_000, 1_000_000_000)


@pytest.fixture
def before(rig):
    """A file and a folder with a file, all of long ago."""
    (rig.work / "old").write_text("old")
    (rig.work / "folder" / "deep").mkdir(parents=True)
    (rig.work / "folder" / "deep" / "file").write_text("old")
    for path in ("old", "folder/deep/file", "folder/deep", "folder"):
        os.utime(rig.work / path, OLD)
    return rig


@pytest.mark.parametrize(
    ("program", "output"),
    [
        ("cp -p old out", "out"),
        ("ln -s old out", "out"),
        ("ln old out", "out"),
        ("mkdir out", "out"),
        ("touch -d @1000000000 out", "out"),
        ("echo more > folder/deep/file", "folder"),
        ("echo more >> old; touch -d @1000000000 old", "old"),
        ("mv folder elsewhere; cp -rp elsewhere folder", "folder"),
        ("touch folder/new; touch -d @1000000000 folder/new folder", "folder"),
        ("rm old; ln -s folder old", "old"),
        ('echo > "$HOME/out-of-home"', "~/out-of-home"),
    ],
)
async def test_whatever_was_changed_was_written_however_old_it_looks(
    before, monkeypatch, program, output
):
    monkeypatch.setenv("HOME", str(before.folder))
    spec = before.spec(program, expected_outputs=(output,))
    assert (await before.run(before.request(spec))).succeeded


@pytest.mark.parametrize("output", ["old", "folder", "link"])
async def test_what_is_as_it_was_was_not_written_and_it_is_said_what_is_seen(before, output):
    (before.work / "link").symlink_to("old")
    spec = before.spec("cat old folder/deep/file > /dev/null", expected_outputs=(output,))
    verdict = (await before.run(before.request(spec))).verdict
    assert verdict.reason is Reason.OUTPUT_LOST
    assert f"did not write {output} (it is as it was before the job" in verdict.summary
    assert "last changed 2" in verdict.summary


@pytest.mark.parametrize("program", ["true", "ln -s nothing out", "ln -s out out", "mkfifo x"])
async def test_what_is_not_there_was_not_written(rig, program):
    verdict = (await rig.run(rig.request(rig.spec(program, expected_outputs=("out",))))).verdict
    assert verdict.reason is Reason.OUTPUT_LOST
    assert "did not write out (it is not there)" in verdict.summary


async def test_an_attempt_may_write_into_the_results_of_the_one_before(rig):
    program = "mkdir -p out; echo more >> out/log; [ -e tried ] || { touch tried; exit 3; }"
    request = rig.request(rig.spec(program, expected_outputs=("out",)))
    assert (await rig.run(request)).exit_code == 3
    result = await rig.run(request)
    assert (result.succeeded, result.attempt) == (True, 2)


async def test_a_run_that_takes_a_job_over_knows_what_was_there_before_it(before):
    gate = before.folder / "gate"
    spec = before.spec(f"until [ -e {gate} ]; do sleep 0.05; done", expected_outputs=("old",))
    request = before.request(spec)
    await before.abandon(request)
    gate.touch()
    assert (await before.run(request)).verdict.reason is Reason.OUTPUT_LOST


def test_a_folder_is_looked_through_only_so_far(tmp_path):
    """What cannot be told is not told as missing."""
    many = tmp_path / "many"
    many.mkdir()
    for number in range(5001):
        (many / str(number)).touch()
    stamp = LocalTransport().stamp(str(many))
    assert stamp is not None
    assert stamp[1] == 1
    shutil.rmtree(many)
    assert JobFolder(LocalTransport(), str(tmp_path)).transport.stamp(str(many)) is None
