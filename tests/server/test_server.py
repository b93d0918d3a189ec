"""The project's own Prefect server, with a real one wherever one is meant."""

from __future__ import annotations

import json
import os
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from hpc_prefect import server as server_module
from hpc_prefect.server import (
    Server,
    ServerError,
    check_combination,
    ensure_server,
    environment,
    find_server,
    free_port,
    last_url,
    problem_with,
    stop_server,
)

START_AND_PRINT = """
import sys
from hpc_prefect.server import ensure_server
server = ensure_server(sys.argv[1])
print(server.pid, server.started, server.url)
"""

FLOW = """
from prefect import flow, task

@task
def double(x):
    return 2 * x

@flow(name="five-tasks")
def five_tasks():
    return sum(double(x) for x in range(5))

assert five_tasks() == 20
"""


def _plain_environment() -> dict[str, str]:
    """The environment of a user who has no Prefect settings at all."""
    return {k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")}


def _ensure_in_a_process(home: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", START_AND_PRINT, str(home)],
        env={**_plain_environment(), "PREFECT_HOME": str(home / "unused")},
        stdout=subprocess.PIPE,
        text=True,
    )


def _gone(pid: str) -> bool:
    """No such process, or a zombie that init has not reaped yet (in a container, perhaps never)."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True
    return stat.rpartition(") ")[2].startswith("Z")


def _record(home: Path) -> dict[str, object]:
    return json.loads((home / "server.json").read_text())


@pytest.fixture
def home(tmp_path: Path, prefect_server: Server) -> Iterator[Path]:
    """A home of its own whose database exists already: a start takes 8 s instead of 20."""
    home = tmp_path / "home"
    home.mkdir()
    with sqlite3.connect(prefect_server.home / "prefect.db") as database:
        database.execute("VACUUM INTO ?", (str(home / "prefect.db"),))
    database.close()
    yield home
    stop_server(home)


@pytest.fixture
def copied_record(prefect_server: Server, tmp_path: Path) -> Path:
    """A home whose record is that of the session's living server."""
    (tmp_path / "server.json").write_text(json.dumps(_record(prefect_server.home)))
    return tmp_path


def test_a_started_server_answers_and_is_found(prefect_server: Server) -> None:
    assert prefect_server.pid is not None
    assert find_server(prefect_server.home) == replace(prefect_server, started=False)


def test_ensuring_again_gives_the_same_process(prefect_server: Server) -> None:
    again = ensure_server(prefect_server.home)
    assert (again.pid, again.url, again.started) == (
        prefect_server.pid,
        prefect_server.url,
        False,
    )


def test_the_server_listens_on_the_loopback_only(prefect_server: Server) -> None:
    port = f"{int(prefect_server.ui_url.rsplit(':', 1)[1]):04X}"
    listening = [
        fields[1].split(":")[0]
        for table in ("tcp", "tcp6")
        for fields in map(str.split, Path(f"/proc/net/{table}").read_text().splitlines()[1:])
        if fields[3] == "0A" and fields[1].endswith(f":{port}")
    ]
    assert listening == ["0100007F"]


def test_the_server_is_in_a_session_of_its_own_and_nobodys_child(prefect_server: Server) -> None:
    assert prefect_server.pid is not None
    stat = Path(f"/proc/{prefect_server.pid}/stat").read_text().rpartition(") ")[2].split()
    parent, session = int(stat[1]), int(stat[3])
    assert parent != os.getpid()
    assert session != os.getsid(0)


def test_all_task_runs_of_a_flow_are_there_when_its_process_has_ended(
    prefect_server: Server,
) -> None:
    """A throw-away server would have lost most of them."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowFilter
    from prefect.client.schemas.sorting import FlowRunSort

    from ..flows.seen import task_runs

    done = subprocess.run(
        [sys.executable, "-c", FLOW],
        env={**_plain_environment(), **environment(prefect_server)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    five_tasks = FlowFilter.model_validate({"name": {"any_": ["five-tasks"]}})
    with get_client(sync_client=True) as client:
        flow_runs = client.read_flow_runs(
            flow_filter=five_tasks, sort=FlowRunSort.ID_DESC, limit=10
        )
    assert [run.state_name for run in flow_runs] == ["Completed"]
    # The server has been told, and may still be writing.
    found = task_runs(flow_runs[0].id, count=5)
    assert [run.state_name for run in found] == ["Completed"] * 5


def test_two_processes_at_once_get_one_server_that_outlives_both_until_it_is_stopped(
    home: Path,
) -> None:
    callers = [_ensure_in_a_process(home) for _ in range(2)]
    said = [caller.communicate()[0].split() for caller in callers]
    (pid, _, url), (other_pid, _, other_url) = said

    assert (pid, url) == (other_pid, other_url)
    assert sorted(started for _, started, _ in said) == ["False", "True"]
    assert (alive := find_server(home)) is not None
    assert alive.pid == int(pid)
    assert stop_server(home) is True
    assert find_server(home) is None
    assert _gone(pid)
    assert stop_server(home) is False
    assert last_url(home) == url, "the next start takes the same port"


def test_where_a_stopped_server_ran_does_not_matter(tmp_path: Path) -> None:
    (tmp_path / "server.json").write_text(json.dumps({"who": "", "host": "gone", "port": 20001}))
    assert find_server(tmp_path) is None
    assert stop_server(tmp_path) is False
    assert last_url(tmp_path) == "http://127.0.0.1:20001/api"


def test_the_users_own_server_comes_first(prefect_server: Server, tmp_path: Path) -> None:
    found = ensure_server(tmp_path / "home")  # PREFECT_API_URL names the session's server
    assert found == Server(
        prefect_server.url, prefect_server.ui_url, None, False, tmp_path / "home"
    )
    assert not (tmp_path / "home").exists()
    assert "PREFECT_HOME" not in environment(found)


def test_children_use_this_server_and_never_a_throw_away_one(prefect_server: Server) -> None:
    variables = environment(prefect_server)
    assert variables["PREFECT_API_URL"] == prefect_server.url
    assert variables["PREFECT_HOME"] == str(prefect_server.home)
    assert variables["PREFECT_SERVER_EPHEMERAL_ENABLED"] == "false"


def test_a_proxy_is_not_asked_for_the_loopback() -> None:
    proxied = server_module._without_proxy({"HTTP_PROXY": "http://p:1", "no_proxy": "a.org"})
    assert proxied["no_proxy"] == proxied["NO_PROXY"] == "a.org,127.0.0.1,localhost"
    assert server_module._without_proxy({}) == {}


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", '{"who": 1}', '{"who": "a b c"}', "\x00\xff"]
)
def test_a_record_that_makes_no_sense_is_no_server(tmp_path: Path, text: str) -> None:
    (tmp_path / "server.json").write_text(text)
    assert find_server(tmp_path) is None
    assert stop_server(tmp_path) is False


def test_a_dead_pid_is_no_server(copied_record: Path) -> None:
    with subprocess.Popen(["true"]) as gone:
        pass
    _change_record(copied_record, pid=str(gone.pid))
    assert find_server(copied_record) is None
    assert stop_server(copied_record) is False


def test_a_recycled_pid_is_no_server_and_its_new_owner_is_left_alone(
    copied_record: Path, prefect_server: Server
) -> None:
    _change_record(copied_record, start="1")
    assert find_server(copied_record) is None
    assert stop_server(copied_record) is False
    assert find_server(prefect_server.home) is not None


def test_a_server_from_before_the_reboot_is_no_server(copied_record: Path) -> None:
    _change_record(copied_record, boot_id="another")
    assert find_server(copied_record) is None
    assert stop_server(copied_record) is False


def test_a_server_of_another_machine_is_neither_doubled_nor_stopped(copied_record: Path) -> None:
    _change_record(copied_record, boot_id="another", host="login2")
    with pytest.raises(ServerError, match="was started on login2"):
        stop_server(copied_record)
    with pytest.raises(ServerError, match=r"remove .*server\.json"), _no_users_server():
        ensure_server(copied_record)


def test_a_server_that_ends_early_shows_the_end_of_its_log(tmp_path: Path) -> None:
    with socket.socket() as taken, _no_users_server():
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ServerError) as caught:
            ensure_server(tmp_path, port=port)
    message = str(caught.value)
    assert "ended while it was starting" in message
    assert f"Port {port} is already in use" in message
    assert "choose another" in message
    assert not (tmp_path / "server.json").exists()


def test_a_server_that_does_not_answer_in_time_is_not_left_behind(tmp_path: Path) -> None:
    said: list[str] = []
    with _no_users_server(), pytest.raises(ServerError, match="did not answer in time") as caught:
        ensure_server(tmp_path, timeout_seconds=0, progress=said.append)
    pid = str(caught.value).partition("(pid ")[2].partition(",")[0]
    assert _gone(pid)
    assert said[0].startswith("Starting a Prefect server on 127.0.0.1:")


def test_a_free_port_is_the_preferred_one_unless_that_is_taken() -> None:
    port = free_port()
    assert free_port(port) == port
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port))
        taken.listen()
        assert free_port(port) != port


@pytest.mark.parametrize(
    ("prefect", "fastapi"),
    [("3.8.8", "0.155.0"), ("3.8.8", "0.165.0"), ("3.6.22", "0.155.0"), ("3.8.8+local", "1.0.0")],
)
def test_a_combination_whose_server_does_not_start_is_told_with_the_way_out(
    prefect: str, fastapi: str
) -> None:
    problem = problem_with({"prefect": prefect, "fastapi": fastapi})
    assert problem is not None
    assert problem.is_fatal
    assert f"Prefect {prefect} and FastAPI {fastapi} cannot work together" in problem.text
    assert "does not start" in problem.text
    assert "pip install -c constraints.txt hpc-prefect" in problem.text


@pytest.mark.parametrize("fastapi", ["0.151.0", "0.152.0", "0.154.0"])
def test_a_combination_whose_own_commands_are_refused_is_told_and_may_run(fastapi: str) -> None:
    problem = problem_with({"prefect": "3.8.8", "fastapi": fastapi})
    assert problem is not None
    assert not problem.is_fatal
    assert "refuses `flow.deploy()` and `prefect work-pool ls`" in problem.text
    assert "pip install 'fastapi<0.151'" in problem.text


@pytest.mark.parametrize(
    "versions",
    [
        {"prefect": "3.8.8", "fastapi": "0.150.0"},
        {"prefect": "3.8.8", "fastapi": "0.139.0"},
        {"prefect": "3.9.0", "fastapi": "0.150.0"},
        {"prefect": "3.9.0rc1", "fastapi": "0.165.0"},
        {"prefect": "4.0", "fastapi": "0.165.0"},
        {"prefect": "unknown", "fastapi": "0.165.0"},
        {"prefect": "3.8.8"},
        {},
    ],
)
def test_a_combination_that_works_or_is_not_known_is_no_problem(versions: dict[str, str]) -> None:
    assert problem_with(versions) is None


def test_the_installed_combination_works() -> None:
    said: list[str] = []
    check_combination(said.append)
    assert said == []


LISTS = ("work-pool", "deployment", "flow-run", "block")
DEPLOY = """
from prefect import flow

@flow
def small():
    return 1

if __name__ == "__main__":
    small.from_source(source=".", entrypoint="small.py:small").deploy(
        name="small", work_pool_name=POOL, build=False, push=False
    )
"""


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_commands_that_users_type_are_answered(prefect_server: Server, tmp_path: Path) -> None:
    pool = f"pool-{os.getpid()}"
    (tmp_path / "small.py").write_text(DEPLOY.replace("POOL", repr(pool)))
    prefect = [sys.executable, "-m", "prefect"]

    answers = [
        _typed(tmp_path, *prefect, "work-pool", "create", "--type", "process", pool),
        _typed(tmp_path, sys.executable, "small.py"),
        *(_typed(tmp_path, *prefect, kind, "ls") for kind in LISTS),
    ]

    assert [status for status, _ in answers] == [0] * len(answers), answers
    for _, text in answers[2:4]:  # the lists of work pools and of deployments
        assert pool in text


def _typed(folder: Path, *command: str) -> tuple[int, str]:
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "COLUMNS": "200"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    return done.returncode, done.stdout


def _change_record(
    home: Path, *, boot_id: str = "", pid: str = "", start: str = "", host: str = ""
) -> None:
    record = _record(home)
    old = str(record["who"]).split()
    record["who"] = " ".join([boot_id or old[0], pid or old[1], start or old[2], *old[3:]])
    record["host"] = host or record["host"]
    (home / "server.json").write_text(json.dumps(record))


def _no_users_server():
    from prefect.settings import PREFECT_API_URL, temporary_settings

    return temporary_settings(restore_defaults={PREFECT_API_URL})
