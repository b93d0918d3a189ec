"""Both examples at rehearsed sites, with the profiles that come with the package.

What a user of the site would fill in is filled in; the flows and all their arguments but the name
of the HPC profile are the laptop's.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from hashlib import sha256
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from hpc_prefect.batch.preview import render_preview
from hpc_prefect.block_files.document import read_document
from hpc_prefect.blocks import Call, resolve
from hpc_prefect.job.identity import job_tag
from hpc_prefect.server import Server, environment
from hpc_prefect.sites import find_site

from ..conftest import ON_CI
from .bitcount_rig import EXAMPLE, copied, make, what_is_missing

SQD = EXAMPLE.with_name("sqd_n2")
SNAPSHOTS = Path(__file__).parent / "snapshots"
SITES = ("miyabi", "fugaku")
PROGRAM = str(Path(sys.executable).with_name("hpc-prefect"))
RANKS, NODES = 4, 2

#: What a user of each site writes for its blanks, but for the programs.
FILLED = {
    "miyabi": {
        "<cpu queue>": "regular-c",
        "<gpu queue>": "regular-g",
        "<project>": "gz00",
        "<gpu program>": "/not/built/here",
    },
    "fugaku": {"<resource group>": "small", "<group>": "hp250000", "<volume>": "/vol0004"},
}
BLANKS = {"miyabi": "<cpu program>", "fugaku": "<program>"}


def completed(site: str, programs: dict[str, Path]) -> str:
    """The site's file as a user completes it: one line a program."""
    text = find_site(site).text
    for blank, value in FILLED[site].items():
        assert f'"{blank}"' in text
        text = text.replace(f'"{blank}"', f'"{value}"')
    line = f'diag = "{BLANKS[site]}"\n'
    assert text.count(line) == 1
    return text.replace(line, "".join(f'{key} = "{path}"\n' for key, path in programs.items()))


# --- the scripts


@pytest.mark.parametrize("site", ["local", *SITES])
@pytest.mark.parametrize("example", ["bitcount", "sqd_n2"])
def test_what_is_submitted_is_that_of_the_snapshot(example: str, site: str) -> None:
    """Written anew by `HPC_PREFECT_WRITE_DOCS=1 pytest tests/examples`."""
    text = (EXAMPLE.parent / example / "blocks.toml").read_text()
    if site != "local":
        key = {"bitcount": "bitcount", "sqd_n2": "diag"}[example]
        text += completed(site, {key: Path(f"/shared/me/{key}")})
    document = read_document(text, here="/shared/me", venv="/shared/me/.venv", environ={})
    found = {(item.kind, item.name): item.value for item in document.items}
    (command,) = (value for (kind, _), value in found.items() if kind == "command")
    (how,) = (
        value
        for (kind, name), value in found.items()
        if kind == "execution-profile" and name != "exec-diag-held"  # that of no job of its own
    )
    call = Call(script_filename=example, work_dir="/shared/me/run", user_args=["in", "out"])
    hpc = found["hpc-profile", f"hpc-{site}"]
    spec, secrets = resolve(command, how, hpc, call, machine_cores=8)
    shown = render_preview(spec)

    key = Path(shown.folder).name.removesuffix("-1")
    script = f"{shown.script}\n# Submitted by: {shown.command}\n"
    for what, word in (
        (key, "KEY"),
        (job_tag(key, 1), "TAG"),
        (sys.executable, "PYTHON"),
        (str(resources.files("hpc_prefect")), "HPC_PREFECT"),
        (str(Path.home()), "HOME"),
    ):
        script = script.replace(what, word)
    file = SNAPSHOTS / f"{example}-{site}.sh"
    if os.environ.get("HPC_PREFECT_WRITE_DOCS"):
        SNAPSHOTS.mkdir(exist_ok=True)
        file.write_text(script, encoding="utf-8")
    assert secrets == {}
    assert script == file.read_text(encoding="utf-8")


# --- the runs

SMALLER = {
    'command_name = "diag"\nranks_per_node = 2': (
        'command_name = "diag"\nnum_nodes = 2\nranks_per_node = 2'
    ),
    'scheduler = "local"': 'scheduler = "local"\nlocal = { slots = 4 }',
    "shots = 10000": "shots = 4000",
    "batches = 2 ": "batches = 4 ",
    "samples_per_batch = 500": "samples_per_batch = 150",
    "max_strings = 260 ": "max_strings = 100 ",
    "max_iterations = 8": "max_iterations = 2",
    "tolerance = 2e-4": "tolerance = 1e-12",
}


