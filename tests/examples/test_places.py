"""Both examples at every place: the same flow file, and of the place only a profile's name.

The profiles are those that the examples show for a cluster, with what is to be completed there.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hpc_prefect.server import Server, environment

from ..conftest import ON_CI
from ..contract.places import PBS, Place
from ..engines import wanted
from .bitcount_rig import (
    EXAMPLE,
    copied,
    flow_module,
    make,
    run_bitcount,
    save_blocks,
    save_profile,
    what_is_missing,
)

SQD = EXAMPLE.with_name("sqd_n2")
NODES, RANKS = 2, 4

# As root, and on nodes that share one host, Open MPI wants to be told.
OPEN_MPI = (
    'OMPI_ALLOW_RUN_AS_ROOT = "1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM = "1", OMPI_MCA_btl = "self,tcp",'
    ' OMPI_MCA_btl_tcp_if_include = "lo", OMPI_MCA_oob_tcp_if_include = "lo"'
)
# Other tests take the last node from its jobs meanwhile.
NOT_N4 = {"directives = []": 'directives = ["--exclude=n4"]'}


# --- places

PlaceOf = Callable[[str], Place]


@pytest.fixture(scope="module")
def place_of(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[PlaceOf]:
    """The place of a kind, started when it is first asked for."""
    places: dict[str, Place] = {}

    def start(kind: str) -> Place:
        if kind == "pbs":
            return PBS.at(tmp_path_factory.mktemp("pbs"), "places-pbs")
        if kind == "slurm":
            cluster = request.getfixturevalue("slurm_without_accounting")
            return Place(name="places-slurm", profile={}, environ=cluster.environment)
        return Place(name="places-local", profile={})

    def place(kind: str) -> Place:
        if kind not in places:
            places[kind] = start(kind)
        return places[kind]

    yield place
    for each in places.values():
        if isinstance(each, PBS):
            each.close()


def edited(path: Path, edits: Mapping[str, str]) -> str:
    """The text of an example's file, with what is to be completed there."""
    text = path.read_text(encoding="utf-8")
    for old, new in edits.items():
        assert text.count(old) == 1, f"{path} has {old!r} {text.count(old)} times"
        text = text.replace(old, new)
    return text


def note_ranks(folder: Path, program: str) -> None:
    """A program `noted`: notes job and node of each rank, and is the example's own after that."""
    script = folder / "noted"
    job = "${SLURM_JOB_ID:-${PBS_JOBID:-$HPC_LOCAL_JOBID}}"
    script.write_text(
        f'#!/bin/sh\necho "{job} ${{SLURMD_NODENAME:-here}}" >> ranks\n'
        f'exec "{folder}/{program}" "$@"\n'
    )
    script.chmod(0o755)


def noted(work_dir: Path) -> dict[str, Counter[str]]:
    """How many ranks each job had on each node."""
    jobs: dict[str, Counter[str]] = {}
    for line in (work_dir / "ranks").read_text().splitlines():
        job, _, node = line.partition(" ")
        jobs.setdefault(job, Counter())[node] += 1
    return jobs


def assert_two_nodes(place: Place, kind: str, work_dir: Path, *, jobs: int) -> None:
    """Every job had two ranks on each of two nodes, and the scheduler says so too."""
    found = noted(work_dir)
    assert len(found) == jobs
    for job, nodes in found.items():
        assert sum(nodes.values()) == RANKS
        if kind == "slurm":
            assert sorted(nodes.values()) == [2, 2], nodes
            assert "here" not in nodes
            assert f"NumNodes={NODES} " in place.run("scontrol", "show", "job", job)
        if kind == "pbs":  # the stand-in's nodes are numbers: that they were asked for is all
            shown = place.run("qstat", "-x", "-f", job)
            assert f"Resource_List.nodect = {NODES}\n" in shown
            assert "Resource_List.place = scatter\n" in shown


def digest(path: Path) -> str:
    return sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("example", [EXAMPLE, SQD], ids=["bitcount", "sqd_n2"])
def test_no_flow_has_a_word_of_a_scheduler_or_a_launcher(example: Path) -> None:
    text = (example / "flow.py").read_text(encoding="utf-8").lower()
    words = (
        "slurm pbs pjm sbatch srun squeue sacct scancel scontrol qsub qstat qdel qselect pjsub"
        " pjstat pjdel mpiexec mpirun partition queue account walltime module mpi4py pmi"
    )
    assert [word for word in words.split() if word in text] == []


# --- bitcount


