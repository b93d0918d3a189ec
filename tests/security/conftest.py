"""Two users of one machine, each with a home, and a folder that both can write in."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ..apart import MALLORY, SHARED, VICTIM, People

USER = Path(__file__).with_name("user.py")


class Machine:
    """A shared machine.

    Attributes:
        work: a work_dir that everybody can write in, as groups have them.
    """

    def __init__(self, folder: Path, people: People) -> None:
        self.folder = folder
        self._people = people
        self.work = self.make("work", VICTIM, 0o2777)
        for uid in (VICTIM, MALLORY):
            self.make(f"home-{uid}", uid, 0o700)

    def make(self, name: str, uid: int, mode: int) -> Path:
        """A folder of a user's."""
        path = self.folder / name
        path.mkdir()
        os.chown(path, uid, SHARED)
        path.chmod(mode)
        return path

    def home(self, uid: int) -> Path:
        return self.folder / f"home-{uid}"

    def program(self) -> Path:
        """Notes by whom it is run."""
        path = self.folder / "program"
        path.write_text(f"#!/bin/sh\nid -u >> {self.folder}/runs\n")
        path.chmod(0o755)
        (self.folder / "runs").touch()
        (self.folder / "runs").chmod(0o666)
        return path

    def runs(self) -> list[int]:
        return [int(line) for line in (self.folder / "runs").read_text().split()]

    def environment(self, uid: int, **more: str) -> dict[str, str]:
        kept = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "PYTHONDONTWRITEBYTECODE": "1"}
        return {**kept, "HOME": str(self.home(uid)), **more}

    def begin(
        self, *words: object, uid: int = VICTIM, umask: int = 0o022, **more: str
    ) -> subprocess.Popen[str]:
        """A command of a user's."""
        return subprocess.Popen(
            self._people.argv(uid, *map(str, words)),
            umask=umask,
            cwd="/",
            env=self.environment(uid, **more),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *words: object, uid: int = VICTIM, umask: int = 0o022, **more: str) -> str:
        """What it prints; nothing may hang it."""
        with self.begin(*words, uid=uid, umask=umask, **more) as process:
            try:
                out, err = process.communicate(timeout=240)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
        assert process.returncode == 0, err
        return out

    def shell(self, text: str, uid: int = MALLORY, umask: int = 0) -> str:
        return self.run("/bin/sh", "-ec", text, uid=uid, umask=umask)

    def python(self, text: str, *words: object, uid: int = VICTIM) -> Any:
        """What a program of a user's prints as JSON."""
        return json.loads(self.run(sys.executable, "-c", text, *words, uid=uid))

    def job(self, uid: int = VICTIM, **options: Any) -> dict[str, str]:
        """The user's job in the shared work_dir."""
        words = (sys.executable, USER, self.work, self.program())
        found: dict[str, str] = json.loads(self.run(*words, uid=uid, **options))
        return found


@pytest.fixture(scope="session")
def people(tmp_path_factory: pytest.TempPathFactory) -> People:
    return People(tmp_path_factory.mktemp("stage"))


@pytest.fixture
def machine(people: People) -> Iterator[Machine]:
    folder = Path(tempfile.mkdtemp(prefix="hpc-prefect-people-", dir="/tmp"))
    folder.chmod(0o755)
    try:
        yield Machine(folder, people)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
