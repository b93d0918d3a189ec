"""A script that ends by an error of ours shows its own lines and the sentence; all others, all."""

from __future__ import annotations

import logging
import subprocess
import sys
import traceback
from pathlib import Path

import pytest

from hpc_prefect import InvalidJob, run_job_sync
from hpc_prefect.flow_runs.sync import run_sync

PLAINLY = (
    "from hpc_prefect.flow_runs.uncaught import print_errors_plainly; print_errors_plainly()\n"
)
WRONG = "from hpc_prefect import run_job_sync\nrun_job_sync([], on='hpc-local')\n"


def said_by(folder: Path, text: str, *options: str) -> str:
    script = folder / "mine.py"
    script.write_text(text)
    done = subprocess.run(
        [sys.executable, *options, str(script)], capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 1
    return done.stderr


def test_the_traceback_of_a_sync_call_begins_at_the_call() -> None:
    with pytest.raises(InvalidJob) as caught:
        run_job_sync([], on="hpc-local")

    assert files_of(caught.value) == [Path(__file__).name, "single.py"]


def test_of_what_ran_on_the_executors_loop_no_frame_is_left() -> None:
    async def call() -> None:
        raise InvalidJob("job", ["it is wrong"])

    with pytest.raises(InvalidJob) as caught:
        run_sync(call)

    assert files_of(caught.value) == [Path(__file__).name]


def files_of(error: BaseException) -> list[str]:
    return [Path(each.filename).name for each in traceback.extract_tb(error.__traceback__)]


def test_the_script_s_own_lines_and_then_the_sentence(tmp_path: Path) -> None:
    said = said_by(tmp_path, PLAINLY + WRONG)

    assert [line for line in said.splitlines() if "File " in line] == [
        f'  File "{tmp_path}/mine.py", line 3, in <module>'
    ]
    assert "\n\nInvalidJob: job: 1 problem, nothing was submitted:\n  - command is []" in said


def test_an_error_that_is_not_ours_keeps_all_of_its_traceback(tmp_path: Path) -> None:
    said = said_by(tmp_path, PLAINLY + "import json\njson.loads('{')\n")

    assert said.startswith("Traceback (most recent call last):\n")
    assert "/json/decoder.py" in said


def test_so_does_one_of_ours_of_something_that_misbehaves(tmp_path: Path) -> None:
    raises = "from hpc_prefect.errors import LedgerError\nraise LedgerError('odd')\n"

    assert said_by(tmp_path, PLAINLY + raises).startswith("Traceback (most recent call last):\n")


def test_python_x_dev_shows_everything(tmp_path: Path) -> None:
    said = said_by(tmp_path, PLAINLY + WRONG, "-X", "dev", "-W", "ignore")

    assert "/hpc_prefect/batch/single.py" in said


def test_whoever_tells_errors_otherwise_goes_on_doing_so(tmp_path: Path) -> None:
    other = "import sys\nsys.excepthook = lambda *_: sys.stderr.write('mine')\n"

    assert said_by(tmp_path, other + PLAINLY + "raise ValueError\n") == "mine"


#: A flow whose job fails, or that has no job at all.
FLOW = """
import sys
from prefect import flow
from hpc_prefect import run_job_sync

@flow
def mine(what: str) -> None:
    run_job_sync({"mistake": [], "failure": ["/bin/false"]}[what], on="hpc-local", work_dir="work")

mine(sys.argv[1])
"""


@pytest.mark.usefixtures("prefect_server")
@pytest.mark.parametrize(
    ("what", "sentence"),
    [("mistake", "InvalidJob: job: 1 problem"), ("failure", "JobFailed: job false (")],
)
def test_prefect_s_log_of_a_flow_has_the_script_s_own_lines_too(
    what: str, sentence: str, tmp_path: Path
) -> None:
    script = tmp_path / "mine.py"
    script.write_text(FLOW)
    done = subprocess.run(
        [sys.executable, str(script), what],
        cwd=tmp_path, capture_output=True, text=True, timeout=240,
    )  # fmt: skip

    lines = done.stderr.splitlines()
    assert {line.strip() for line in lines if 'File "' in line} == {
        f'File "{script}", line 8, in mine',  # by Prefect's log, and at the end
        f'File "{script}", line 10, in <module>',
    }
    assert len([line for line in lines if line.startswith(sentence)]) == 2
    assert "NoneType: None" not in lines


def test_a_log_of_any_other_error_has_all_of_it(caplog: pytest.LogCaptureFixture) -> None:
    try:
        raise ValueError("theirs")
    except ValueError:
        logging.getLogger("prefect.flow_runs").exception("it failed")

    (record,) = caplog.records
    assert record.exc_info is not None
    assert "in test_a_log_of_any_other_error_has_all_of_it" in str(record.exc_text)
