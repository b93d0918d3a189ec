"""`hpc-prefect init`: projects that run at once, and once."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from hpc_prefect import templates
from hpc_prefect.block_files.document import read_document
from hpc_prefect.cli import main
from hpc_prefect.cli.init import _TEMPLATES
from hpc_prefect.server import Server

from .. import warm

SETTINGS = ("PREFECT_API_URL", "PREFECT_HOME", "PREFECT_PROFILES_PATH")


class Project:
    """One that `init` wrote, of somebody with a queue and blocks of their own."""

    def __init__(self, folder: Path, template: str) -> None:
        own = uuid.uuid4().hex[:8]
        self.folder, self.home = folder / f"Project {own}", folder
        assert main(["init", str(self.folder), "--template", template]) == 0
        for file in self.folder.iterdir():  # the session's server has an hpc-local of other tests
            file.write_text(file.read_text().replace("hpc-local", f"hpc-local-{own}"))

    def run(self, *words: str) -> str:
        """What `python flow.py` printed, both streams; with a home that is empty at first."""
        done = warm.run(
            [str(self.folder / "flow.py"), *words],
            cwd=self.home, env=os.environ | {"HOME": str(self.home), "XDG_STATE_HOME": ""},
            stdout=warm.PIPE, stderr=warm.STDOUT, timeout=280,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout
        return str(done.stdout)

    def starts(self) -> int:
        """How often programs of its jobs were started."""
        work = self.folder / "work"
        lone = sum(len(file.read_text().splitlines()) for file in work.rglob("start"))
        members = sum(file.read_text().count('"boot"') for file in work.rglob("m/*/*.record"))
        return lone + members

    def samplings(self) -> int:
        return len(list((self.folder / "work").rglob("result.npz")))


@pytest.mark.parametrize(("template", "jobs"), [("bitcount", 1), ("sweep", 16)])
@pytest.mark.timeout(900)
@pytest.mark.usefixtures("prefect_server")
def test_a_project_runs_at_once_and_a_second_time_collects(
    tmp_path: Path, template: str, jobs: int
) -> None:
    project = Project(tmp_path, template)
    first = project.run()
    started = project.starts()
    second = project.run()
    assert "stored from" in first
    assert "stored from" not in second
    assert started >= jobs
    assert project.starts() == started
    results = [
        re.findall(r"^[0-9.]+ +[0-9.]+(?: .*)?$", said, re.MULTILINE) for said in (first, second)
    ]
    assert results[0] == results[1] != []


@pytest.mark.timeout(900)
@pytest.mark.usefixtures("prefect_server")
def test_the_loop_of_vqe_converges_once(tmp_path: Path) -> None:
    project = Project(tmp_path, "vqe")
    first = project.run()
    sampled = project.samplings()
    second = project.run()
    energy, exact = re.findall(r"-2\.\d+", first.splitlines()[-1])
    assert float(exact) <= float(energy) + 0.02 < float(exact) + 0.1
    assert "converged (tolerance)" in first
    assert sampled > 3
    assert project.samplings() == sampled
    assert first.splitlines()[-1] in second


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.usefixtures("prefect_server")
def test_the_loop_of_sqd_comes_near_to_the_exact_energy_once(tmp_path: Path) -> None:
    project = Project(tmp_path, "sqd")
    first = project.run()
    sampled, started = project.samplings(), project.starts()
    second = project.run()
    errors = [float(each) for each in re.findall(r"error_mha=([\d.]+)", first)]
    # A step may lose a little, since each samples its own subspace.
    assert errors[-1] < min(5, errors[0])
    assert (sampled, started) == (len(errors), len(errors))
    assert (project.samplings(), project.starts()) == (sampled, started)
    assert first.splitlines()[-1] == second.splitlines()[-1]


def test_init_replaces_nothing_and_names_all_that_is_in_the_way(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "flow.py").write_text("mine")
    (tmp_path / ".gitignore").symlink_to("nowhere")
    assert main(["init", str(tmp_path)]) == 1
    assert "has flow.py, .gitignore already" in capsys.readouterr().err
    assert (tmp_path / "flow.py").read_text() == "mine"
    assert sorted(each.name for each in tmp_path.iterdir()) == [".gitignore", "flow.py"]


def test_init_in_a_place_that_is_no_folder_is_told_in_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    assert main(["init", str(tmp_path / "file")]) == 1
    assert "file" in capsys.readouterr().err


def test_without_mpi_the_program_is_one_process_and_that_is_said(tmp_path: Path) -> None:
    (tmp_path / "mpi4py").mkdir()
    (tmp_path / "mpi4py" / "__init__.py").write_text("raise ImportError('not installed')")
    done = subprocess.run(
        [shutil.which("hpc-prefect", path=str(Path(sys.executable).parent)) or "", "init", "p"],
        cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    assert "no MPI was found for this Python" in done.stdout
    text = (tmp_path / "p" / "blocks.toml").read_text()
    items = read_document(text, here="/h", venv="/v", environ={}).items
    (shape,) = (item.value for item in items if item.kind == "execution-profile")
    assert (shape.launch, shape.ranks_per_node) == ("single", 1)


@pytest.mark.parametrize("name", templates.template_names())
def test_each_template_has_what_a_project_needs(name: str) -> None:
    files = templates.template_files(name, with_mpi=True)
    assert {"flow.py", "blocks.toml", "README.md", ".gitignore"} <= set(files)
    document = read_document(files["blocks.toml"], here="/h", venv="/v", environ={})
    assert not document.warnings
    assert not document.foreign_commands


def test_the_command_names_every_template() -> None:
    assert list(_TEMPLATES) == templates.template_names()


def test_templates_share_one_profile_of_this_machine() -> None:
    """Two projects of one user store into the same `hpc-local`, and neither may be refused."""
    profiles = set()
    for name in templates.template_names():
        text = templates.template_files(name, with_mpi=True)["blocks.toml"]
        for item in read_document(text, here="/h", venv="/v", environ={}).items:
            if item.kind == "hpc-profile":
                profiles.add(item.value.model_copy(update={"executables": {}}).model_dump_json())
    assert len(profiles) == 1


# --- ensure_ready


def in_a_home(
    home: Path, program: str, server: Server | None, **environ: str
) -> subprocess.CompletedProcess[str]:
    """A program of somebody who configured nothing, and whose own server is the session's."""
    plain = {key: text for key, text in os.environ.items() if not key.startswith("PREFECT_")}
    if server is not None:
        folder = home / "state" / "hpc-prefect" / "server"
        folder.mkdir(parents=True)
        shutil.copy(server.home / "server.json", folder)
    return subprocess.run(
        [sys.executable, "-c", program],
        env=plain | {"HOME": str(home), "XDG_STATE_HOME": str(home / "state")} | environ,
        cwd=home, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip


ASKS = (
    "from hpc_prefect import ensure_ready; ensure_ready()\n"
    "import os, threading; from prefect.settings import get_current_settings as settings\n"
    "of_a_thread = []\n"
    "asks = threading.Thread(target=lambda: of_a_thread.append(settings().api.url))\n"
    "asks.start(); asks.join()\n"
    "print(*of_a_thread)\n"
    "print(os.environ['PREFECT_API_URL'], settings().home)\n"
)


def test_without_a_configured_server_your_own_is_used_and_that_is_said(
    prefect_server: Server, tmp_path: Path
) -> None:
    done = in_a_home(tmp_path, ASKS, prefect_server)
    assert done.returncode == 0, done.stderr
    words = done.stdout.split()
    assert words.count(prefect_server.url) == 2
    assert str(tmp_path / ".prefect") in words  # where results are, as with a server that is named
    assert f"Prefect is at {prefect_server.ui_url}" in done.stderr


def test_a_configured_server_that_does_not_answer_is_told_and_no_other_one_is_started(
    tmp_path: Path,
) -> None:
    (tmp_path / "blocks.toml").write_text("[variable.a]\nvalue = 1\n")
    program = (
        "from hpc_prefect import ensure_ready\n"
        "from hpc_prefect.errors import ConfigurationError\n"
        "try: ensure_ready('blocks.toml')\n"
        "except ConfigurationError as error: print(error)\n"
    )
    done = in_a_home(tmp_path, program, None, PREFECT_API_URL="http://127.0.0.1:9/api")
    assert "http://127.0.0.1:9/api does not answer" in done.stdout
    assert not (tmp_path / "state").exists()


def test_commands_use_your_own_server_too(prefect_server: Server, tmp_path: Path) -> None:
    program = "import sys; from hpc_prefect.cli import main; sys.exit(main(['blocks', 'list']))"
    done = in_a_home(tmp_path, program, prefect_server)
    assert done.returncode == 0, done.stderr


@pytest.mark.usefixtures("prefect_server")
def test_what_others_changed_stays_and_what_the_file_changed_is_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from prefect.variables import Variable

    from hpc_prefect import ensure_ready

    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    name = f"v_{uuid.uuid4().hex[:8]}"
    file = tmp_path / "blocks.toml"

    def ready(value: int) -> tuple[object, str]:
        file.write_text(f"[variable.{name}]\nvalue = {value}\n")
        ensure_ready(file)
        return Variable.get(name, _sync=True), capsys.readouterr().err

    assert ready(1)[0] == {"value": 1}
    value, said = ready(2)
    assert (value, f"stored from {file}: {name}" in said) == ({"value": 2}, True)
    Variable.set(name, {"value": 7}, overwrite=True, _sync=True)
    value, said = ready(2)
    assert (value, f"{name}: the stored blocks differ from" in said) == ({"value": 7}, True)


@pytest.mark.usefixtures("prefect_server")
async def test_a_notebook_whose_loop_runs_already_is_made_ready_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prefect.variables import Variable

    from hpc_prefect import ensure_ready

    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    name = f"v_{uuid.uuid4().hex[:8]}"
    (tmp_path / "blocks.toml").write_text(f"[variable.{name}]\nvalue = 1\n")
    ensure_ready(tmp_path / "blocks.toml")
    assert await Variable.aget(name) == {"value": 1}


def test_what_is_to_be_installed_for_a_template_is_told_before_it_is_to_be_run(
    tmp_path: Path,
) -> None:
    program = (
        "import importlib.util as util, sys; find = util.find_spec\n"
        "util.find_spec = lambda name, *more: None if name in ('pyscf', 'mpi4py') else find(name)\n"
        "from hpc_prefect.cli import main; sys.exit(main(['init', 'p', '--template', 'sqd']))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path, capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    assert done.stdout.splitlines()[1:] == [
        "template sqd needs pyscf, mpi4py, which are not installed here;"
        " run: pip install 'hpc-prefect[sqd,mpi]'",
        "then run it: cd p && python flow.py",
    ]
    assert 'launch = "mpi"' in (tmp_path / "p" / "blocks.toml").read_text()


@pytest.mark.usefixtures("prefect_server")
def test_another_projects_blocks_are_not_used_by_accident(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hpc_prefect import ensure_ready
    from hpc_prefect.errors import ConfigurationError

    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    name = f"v_{uuid.uuid4().hex[:8]}"
    for value in (1, 2):
        (tmp_path / f"{value}.toml").write_text(f"[variable.{name}]\nvalue = {value}\n")
    ensure_ready(tmp_path / "1.toml")
    with pytest.raises(ConfigurationError, match=r"made by .*1\.toml"):
        ensure_ready(tmp_path / "2.toml")


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("N2 / cc-pVDZ", "cc-pvdz"),
        ("My Project_2", "my-project-2"),
        ("__", "vqe"),
        ("é" * 90, "vqe"),
    ],
)
def test_blocks_are_called_by_the_projects_folder(folder: str, name: str, tmp_path: Path) -> None:
    assert templates.project_name(tmp_path / folder, "vqe") == name
