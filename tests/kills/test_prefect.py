"""kill -9 of a flow's process at each boundary, and of Prefect's server in the middle."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from lives import program, runs, until
from saved import save_blocks

from hpc_prefect.records.read import read_run
from hpc_prefect.server import stop_server

from .. import warm

FLOW = Path(__file__).with_name("flow.py")
LABELS = ["one", "two", "two"]
HERE = sha256(f"kills {os.environ.get('PYTEST_XDIST_WORKER', '')}".encode()).hexdigest()[:8]

#: `gate`: what waits until the process is dead.
BOUNDARIES: dict[str, dict[str, Any]] = {
    "before the intent": {"step": "intent", "when": "before"},
    "after the intent": {"step": "intent", "when": "after"},
    "in the submission": {"step": "submit", "when": "torn"},
    "after the submission": {"step": "submitted", "when": "before"},
    "queued": {"step": "submitted", "when": "after", "gate": "queue"},
    "running": {"file": "runs", "gate": "program"},
    "ending": {"file": "ending", "gate": "teardown"},
    "after the exit record": {"step": "exit", "when": "after"},
    "after the verdict": {"step": "verdict", "when": "after"},
    "before Prefect has stored the result": {"result": True},
}
ON_SLURM = ("after the intent", "after the submission", "running", list(BOUNDARIES)[-1])


def words(folder: Path, profile: str, trap: dict[str, Any]) -> list[str]:
    return [str(FLOW), str(folder), profile, json.dumps(trap)]


def begin(folder: Path, profile: str, trap: dict[str, Any], **environ: str) -> warm.Process:
    env, pipe = os.environ | environ, warm.PIPE
    return warm.Process(words(folder, profile, trap), stdout=pipe, stderr=pipe, env=env)


def begin_afresh(folder: Path, profile: str, **environ: str) -> subprocess.Popen[str]:
    """With another server, which Prefect reads when it is imported."""
    argv, pipe = [sys.executable, *words(folder, profile, {})], subprocess.PIPE
    return subprocess.Popen(argv, stdout=pipe, stderr=pipe, text=True, env=os.environ | environ)


def kill_and_finish(
    folder: Path, name: str, fields: dict[str, Any], environ: dict[str, str]
) -> list[str]:
    """One cell: what is wrong after a process that was killed and another one."""
    trap = dict(BOUNDARIES[name])
    gate, go = trap.pop("gate", ""), folder / "go"
    program(folder, gate="go" if gate == "program" else "")
    fields = dict(fields)
    if gate == "teardown":
        fields["teardown"] = [f": > {folder}/ending", f"until [ -e {go} ]; do sleep 0.05; done"]
    if gate == "queue":  # one after another, and the first one waits
        program(folder, gate="go")
        fields["local"] = fields["local"] | {"slots": 1}
    if "file" in trap:
        trap["file"] = str(folder / trap["file"])
    profile = f"hpc-{HERE}-{fields['scheduler']}-{list(BOUNDARIES).index(name)}"
    save_blocks(folder, profile, **fields)
    first = begin(folder, profile, trap, **environ)
    said = first.communicate(timeout=200)
    go.touch()
    found = [] if first.returncode == -signal.SIGKILL else [f"the trap was not met: {said}"]
    last = begin(folder, profile, {}, **environ)
    return found + wrong(folder, *last.communicate(timeout=200))


def wrong(folder: Path, out: str, err: str) -> list[str]:
    """What is not as it must be after the last process."""
    found = []
    if f"TEXTS {json.dumps([f'result of {label}' + chr(10) for label in LABELS])}" not in out:
        found.append(f"its results: {out[-500:]} {err[-2000:]}")
    if runs(folder) != Counter(LABELS):
        found.append(f"the programs ran so often: {dict(runs(folder))}")
    return found + wrong_in_records(folder)


def wrong_in_records(folder: Path) -> list[str]:
    """What is not as the programs counted it in the records of the runs, the killed one's too."""
    records = [read_run(path) for path in folder.glob(".hpc-prefect/*/runs/*")]
    last = max(records, key=lambda record: record.started)
    jobs = last.totals.jobs["succeeded"]
    own = [record.totals.jobs["succeeded"] - record.totals.reused for record in records]
    if (last.state, jobs, sum(own)) == ("completed", len(LABELS), len(LABELS)):
        return []
    return [f"the last record: {last.state}, {jobs} jobs; own ones of all records: {own}"]


def cells(
    folder: Path, names: Any, fields: dict[str, Any], environ: dict[str, str]
) -> dict[str, list[str]]:
    for number in range(len(names)):
        (folder / str(number)).mkdir()
    with ThreadPoolExecutor(3) as pool:
        done = {
            name: pool.submit(kill_and_finish, folder / str(number), name, fields, environ)
            for number, name in enumerate(names)
        }
    return {name: found for name, cell in done.items() if (found := cell.result())}


def at_home(folder: Path) -> dict[str, Any]:
    options = {"slots": 8, "spool": str(folder / "spool"), "kill_grace": 1.0}
    return {"scheduler": "local", "local": options}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_flow_killed_at_each_boundary_runs_its_jobs_once(prefect_server, tmp_path):
    assert cells(tmp_path, list(BOUNDARIES), at_home(tmp_path), {}) == {}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_flow_killed_on_slurm_runs_its_jobs_once(prefect_server, slurm, tmp_path):
    options = {"directives": ["--exclude=n4"]}
    changed = {k: v for k, v in slurm.environment.items() if os.environ.get(k) != v}
    fields = {"scheduler": "slurm", "slurm": options}
    assert cells(tmp_path, ON_SLURM, fields, changed) == {}


SERVER = """
import sys
from hpc_prefect.server import ensure_server
server = ensure_server(sys.argv[1], port=int(sys.argv[2]))
print(server.pid, server.url)
"""
BLOCKS = """
import json, pathlib, sys
sys.path.insert(0, sys.argv[1])
from saved import save_blocks
save_blocks(pathlib.Path(sys.argv[2]), sys.argv[3], **json.loads(sys.argv[4]))
"""


def _python(program: str, *words: str, **environ: str) -> str:
    """In a process that knows none of this session's server."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    argv = [sys.executable, "-c", program, *words]
    done = subprocess.run(argv, env=clean | environ, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_prefects_server_killed_and_started_again_costs_no_job(tmp_path):
    home, profile = tmp_path / "prefect", f"hpc-{HERE}-server"
    pid, url = _python(SERVER, str(home), "0").split()
    port = url.split(":")[2].removesuffix("/api")
    environ = {"PREFECT_API_URL": url, "PREFECT_HOME": str(home)}
    try:
        program(tmp_path, gate="go")
        where = (str(FLOW.parent), str(tmp_path), profile)
        _python(BLOCKS, *where, json.dumps(at_home(tmp_path)), **environ)
        first = begin_afresh(tmp_path, profile, **environ)
        until(lambda: runs(tmp_path).total() == 3 or first.poll() is not None, "its programs")
        os.kill(int(pid), signal.SIGKILL)
        (tmp_path / "go").touch()
        exits = [folder / "exit" for folder in tmp_path.glob(".hpc-prefect/*/*/*-1")]
        until(lambda: len(exits) == 3 and all(e.read_text() for e in exits), "the programs' ends")
        _python(SERVER, str(home), port)
        out, err = first.communicate(timeout=300)
        if first.returncode:  # it did not bear that, so it is started again
            print(f"the flow's process ended: {err[-2000:]}")
            out, err = begin_afresh(tmp_path, profile, **environ).communicate(timeout=200)
        assert wrong(tmp_path, out, err) == []
    finally:
        stop_server(home)
