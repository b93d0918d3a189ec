"""What counts as an output that the job wrote: whatever is not exactly as it was before."""

from __future__ import annotations

import collections
import os
import subprocess

import pytest

from hpc_prefect.errors import LedgerError
from hpc_prefect.job.failure import Reason
from hpc_prefect.job.outputs import Written, written
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


@pytest.fixture
def many(rig):
    """A folder with more files than are looked at on the event loop."""
    (rig.work / "many").mkdir()
    for number in range(5001):
        (rig.work / "many" / f"{number:05}").touch()
    return rig


@pytest.mark.parametrize(
    ("program", "seen"),
    [
        ("exit 0", "it is as it was before the job"),
        ("touch many/x; rm many/x", "it is as it was before the job"),
        ("rm many/00000", "files in it were removed, and none was written"),
    ],
)
async def test_among_very_many_old_files_none_was_written(many, program, seen):
    spec = many.spec(program, expected_outputs=("many",))
    verdict = (await many.run(many.request(spec))).verdict
    assert verdict.reason is Reason.OUTPUT_LOST
    assert f"did not write many ({seen}" in verdict.summary


@pytest.mark.parametrize(
    "program", ["touch many/05000", "echo > many/~", "touch -d @1000000000 many/05000"]
)
async def test_the_last_of_very_many_files_was_written(many, program):
    spec = many.spec(program, expected_outputs=("many",))
    assert (await many.run(many.request(spec))).succeeded


def test_what_cannot_be_told_of_a_folder_is_no_output(many):
    """More files than are looked at, none of them new."""
    path = str(many.work / "many")
    before, now = (LocalTransport().stamp(path, most) for most in (4000, 5000))
    whether, words = written(before, now)
    assert whether is Written.UNSEEN
    assert "none of the 5,000 that were checked is new" in words


async def test_our_own_files_below_an_output_are_none_of_the_jobs(rig):
    verdict = (await rig.run(rig.request(rig.spec(expected_outputs=(".",))))).verdict
    assert verdict.reason is Reason.OUTPUT_LOST
    spec = rig.spec("echo > made", expected_outputs=(".",))
    assert (await rig.run(rig.request(spec, key="other"))).succeeded


@pytest.mark.parametrize(
    ("program", "seen"),
    [
        ("mkfifo out", "it is a FIFO, neither a file nor a folder"),
        ("ln -s /dev/null out", "it is a device, neither a file nor a folder"),
        ("ln old out; rm -f out; mkfifo fifo; ln -s fifo out", "it is a FIFO"),
    ],
)
async def test_an_output_is_a_file_or_a_folder(before, program, seen):
    spec = before.spec(program, expected_outputs=("out",))
    verdict = (await before.run(before.request(spec))).verdict
    assert verdict.reason is Reason.OUTPUT_LOST
    assert f"did not write out ({seen}" in verdict.summary


@pytest.mark.parametrize(
    ("program", "output"), [("ln old other", "old"), ("ln folder/deep/file other", "folder")]
)
async def test_a_further_hard_link_to_an_old_output_is_no_new_output(before, program, output):
    spec = before.spec(program, expected_outputs=(output,))
    verdict = (await before.run(before.request(spec))).verdict
    assert verdict.reason is Reason.OUTPUT_LOST
    assert "it is as it was before the job" in verdict.summary


@pytest.mark.parametrize(
    "program",
    [
        "cp -p ../twin old",  # another file of the same size and date over it
        "touch -d @1000000000 old",
        "printf old > old",
    ],
)
async def test_what_looks_as_before_was_written_when_something_was_done_to_it(before, program):
    (before.folder / "twin").write_text("new")
    os.utime(before.folder / "twin", OLD)
    spec = before.spec(program, expected_outputs=("old",))
    assert (await before.run(before.request(spec))).succeeded


MAKE = "mkdir -p out/sub; echo 1 > out/sub/a; echo 1 > out/b; ln -s b out/link; echo 1 > file"


