"""kill -9 at random instants while a thousand members run on a real Slurm: each has run once."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest
from saved import save_blocks

from .. import warm

FLOW = Path(__file__).with_name("array_flow.py")
SEED = int(os.environ.get("SEED") or 7)
MEMBERS, KILLS = 1000, 5
#: The last members, and the one whose script is killed, wait until all kills were made: so there is
#: always something that runs.
GATED, VICTIM = 900, 5
PATIENCE = 500.0
_WORKER = os.environ.get("PYTEST_XDIST_WORKER", "")
PROFILE = f"hpc-kills-array-{sha256(_WORKER.encode()).hexdigest()[:8]}"


def program(folder: Path) -> None:
    """Counts its run, in one write at the end of a file, and tells its result."""
    path = folder / "program"
    path.write_text(
        f'#!/bin/bash\n[ "$1" != {VICTIM} ] || echo $$ > {folder}/victim.new\n'
        f'[ "$1" != {VICTIM} ] || mv {folder}/victim.new {folder}/victim\n'
        f'echo "$1" >> {folder}/runs\n'
        f'if [ "$1" = {VICTIM} ] || [ "$1" -ge {GATED} ]; then\n'
        f"  until [ -e {folder}/go ]; do sleep 0.2; done\nfi\n"
        'echo "result of $1"\n'
    )
    path.chmod(0o700)


def runs(folder: Path) -> Counter[int]:
    path = folder / "runs"
    return Counter(map(int, path.read_text().split()) if path.exists() else [])


def begin(folder: Path, environ: dict[str, str]) -> warm.Process:
    words = [str(FLOW), str(folder), PROFILE, str(MEMBERS)]
    log = folder / "log"
    with log.open("a") as said:
        return warm.Process(words, stdout=said, stderr=said, env=os.environ | environ)


def until(condition: Callable[[], bool], process: warm.Process, what: str) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert process.poll() is None, f"the flow ended before {what}"
        assert time.monotonic() < end, f"{what} did not come true"
        time.sleep(0.02)


def kill_script(folder: Path) -> None:
    """SIGKILL for all shells of one element that Slurm started, above its program."""
    shells, pid = [], int((folder / "victim").read_text())
    while True:
        pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        if Path(f"/proc/{pid}/comm").read_text().startswith("slurmstepd"):
            break
        shells.append(pid)
    for pid in reversed(shells):
        os.kill(pid, signal.SIGKILL)


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_a_flow_killed_five_times_while_a_thousand_members_run_runs_each_once(
    prefect_server, slurm, tmp_path
):
    dice = random.Random(SEED)
    program(tmp_path)
    save_blocks(tmp_path, PROFILE, scheduler="slurm", slurm={"directives": ["--exclude=n4"]})
    environ = {k: v for k, v in slurm.environment.items() if os.environ.get(k) != v}
    victims_turn = dice.randrange(KILLS)
    for turn in range(KILLS):
        flow = begin(tmp_path, environ)
        # So far on from where the last one was killed; the first not before anything has begun.
        goal = min(runs(tmp_path).total() + dice.randrange(1, 120), GATED - 20)
        until(lambda goal=goal: runs(tmp_path).total() >= goal, flow, f"{goal} members' start")
        if turn == victims_turn:
            until((tmp_path / "victim").exists, flow, "the victim's start")
            kill_script(tmp_path)
        time.sleep(dice.uniform(0, 1))  # somewhere between two of its looks
        os.kill(flow.pid, signal.SIGKILL)
        assert flow.wait(60) == -signal.SIGKILL
    (tmp_path / "go").touch()
    assert begin(tmp_path, environ).wait(PATIENCE) == 0, (tmp_path / "log").read_text()[-3000:]

    assert runs(tmp_path) == Counter(range(MEMBERS))
    (line,) = [
        line for line in (tmp_path / "log").read_text().splitlines() if line.startswith("ENDED ")
    ]
    ended = json.loads(line.removeprefix("ENDED "))
    assert [n for n, each in enumerate(ended) if each["state"] != "succeeded"] == [VICTIM]
    for n, each in enumerate(ended):
        # The victim's program went on to its end without its script, which alone tells how it was.
        assert Path(each["stdout"]).read_text() == f"result of {n}\n"
    (folder,) = {Path(each["folder"]) for each in ended}  # one submission, and no other
    files = Counter(path.name.partition(".")[0] for path in folder.glob("m/*/[0-9]*"))
    assert max(files.values()) <= 5
