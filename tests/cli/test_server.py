"""`hpc-prefect server`: found again, and used by Prefect only when that was asked for."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from hpc_prefect.server import Server

COMMAND = "import sys; from hpc_prefect.cli import main; sys.exit(main())"


class Person:
    """Somebody with a Prefect home of their own, for whom the session's server was started."""

    def __init__(self, home: Path, server: Server) -> None:
        self.home = home
        (home / "server.json").write_text((server.home / "server.json").read_text())
        plain = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")}
        self.environ = plain | {"HOME": str(home), "PREFECT_HOME": str(home / ".prefect")}

    def python(self, program: str, *words: str, **environ: str) -> str:
        done = subprocess.run(
            [sys.executable, "-c", program, *words],
            env=self.environ | environ,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def server(self, action: str, *words: str, **environ: str) -> str:
        command = ("server", action, "--home", str(self.home), *words)
        return self.python(COMMAND, *command, **environ)

    @property
    def profiles(self) -> dict[str, Any]:
        file = self.home / ".prefect" / "profiles.toml"
        return tomllib.loads(file.read_text()) if file.exists() else {}


@pytest.fixture
def person(tmp_path: Path, prefect_server: Server) -> Person:
    return Person(tmp_path, prefect_server)


def test_nothing_of_the_users_prefect_changes_unless_it_is_asked_for(
    person: Person, prefect_server: Server
) -> None:
    export = f"  use it in a shell:  export PREFECT_API_URL={prefect_server.url}\n"
    assert export in person.server("start")
    assert export in person.server("status")
    assert person.profiles == {}


def test_with_use_it_is_the_one_of_every_shell(person: Person, prefect_server: Server) -> None:
    started = person.server("start", "--use")
    assert (
        "active profile is now 'hpc-prefect'; to go back: prefect profile use ephemeral" in started
    )
    assert person.profiles == {
        "active": "hpc-prefect",
        "profiles": {"hpc-prefect": {"PREFECT_API_URL": prefect_server.url}},
    }
    assert "in use:             by Prefect's profile 'hpc-prefect'" in person.server("status")
    said = person.python(
        "from prefect.settings import get_current_settings; print(get_current_settings().api.url)"
    )
    assert said == f"{prefect_server.url}\n"
    other = {"PREFECT_API_URL": "http://127.0.0.1:9/api"}
    assert f"export PREFECT_API_URL={prefect_server.url}" in person.server("status", **other)


@pytest.mark.parametrize(("named", "follows"), [(20001, True), (20003, False)])
def test_the_profile_follows_its_server_to_another_port_and_no_other_one(
    person: Person, named: int, follows: bool
) -> None:
    old, new = (f"http://127.0.0.1:{port}/api" for port in (20001, 20002))
    before = {"PREFECT_API_URL": f"http://127.0.0.1:{named}/api", "PREFECT_LOGGING_LEVEL": "INFO"}
    lines = "".join(f'{name} = "{value}"\n' for name, value in before.items())
    (person.home / ".prefect").mkdir()
    (person.home / ".prefect" / "profiles.toml").write_text(
        f'active = "mine"\n[profiles.hpc-prefect]\n{lines}[profiles.mine]\n'
    )
    person.python(f"from hpc_prefect.cli.server import _follow; _follow({old!r}, {new!r})")
    wanted = before | ({"PREFECT_API_URL": new} if follows else {})
    assert person.profiles["profiles"]["hpc-prefect"] == wanted
    assert person.profiles["active"] == "mine"