@pytest.fixture
async def done(before):
    """A job that has left a folder and a file; `again()` is its result in a later run."""
    spec = before.spec(MAKE, expected_outputs=("out", "file"))
    assert (await before.run(before.request(spec))).succeeded
    before.again = lambda: before.run(before.request(spec))
    return before


def shell(rig, text):
    subprocess.run(["bash", "-ec", text], cwd=rig.work, check=True)


@pytest.mark.parametrize(
    "deed", ["rm out/sub/a", "rm -r out", "rm file", "rm out/link", "mv out/sub away"]
)
async def test_a_job_of_which_something_is_gone_runs_again(done, deed):
    shell(done, deed)
    result = await done.again()
    assert (result.succeeded, result.attempt, result.collected) == (True, 2, False)
    assert len(done.runs()) == 2


@pytest.mark.parametrize(
    ("deed", "named"),
    [
        ("echo forged > out/b", "out/b"),
        ("echo 2 > out/sub/a", "out/sub/a"),
        ("rm out/link; ln -s sub/a out/link", "out/link"),
        ("touch -r file when; echo 2 > file; touch -r when file", "file"),
        ("touch -r out/b when; echo 2 > other; mv other out/b; touch -r when out/b", "out/b"),
        ("rm file; mkdir file", "file"),
        ("rm file; mkfifo file", "file"),
    ],
)
async def test_what_was_altered_since_is_an_error_that_names_it(done, deed, named):
    shell(done, deed)
    with pytest.raises(LedgerError, match=rf"already ran .* but {named} has changed since"):
        await done.again()
    assert len(done.runs()) == 1


@pytest.mark.parametrize(
    "deed",
    [
        "echo of another > out/c; mkdir out/d; echo 1 > out/d/x",
        "cp -rp out copy; rm -r out; mv copy out; cp -p file copy; mv copy file",
        "tar cf t --format=ustar out file; rm -r out file; tar xf t",
        "touch file out/b; chmod 600 file; ln file more",
        "cp -r out copy; rm -r out; mv copy out",
    ],
)
async def test_what_others_add_and_what_was_restored_is_no_change(done, deed):
    shell(done, deed)
    result = await done.again()
    assert (result.succeeded, result.attempt, result.collected) == (True, 1, True)


async def test_old_files_in_the_folder_of_an_output_are_not_the_jobs(before):
    spec = before.spec("echo > folder/new", expected_outputs=("folder",))
    assert (await before.run(before.request(spec))).succeeded
    shell(before, "rm folder/deep/file")
    assert (await before.run(before.request(spec))).collected


async def test_a_folder_that_was_left_empty_is_still_asked_for(rig):
    spec = rig.spec("mkdir out", expected_outputs=("out",))
    await rig.run(rig.request(spec))
    assert (await rig.run(rig.request(spec))).collected
    (rig.work / "out").rmdir()
    assert (await rig.run(rig.request(spec))).attempt == 2


class Stats(LocalTransport):
    """Counts what is asked of outputs."""

    def __init__(self):
        super().__init__()
        self.asked = collections.Counter()

    def stamp(self, path, most):
        self.asked["stamp"] += 1
        return super().stamp(path, most)

    def left(self, path, since, most):
        self.asked["left"] += 1
        return super().left(path, since, most)

    def digest(self, path, name):
        self.asked["digest"] += 1
        return super().digest(path, name)


async def test_a_usual_output_is_looked_at_once_at_each_end_and_read_once(rig):
    transport = Stats()
    request = rig.request(rig.spec("echo > made", expected_outputs=("made",)))
    assert (await rig.run(request, rig.connection(transport=transport))).succeeded
    assert transport.asked == {"stamp": 2, "left": 1}
    assert (await rig.run(request, rig.connection(transport=transport))).collected
    assert transport.asked == {"stamp": 2, "left": 1}
