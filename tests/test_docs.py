"""README and docs are true: their code runs, their tables are those of the code."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import hpc_prefect
from hpc_prefect.block_files.document import read_document
from hpc_prefect.blocks import (
    Call,
    CommandBlock,
    ExecutionProfileBlock,
    PBSOptions,
    PJMOptions,
    SlurmOptions,
    resolve,
)
from hpc_prefect.cli import _parser
from hpc_prefect.job.failure import ADVICE, Reason
from hpc_prefect.operations.status import STATES
from hpc_prefect.schedulers import scheduler_for
from hpc_prefect.server import Server

ROOT = Path(__file__).parents[1]
COMMANDS = ROOT / "docs" / "commands.md"
RECORDS = ROOT / "docs" / "records.md"
JOBS = ROOT / "docs" / "jobs.md"
README = ROOT / "README.md"
START = ROOT / "docs" / "start.md"
PBS = ROOT / "docs" / "pbs.md"
PJM = ROOT / "docs" / "pjm.md"
SLURM = ROOT / "docs" / "slurm.md"


def code(path: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", path.read_text(), re.DOTALL | re.MULTILINE)


def test_the_commands_on_the_page_about_jobs_are_understood() -> None:
    shown = re.findall(r"^    hpc-prefect ([^#\n]*)", COMMANDS.read_text(), re.MULTILINE)
    assert len(shown) == 7
    for command in shown:
        assert _parser().parse_args(command.split()).run


def test_the_states_on_the_page_about_jobs_are_those_of_the_code() -> None:
    first_column = re.findall(r"^\| (`.*?) \|", COMMANDS.read_text(), re.MULTILINE)
    told = {state for cell in first_column for state in re.findall(r"`([a-z ]+)`", cell)}
    assert told == set(STATES)


def test_the_python_on_the_page_about_jobs_runs(tmp_path: Path) -> None:
    (text,) = code(COMMANDS, "python")
    program = f"{text}\ntry:\n    give_up('diag')\nexcept Exception as error:\n    print(error)\n"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert done.stdout.startswith("no job 'diag' below"), done.stderr


def reasons() -> str:
    rows = [
        f"| {reason} | {'yes' if ADVICE[reason].retryable else 'no'} | {ADVICE[reason].remedy} |"
        for reason in Reason
    ]
    return "\n".join(rows)


#: As a notebook runs a cell: a loop runs already, and `await` is allowed.
NOTEBOOK = """
import ast, asyncio, sys
async def cell():
    text = sys.stdin.read()
    running = eval(compile(text, "cell", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT), {})
    if running is not None:
        await running