@dataclass(frozen=True)
class Clone:
    """The examples as a clone has them, built, with the sites' profiles applied.

    Attributes:
        programs: by key; each notes its rank's job and is the example's own after that.
    """

    folder: Path
    programs: dict[str, Path]
    server: Server

    def run(self, site: str, work_dir: Path, *command: str) -> str:
        """The command as on the laptop, or after `rehearse SITE --`; what it printed."""
        words = list(command)
        if site != "local":
            words = [PROGRAM, "rehearse", site, "--", *words]
        variables = {"HOME": str(work_dir), "OMP_NUM_THREADS": "1", "TMPDIR": str(work_dir)}
        done = subprocess.run(
            words,
            cwd=self.folder,
            env=os.environ | environment(self.server) | variables,
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        if site != "local":
            assert f"rehearsal of {site}" in done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def clone(own_server: Server, tmp_path_factory: pytest.TempPathFactory) -> Clone:
    if missing := what_is_missing():
        (pytest.fail if ON_CI else pytest.skip)(missing)
    folder = tmp_path_factory.mktemp("clone")
    bitcount = copied(folder)
    made = make(bitcount)
    assert made.returncode == 0, made.stderr
    sqd = bitcount.with_name("sqd_n2")
    shutil.copytree(SQD, sqd, ignore=shutil.ignore_patterns("__pycache__"))
    text = (SQD / "blocks.toml").read_text(encoding="utf-8")
    for old, new in SMALLER.items():
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    (sqd / "blocks.toml").write_text(text)
    # As at a site, a program of one's own Python says which that is.
    own = f"{sys.executable} {sqd}/diagonalize.py"
    programs = {
        "bitcount": noted(folder / "bitcount", f"{bitcount}/bitcount"),
        "diag": noted(folder / "diag", own),
    }
    found = Clone(folder, programs, own_server)
    for site in SITES:
        file = folder / f"my-{site}.toml"
        file.write_text(completed(site, programs))
        found.run("local", folder, PROGRAM, "blocks", "apply", str(file))
    found.run("local", folder, PROGRAM, "blocks", "apply", str(bitcount / "blocks.toml"))
    return found


def noted(path: Path, program: str) -> Path:
    """A program that notes the job of each of its ranks, and is the other after that."""
    path.write_text(f'#!/bin/sh\necho "${{PBS_JOBID:-$PJM_JOBID}}" >> ranks\nexec {program} "$@"\n')
    path.chmod(0o755)
    return path


def ranks(work_dir: Path) -> Counter[str]:
    """How many ranks each job had."""
    return Counter((work_dir / "ranks").read_text().split())


def script_of(work_dir: Path) -> str:
    file = next(iter(work_dir.glob(".hpc-prefect/*/*/*/script.sh")))
    return file.read_text() + file.with_name("program.sh").read_text()


#: What the script of a site has of its profile, and a word of no other's.
OWN_LINES = {
    "miyabi": (
        *("/bin/bash -l ", "#PBS -q regular-c", "#PBS -W group_list=gz00", "module load 'impi'"),
        "#PBS -l select=2:mpiprocs=2:ompthreads=1",
        "mpiexec.hydra -n 4 -ppn 2 ",
    ),
    "fugaku": (
        *('#PJM -L "rscgrp=small"', "#PJM -g hp250000", 'mpiexec "$@" || code=$?', "ranks -n 4 "),
        '#PJM -x "PJM_LLIO_GFSCACHE=/vol0004"',
    ),
}


def assert_at(site: str, work_dir: Path, *, jobs: int) -> None:
    """Every job had its ranks, and its script is one of the site's."""
    assert sorted(ranks(work_dir).values()) == [RANKS] * jobs
    script = script_of(work_dir)
    for name, lines in OWN_LINES.items():
        assert [line for line in lines if line in script] == (list(lines) if name == site else [])


Counts = tuple[str, dict[str, Any]]


def bitcount(clone: Clone, place: str, work_dir: Path) -> Counts:
    """What the flow printed, and what the program wrote."""
    flow = [sys.executable, str(clone.folder / "examples" / "bitcount" / "flow.py")]
    words = [f"hpc-{place}", "--quantum-backend", "qpu-noisy", "--work-dir", str(work_dir)]
    printed = clone.run(place, work_dir, *flow, *words)
    (written,) = work_dir.glob("bits-*.json")
    return printed, json.loads(written.read_text())


@pytest.fixture(scope="module")
def counts_at_home(clone: Clone, tmp_path_factory: pytest.TempPathFactory) -> Counts:
    return bitcount(clone, "local", tmp_path_factory.mktemp("local"))


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("site", SITES)
def test_bitcount_moves_to_a_site_by_the_name_of_a_profile(
    site: str, clone: Clone, counts_at_home: Counts, tmp_path: Path
) -> None:
    counts = bitcount(clone, site, tmp_path)

    assert counts == counts_at_home
    assert len(counts[1]["counts"]) > 2
    assert_at(site, tmp_path, jobs=1)


@pytest.fixture(scope="module")
def at_home(clone: Clone, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return sqd(clone, "local", tmp_path_factory.mktemp("local"))


def sqd(clone: Clone, place: str, work_dir: Path) -> list[dict[str, Any]]:
    """The rows of the iterations."""
    demo = [sys.executable, str(clone.folder / "examples" / "sqd_n2" / "demo.py")]
    folders = ["--work-dir", str(work_dir), "--server-home", str(work_dir / "no-server")]
    clone.run(place, work_dir, *demo, "--hpc-profile", f"hpc-{place}", *folders)
    (rows,) = work_dir.glob(".hpc-prefect/*/*/*/iterations.jsonl")
    return [json.loads(line) for line in rows.read_text().splitlines()]


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("site", ["fugaku"])  # at a PBS and a Slurm: test_places.py
def test_sqd_moves_to_a_site_and_finds_the_same_energies_to_the_last_bit(
    site: str, clone: Clone, at_home: list[dict[str, Any]], tmp_path: Path
) -> None:
    rows = sqd(clone, site, tmp_path)

    energies = [(row["energy"], row["uniform_energy"]) for row in rows]
    assert energies == [(row["energy"], row["uniform_energy"]) for row in at_home]
    assert len(set(energies)) == len(energies) == 2
    assert_at(site, tmp_path, jobs=4)  # LUCJ and random, in two iterations
    for program in SQD.glob("*.py"):  # nothing of the clone's flow has changed
        there = clone.folder / "examples" / "sqd_n2" / program.name
        assert sha256(there.read_bytes()).digest() == sha256(program.read_bytes()).digest()
