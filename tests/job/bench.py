"""A job folder in which scripts are rendered and run by the real bash of this machine."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hpc_prefect.job import folder as names
from hpc_prefect.job.folder import ExitRecord, read_starts, word_digest
from hpc_prefect.job.script import Preamble, render
from hpc_prefect.job.spec import Executable, JobSpec, Resources, Site

WORD = "0123456789abcdef"
#: In a program: the process of the outer script.
OUTER = "$(cut -d' ' -f4 /proc/$PPID/stat)"
PREAMBLE = Preamble(directives=("#PBS -q debug",), id_expression='"$JOB_ID"')


class Bench:
    """A job folder and a work_dir, in which scripts are rendered and run."""

    def __init__(self, root: Path, name: str = "work") -> None:
        self.work_dir = root / name
        self.folder = self.work_dir / ".hpc-prefect" / name
        self.folder.mkdir(parents=True)
        for path in (self.folder, self.folder.parent):
            path.chmod(0o700)

    @property
    def script(self) -> Path:
        return self.folder / "script.sh"

    def write(self, program: str = "/bin/true", *arguments: str, **changes: Any) -> str:
        """Render a script; `changes` are fields of Site, Executable, Resources or JobSpec."""
        preamble = changes.pop("preamble", PREAMBLE)
        site = {key[5:]: changes.pop(key) for key in list(changes) if key.startswith("site_")}
        own = {key[4:]: changes.pop(key) for key in list(changes) if key.startswith("exe_")}
        spec = JobSpec(
            name="n",
            command_name="c",
            executable=Executable(path=program, **own),
            site=Site(scheduler="local", **site),
            resources=changes.pop("resources", Resources()),
            work_dir=str(self.work_dir),
            arguments=arguments,
            **changes,
        )
        script = render(spec, str(self.folder), preamble, WORD)
        for name, text in (("script.sh", script.outer), ("program.sh", script.inner)):
            (self.folder / name).write_bytes(text.encode("utf-8", "surrogateescape"))
        self.script.chmod(0o700)
        for name in ("start", "exit"):
            (self.folder / name).touch()
        return script.outer + script.inner

    def start(
        self,
        job_id: str = "1.host",
        *shell: str,
        script: Path | None = None,
        env: Mapping[str, str] = {},
        **how: Any,
    ) -> subprocess.Popen[bytes]:
        """By its first line, or by a `shell` that is given it."""
        return subprocess.Popen(
            [*shell, script or self.script],
            env={"PATH": os.environ["PATH"], "JOB_ID": job_id, **env},
            **how,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def run(self, job_id: str = "1.host", *shell: str, **how: Any) -> int:
        """The script's exit code. What it said is in `said`."""
        with self.start(job_id, *shell, **how) as process:
            self.said = b"".join(process.communicate()).decode(errors="replace")
            return process.returncode

    def shell(self, text: str, **changes: Any) -> int:
        """Run a script whose program is a shell with this text."""
        self.write("/bin/sh", "-c", text, **changes)
        return self.run()

    def read(self, name: str = "stdout") -> bytes:
        return (self.folder / name).read_bytes()

    @property
    def exit(self) -> ExitRecord:
        """The newest exit record, which is well formed and of the newest start."""
        data = self.read("exit")
        assert data.endswith(b"\n")
        record = read_exits(data)[-1]
        assert record.token == read_starts(self.read("start"))[-1].token
        return record


def read_exits(data: bytes) -> tuple[ExitRecord, ...]:
    """The records with the word of the script; every line is whole."""
    for line in data.splitlines():
        assert not line or json.loads(line)
    return names.read_exits(data, {word_digest(WORD)})