@dataclass(frozen=True)
class Variant:
    """A profile of bitcount: the example's file, and what is filled in.

    Attributes:
        openmpi: the program is Debian's Open MPI's, and not that of the venv's MPICH.
    """

    kind: str
    edits: Mapping[str, str]
    openmpi: bool = True


SRUN = "srun --mpi=pmix --ntasks={ranks} --cpus-per-task={threads}"
WITH_OPEN_MPI = {
    "environment = {} ": f"environment = {{ {OPEN_MPI} }} ",
    '"${HERE}/bitcount"': '"${HERE}/noted"',
}
BITCOUNT = {
    "slurm-srun": Variant("slurm", WITH_OPEN_MPI | NOT_N4),
    "slurm-mpirun": Variant(
        "slurm", WITH_OPEN_MPI | NOT_N4 | {f'"{SRUN}"': '"mpirun.openmpi -n {ranks}"'}
    ),
    "pbs-mpirun": Variant(
        "pbs",
        WITH_OPEN_MPI
        | {'= "mpiexec -n {ranks}"': '= "mpirun.openmpi --hostfile $PBS_NODEFILE -n {ranks}"'},
    ),
    "pbs-mpich": Variant(
        "pbs",
        {
            '"${HERE}/bitcount"': '{ path = "${HERE}/noted",'
            ' path_prefixes = { PATH = ["${VENV}/bin"] } }'
        },
        openmpi=False,
    ),
}


@pytest.fixture(scope="module")
def at_home(
    prefect_server: Server, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, int]]:
    """The example built with the venv's MPICH; its counts on this machine."""
    if missing := what_is_missing():
        (pytest.fail if ON_CI else pytest.skip)(missing)
    example = built(tmp_path_factory.mktemp("clone"))
    save_blocks(example, "hpc-places-local", tmp_path_factory.mktemp("spool"))
    work_dir = tmp_path_factory.mktemp("local")
    return example, run_bitcount("hpc-places-local", work_dir, quantum_backend="qpu-noisy")


