"""Calls in pools and threads are in the experiment of their flow, or refused; so are typed ones."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from .. import warm
from ..flows.jobs import NAMES, runs
from ..flows.seen import PROGRAMS, states

pytestmark = pytest.mark.usefixtures("blocks")

FILE = PROGRAMS / "lost.py"


def said_by(what: str, work_dir: Path) -> str:
    words = [str(FILE), what, str(work_dir)]
    return warm.run(words, stdout=warm.PIPE, stderr=warm.STDOUT, timeout=300).stdout


@pytest.mark.timeout(600)
def test_a_pools_tasks_are_in_the_scopes_from_which_they_were_submitted(tmp_path: Path) -> None:
    for _ in range(2):  # the flow completed, so the second is a new instance
        said = said_by("scopes", tmp_path)
        assert states(said) == ["succeeded"] * 4, said
    assert runs(tmp_path) == ["x"] * 8


@pytest.mark.timeout(600)
def test_identical_tasks_of_a_pool_are_as_many_jobs_and_found_again(tmp_path: Path) -> None:
    for _ in range(2):
        said = said_by("identical", tmp_path)
        assert states(said) == ["succeeded"] * 4, said
        assert runs(tmp_path) == ["x"] * 4


@pytest.mark.timeout(600)
def test_a_run_that_goes_on_in_another_process_finds_its_pools_jobs(tmp_path: Path) -> None:
    said_by("paused and resumed", tmp_path)
    assert runs(tmp_path) == ["x"] * 4
    said = said_by("paused and resumed", tmp_path)
    assert states(said) == ["succeeded"] * 4, said
    assert runs(tmp_path) == ["x"] * 4


@pytest.mark.timeout(600)
@pytest.mark.parametrize("what", ["named outside", "named inside", "copied"])
def test_what_succeeded_in_a_named_campaign_is_found_again(what: str, tmp_path: Path) -> None:
    for _ in range(2):
        said = said_by(what, tmp_path)
        assert states(said) == ["succeeded"], said
    assert runs(tmp_path) == ["x"]
    [folder] = (tmp_path / ".hpc-prefect").iterdir()
    assert folder.name.startswith(what.removeprefix("named "))


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("what", "told"),
    [
        ("sub flow", "a task of a sub-flow, in which the outer flow is not known"),
        ("threads", "a thread without the context of flow run"),
        (
            "threads in a campaign",
            "without the context of the open campaigns and scopes ('script')",
        ),
        ("threads in a scope", "without the context of the open campaigns and scopes ('walker')"),
        ("processes", "in which the flow run and campaign are not known"),
    ],
)
def test_what_cannot_be_told_is_refused_with_what_to_do(
    what: str, told: str, tmp_path: Path
) -> None:
    said = " ".join(said_by(what, tmp_path).split())
    assert told in said, said
    assert runs(tmp_path) == []


@pytest.mark.parametrize(
    "what", ["threads of a script", "threads after a flow", "threads after a retried flow"]
)
def test_a_scripts_own_threads_are_in_its_experiment(what: str, tmp_path: Path) -> None:
    said = said_by(what, tmp_path)
    assert states(said) == ["succeeded"], said


# --- notebooks

CALL = f"""\
from hpc_prefect import campaign, run_job_from_blocks
async def call():
    found = await run_job_from_blocks(**{NAMES!r}, work_dir="WORK_DIR", script_filename="x",
        user_args=['echo "$1" >> runs', "sh", "x"])
    print("STATE", found.state)
"""
TWICE = """\
with campaign("typed"):
    await call()
    await call()
"""


def cells(work_dir: Path, *texts: str) -> str:
    """What IPython says to cells that it runs one after another, as a notebook's kernel does."""
    program = (
        "import sys\n"
        "from IPython.core.interactiveshell import InteractiveShell\n"
        "shell = InteractiveShell.instance()\n"
        "for text in sys.argv[1:]: shell.run_cell(text, store_history=True)\n"
    )
    call = CALL.replace("WORK_DIR", str(work_dir))
    words = ["-c", program, call, *texts]
    return warm.run(words, stdout=warm.PIPE, stderr=warm.STDOUT, timeout=300).stdout


@pytest.mark.timeout(600)
def test_a_cell_that_is_run_again_finds_its_jobs_and_a_new_session_too(tmp_path: Path) -> None:
    for _ in range(2):
        said = cells(tmp_path, TWICE, TWICE)
        assert said.count("STATE succeeded") == 4, said
        assert runs(tmp_path) == ["x", "x"]


def test_a_typed_call_without_a_name_is_refused(tmp_path: Path) -> None:
    said = " ".join(cells(tmp_path, "await call()").split())
    assert (
        "an interactive session has no script name by which a later one could find its work" in said
    )
    assert runs(tmp_path) == []


def test_completion_shows_the_public_names(tmp_path: Path) -> None:
    ask = (
        "from IPython.core.completer import provisionalcompleter\n"
        "with provisionalcompleter():\n"
        "    found = get_ipython().Completer.completions('hpc_prefect.run_', 16)\n"
        "    print('NAMES', *(each.text for each in found))"
    )
    said = cells(tmp_path, "import hpc_prefect", ask)
    assert {"run_job_from_blocks", "run_job_from_blocks_sync"} <= set(said.split())


_FIRST_CALL_IN_A_CONTEXT = """
import contextvars, importlib, sys
import hpc_prefect
assert "prefect" not in sys.modules
contextvars.copy_context().run(importlib.import_module, "hpc_prefect.flow_runs.lost")
from hpc_prefect.flow_runs.inherited import inherited
print(inherited.get())
"""


def test_a_program_whose_first_call_is_in_a_flow_is_no_plain_thread_after_it() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _FIRST_CALL_IN_A_CONTEXT], capture_output=True, text=True
    )
    assert done.stdout == "True\n", done.stderr