asyncio.run(cell())
"""
SCRIPT = "import sys; exec(sys.stdin.read(), {})"


def awaited(text: str) -> str:
    """With the call that README names for async flows and notebooks."""
    changed = text.replace("= run_job_sync(", "= await run_job(")
    return changed.replace("run_job_sync", "run_job")


@pytest.mark.parametrize(
    ("shell", "form"),
    [(SCRIPT, str), (NOTEBOOK, str), (NOTEBOOK, awaited)],
    ids=["script", "notebook", "notebook-await"],
)
def test_the_readmes_ten_lines_run_and_assert_their_answer(
    prefect_server: Server, tmp_path: Path, shell: str, form: Callable[[str], str]
) -> None:
    """A queue of the test's own, in a home that is empty, in a process of its own."""
    program = code(README, "python")[0]
    done = subprocess.run(
        [sys.executable, "-W", "always", "-c", shell],
        input=form(program),
        cwd=tmp_path,
        env=os.environ
        | {"HOME": str(tmp_path), "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "warn"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "never awaited" not in done.stderr
    assert "UserWarning" not in done.stderr


def test_the_first_result_takes_the_lines_that_are_counted_and_they_run(
    prefect_server: Server, tmp_path: Path
) -> None:
    program = code(START, "python")[0]
    lines = [line for line in program.splitlines() if line.strip()]
    assert f"| HPC-Prefect, the program above | {len(lines) + 1} |" in START.read_text()
    assert len(lines) + 1 <= 7
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path, env=os.environ | {"HOME": str(tmp_path)},
        capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.stdout == "hello\n\n", done.stderr


async def test_the_larger_job_of_the_page_to_start_with_is_understood(tmp_path: Path) -> None:
    """All that is wrong with it here is that none of its files are there."""
    text = code(START, "python")[1].replace("hpc-miyabi", "hpc-local").replace("./work", "work")
    scope: dict[str, Any] = {"run_job": hpc_prefect.run_job}
    body = "\n".join(f"    {line}" for line in text.splitlines())
    exec(f"async def example():\n{body}", scope)
    with pytest.raises(hpc_prefect.InvalidJob) as refused:
        await scope["example"]()
    allowed = ("executable ", "input ", "4 nodes × 32 cores", "32 ranks")
    assert all(each.startswith(allowed) for each in refused.value.problems), refused.value


def test_the_commands_of_the_page_to_start_with_are_taken() -> None:
    parser = _parser()
    commands = [
        shlex.split(line.partition("#")[0].partition(">")[0].partition("&&")[0])
        for line in START.read_text().splitlines()
        if _is_command(line)
    ]
    assert len(commands) == 5
    for words in commands:
        parser.parse_args(words[1:])


def test_the_readmes_install_line_has_what_its_loop_needs() -> None:
    (extras,) = re.findall(r"pip install -c constraints.txt '\.\[([a-z,]+)\]'", README.read_text())
    assert {"quantum", "plot"} <= set(extras.split(","))


def test_completion_offers_the_public_names_before_they_are_loaded() -> None:
    program = "import hpc_prefect; print(*dir(hpc_prefect))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    offered = [name for name in done.stdout.split() if not name.startswith("_")]
    assert offered == sorted(hpc_prefect.__all__)


def test_the_blocks_in_the_docs_can_be_applied() -> None:
    (text,) = code(JOBS, "toml")
    assert len(read_document(text, here="/x", venv="/v", environ={}).items) == 3


def test_the_profiles_of_the_page_on_pbs_can_be_applied() -> None:
    for text in code(PBS, "toml"):
        (item,) = read_document(text, here="/x", venv="/v", environ={}).items
        assert item.value.scheduler == "pbs"


def options_table(path: Path) -> list[str]:
    """The first column of the table in the section on options."""
    options = path.read_text().partition("## Options")[2].partition("\n## ")[0]
    return re.findall(r"^\| `(\w+)` \|", options, re.MULTILINE)


def test_the_page_on_pbs_has_every_option() -> None:
    assert options_table(PBS) == list(PBSOptions.model_fields)


def test_the_profiles_of_the_page_on_pjm_can_be_applied_and_submitted() -> None:
    node = {"num_nodes": 2, "ranks_per_node": 4, "threads_per_rank": 12, "memory_per_node": "28G"}
    gpu = {"resource_class": "gpu", "gpus_per_node": 1, "threads_per_rank": 10}
    for text, shape in zip(code(PJM, "toml"), (node | {"launch": "mpi"}, gpu, gpu), strict=True):
        (item,) = read_document(text, here="/x", venv="/v", environ={}).items
        how = ExecutionProfileBlock(profile_name="diag", command_name="diag", **shape)
        what = CommandBlock(command_name="diag", executable_key="diag")
        call = Call(script_filename="diag", work_dir="/vol0004/data/hp000000/me")
        spec, secrets = resolve(what, how, item.value, call, machine_cores=8)
        assert (scheduler_for("pjm").problems(spec), secrets) == ([], {})


def test_the_page_on_pjm_has_every_option() -> None:
    assert options_table(PJM) == list(PJMOptions.model_fields)


def test_the_profile_of_the_page_on_slurm_can_be_applied_and_submitted() -> None:
    text = code(SLURM, "toml")[0]
    (item,) = read_document(text, here="/x", venv="/v", environ={}).items
    for side in ("cpu", "gpu"):
        shape = {"resource_class": side, "launch": "mpi", "memory_per_node": "4G"}
        how = ExecutionProfileBlock(profile_name="diag", command_name="diag", **shape)
        what = CommandBlock(command_name="diag", executable_key="diag")
        call = Call(script_filename="diag", work_dir="/w")
        spec, secrets = resolve(what, how, item.value, call, machine_cores=8)
        assert (scheduler_for("slurm").problems(spec), secrets) == ([], {})


def test_the_profiles_with_a_qpu_can_be_applied_and_submitted() -> None:
    how = ExecutionProfileBlock(profile_name="diag", command_name="diag")
    what = CommandBlock(command_name="diag", executable_key="diag")
    call = Call(script_filename="diag", work_dir="/w")
    found = []
    for text in code(SLURM, "toml")[1:]:
        (item,) = read_document(text, here="/x", venv="/v", environ={"MY_IBM_TOKEN": "key"}).items
        spec, secrets = resolve(what, how, item.value, call, machine_cores=8)
        found.append((spec.site.options.get("qpu"), len(spec.site.environment), secrets))
    key = "ibm_torino_QRMI_IBM_QCS_IAM_APIKEY"
    assert found == [(["ibm_torino"], 0, {}), (None, 6, {key: "key"})]


def test_the_page_on_slurm_has_every_option() -> None:
    assert options_table(SLURM) == list(SlurmOptions.model_fields)


def test_the_page_on_jobs_shows_a_policy_that_can_be_made() -> None:
    (text,) = code(JOBS, "python")
    shown: dict[str, object] = {}
    exec(text, shown)
    assert isinstance(shown["again"], hpc_prefect.RetryPolicy)


def test_the_table_of_reasons_is_that_of_the_code() -> None:
    """Written anew by `HPC_PREFECT_WRITE_DOCS=1 pytest tests/test_docs.py`."""
    begin, end = "<!-- reasons: generated by tests/test_docs.py -->\n", "<!-- /reasons -->"
    text = JOBS.read_text()
    before, _, rest = text.partition(begin)
    table, _, after = rest.partition(end)
    wanted = f"{reasons()}\n"
    if os.environ.get("HPC_PREFECT_WRITE_DOCS"):
        JOBS.write_text(f"{before}{begin}{wanted}{end}{after}")
    else:
        assert table == wanted


def test_the_code_of_the_page_on_runs_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))  # no other test's runs
    namespace: dict[str, Any] = {}
    for program in code(RECORDS, "python"):
        exec(program, namespace)
    assert namespace["best"]("a-flow-that-nobody-has") == ""
    assert callable(namespace["report"])


def test_the_commands_of_the_page_on_runs_are_taken() -> None:
    parser = _parser()
    lines = [line.partition("#")[0] for line in RECORDS.read_text().splitlines()]
    commands = [shlex.split(line) for line in filter(_is_command, lines)]
    assert len(commands) > 8
    for words in commands:
        parser.parse_args(words[1:])


def _is_command(line: str) -> bool:
    return line.startswith("    hpc-prefect ")


def test_the_public_names_are_these() -> None:
    assert len(hpc_prefect.__all__) <= 40
    for name in hpc_prefect.__all__:
        value = getattr(hpc_prefect, name)
        assert getattr(value, "__name__", name).rpartition(".")[2] == name


def test_the_job_model_imports_without_prefect() -> None:
    program = (
        "import sys; sys.modules['prefect'] = None\n"
        "import hpc_prefect.job.state, hpc_prefect.job.script, hpc_prefect.schedulers\n"
        "import hpc_prefect.executor.service\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)