@pytest.fixture(scope="module")
def with_openmpi(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example built with Debian's Open MPI."""
    if shutil.which("mpicxx.openmpi") is None and wanted("slurm"):
        request.getfixturevalue("slurm_without_accounting")  # installs it
    if shutil.which("mpicxx.openmpi") is None:
        (pytest.fail if ON_CI else pytest.skip)("there is no Open MPI of Debian's")
    return built(tmp_path_factory.mktemp("clone"), "MPICXX=mpicxx.openmpi")


def built(folder: Path, *arguments: str) -> Path:
    example = copied(folder)
    done = make(example, *arguments)
    assert done.returncode == 0, done.stderr
    note_ranks(example, "bitcount")
    return example


@pytest.mark.timeout(600)  # a first start of Slurm installs packages
@pytest.mark.parametrize("name", BITCOUNT)
def test_bitcount_moves_by_the_name_of_a_profile_and_counts_the_same(
    name: str,
    place_of: PlaceOf,
    at_home: tuple[Path, dict[str, int]],
    request: pytest.FixtureRequest,
    tmp_path: Path,
) -> None:
    variant, profile = BITCOUNT[name], f"hpc-places-{name}"
    place = place_of(variant.kind)
    example = request.getfixturevalue("with_openmpi") if variant.openmpi else at_home[0]
    renamed = {f"[hpc-profile.hpc-{variant.kind}]": f"[hpc-profile.{profile}]"}
    for part in ("executables", variant.kind):
        renamed[f"[hpc-profile.hpc-{variant.kind}.{part}]"] = f"[hpc-profile.{profile}.{part}]"
    save_profile(edited(example / f"{variant.kind}.toml", variant.edits | renamed), example)

    with place.entered():
        counts = run_bitcount(profile, tmp_path, quantum_backend="qpu-noisy")

    assert counts == at_home[1]
    assert len(counts) > 2  # not two numbers that fit by chance
    assert_two_nodes(place, variant.kind, tmp_path, jobs=1)
    (written,) = tmp_path.glob("bits-*.json")
    assert json.loads(written.read_text())["ranks"] == RANKS
    # What ran is the repository's own file, and what a clone has there is the same.
    assert Path(flow_module().__file__) == EXAMPLE / "flow.py"
    assert digest(example / "flow.py") == digest(EXAMPLE / "flow.py")


# --- SQD

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
NOTED = {'"${HERE}/diagonalize.py"': '"${HERE}/noted"'}
SHOWN = f'# launcher = "{SRUN}"'
SITE_MPI = {
    # What the file shows in comments, for what it has; there are no modules here.
    'launcher = "srun --mpi=pmi2 --ntasks={ranks} --cpus-per-task={threads}"\n': "",
    "\nenvironment = {}\n": "\n",
    SHOWN: f'launcher = "{SRUN}"',
    "# environment = { MPI4PY_LIBMPI": f"environment = {{ {OPEN_MPI}, MPI4PY_LIBMPI",
}
#: By the kind of place and what is filled in; `hpc-local` is in blocks.toml.
PROFILES: dict[str, tuple[str, Mapping[str, str]]] = {
    "local": ("local", {}),
    "slurm": ("slurm", NOTED | NOT_N4),
    "slurm-site-mpi": ("slurm", NOTED | NOT_N4 | SITE_MPI),
    "pbs": ("pbs", NOTED),
}


@dataclass(frozen=True)
class Ran:
    """One run of the demo.

    Attributes:
        rows: of its iterations.
    """

    work_dir: Path
    rows: list[dict[str, Any]]

    @property
    def energies(self) -> list[tuple[float, float]]:
        return [(row["energy"], row["uniform_energy"]) for row in self.rows]


Sqd = Callable[[str], Ran]


@pytest.fixture(scope="module")
def sqd(place_of: PlaceOf, own_server: Server, tmp_path_factory: pytest.TempPathFactory) -> Sqd:
    """Runs the demo as its README says, once for each profile."""
    example = tmp_path_factory.mktemp("clone") / "sqd_n2"
    shutil.copytree(SQD, example, ignore=shutil.ignore_patterns("__pycache__"))
    (example / "blocks.toml").write_text(edited(SQD / "blocks.toml", SMALLER | NOTED))
    note_ranks(example, "diagonalize.py")
    done: dict[str, Ran] = {}

    def run(name: str) -> Ran:
        if name not in done:
            kind, edits = PROFILES[name]
            if kind != "local":
                (example / f"{kind}.toml").write_text(edited(SQD / f"{kind}.toml", edits))
            work_dir = tmp_path_factory.mktemp(name)
            done[name] = sqd_at(place_of(kind), kind, example, work_dir, own_server)
        return done[name]

    return run


def sqd_at(place: Place, kind: str, example: Path, work_dir: Path, server: Server) -> Ran:
    """The README's two commands; the queue of this machine is one in an empty home."""
    variables = {"HOME": str(work_dir), "OMP_NUM_THREADS": "1"}
    environ = os.environ | place.environ | environment(server) | variables
    apply = [str(Path(sys.executable).with_name("hpc-prefect")), "blocks", "apply"]
    demo = [sys.executable, str(example / "demo.py"), "--hpc-profile", f"hpc-{kind}"]
    folders = ["--work-dir", str(work_dir), "--server-home", str(work_dir / "no-server")]
    file = example / ("blocks.toml" if kind == "local" else f"{kind}.toml")

    for command in ([*apply, "--force", str(file)], [*demo, *folders]):
        done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stdout + done.stderr
    (rows,) = work_dir.glob(".hpc-prefect/*/*/*/iterations.jsonl")
    # Nothing of a clone has changed but what the places' own files say.
    for program in SQD.glob("*.py"):
        assert digest(example / program.name) == digest(program)
    return Ran(work_dir, [json.loads(line) for line in rows.read_text().splitlines()])


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", [name for name in PROFILES if name != "local"])
def test_sqd_moves_by_the_name_of_a_profile_and_finds_the_same_energies(
    name: str, sqd: Sqd, place_of: PlaceOf
) -> None:
    place_of(PROFILES[name][0])  # first: without it there is nothing to compare

    here, there = sqd("local").energies, sqd(name).energies

    assert len(there) == 2
    assert there == [pytest.approx(pair, abs=1e-8, rel=0) for pair in here]
    assert there[1] < there[0]  # energies that move: no constant could pass for them


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", PROFILES)
def test_each_diagonalization_was_shared_by_four_ranks_on_two_nodes(
    name: str, sqd: Sqd, place_of: PlaceOf
) -> None:
    kind, _ = PROFILES[name]
    place = place_of(kind)

    ran = sqd(name)

    assert_two_nodes(place, kind, ran.work_dir, jobs=4)  # LUCJ and random, in two iterations
    answers = list(ran.work_dir.glob("*.answer.npz"))
    assert len(answers) == 4
    for path in answers:
        with np.load(path) as answer:
            assert set(answer["ranks"]) == set(range(RANKS))
