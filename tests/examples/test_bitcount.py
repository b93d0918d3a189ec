"""The newcomer's example: its program, its flow on this machine, its README."""

from __future__ import annotations

import ast
import asyncio
import json
import os
import re
import struct
import subprocess
import tomllib
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prefect import flow
from prefect.client.orchestration import get_client

from hpc_prefect import JobFailed, Reason
from hpc_prefect.block_files.document import read_document
from hpc_prefect.server import Server

from ..conftest import ON_CI
from .bitcount_rig import (
    ENVIRONMENT,
    EXAMPLE,
    copied,
    flow_module,
    make,
    mpi,
    run_bitcount,
    save_blocks,
    what_is_missing,
)

PROFILE = "hpc-bitcount"  # other tests of this server's have an hpc-local of their own
BLOCKS = tomllib.loads((EXAMPLE / "blocks.toml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the example, built by its own Makefile with the real compiler."""
    if missing := what_is_missing():
        (pytest.fail if ON_CI else pytest.skip)(missing)
    folder = copied(tmp_path_factory.mktemp("clone"))
    built = make(folder)
    assert built.returncode == 0, built.stderr
    assert "warning" not in built.stderr
    return folder


@pytest.fixture(scope="module")
def profile(example: Path, prefect_server: Server, tmp_path_factory: pytest.TempPathFactory) -> str:
    save_blocks(example, PROFILE, tmp_path_factory.mktemp("spool"))
    return PROFILE


def file_of(qubits: int, shots: int, body: bytes, *, magic: bytes = b"HPBITS1\n") -> bytes:
    return struct.pack("<8sQQ", magic, qubits, shots) + body


def packed(qubits: int, numbers: list[int]) -> bytes:
    width = (qubits + 7) // 8
    return file_of(qubits, len(numbers), b"".join(n.to_bytes(width, "big") for n in numbers))


def counted_directly(data: bytes) -> dict[str, int]:
    """The counts of a file of bitstrings, without our program and without Qiskit."""
    _, qubits, shots = struct.unpack("<8sQQ", data[:24])
    width = len(data[24:]) // shots
    rows = [data[24 + i * width : 24 + (i + 1) * width] for i in range(shots)]
    return Counter(f"{int.from_bytes(row, 'big'):0{qubits}b}" for row in rows)


# --- the flow, on this machine


@pytest.fixture(scope="module")
def run(profile: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, int]]:
    work_dir = tmp_path_factory.mktemp("run")
    return work_dir, run_bitcount(profile, work_dir, quantum_backend="qpu-noisy")


def test_the_counts_of_the_job_are_those_of_counting_directly(
    run: tuple[Path, dict[str, int]],
) -> None:
    work_dir, counts = run
    (bits,) = work_dir.glob("*.bin")
    assert counts == counted_directly(bits.read_bytes())
    assert sum(counts.values()) == BLOCKS["variable"]["bitcount-quantum"]["shots"]
    assert len(counts) > 2  # the noisy device's errors: not two numbers that fit by chance


def test_the_ranks_of_the_job_were_those_of_the_execution_profile(
    run: tuple[Path, dict[str, int]],
) -> None:
    work_dir, _ = run
    (written,) = work_dir.glob("*.json")
    (stdout,) = work_dir.glob(".hpc-prefect/*/*/*/stdout")
    assert json.loads(written.read_text())["ranks"] == 4
    assert re.findall(r"^rank (\d) of 4 on \S+: 2500 shots$", stdout.read_text(), re.M) == [*"0123"]


def test_the_counts_are_a_table_in_prefect_and_a_picture_on_disk(
    run: tuple[Path, dict[str, int]],
) -> None:
    work_dir, counts = run
    wanted = {"artifacts": {"key": {"any_": ["bitcount"]}}, "sort": "CREATED_DESC"}
    with get_client(sync_client=True) as client:
        (table, *_) = client.request("POST", "/artifacts/filter", json=wanted).json()
    rows = json.loads(table["data"])
    (picture,) = work_dir.glob("*.png")
    assert str(picture) in table["description"]
    assert {row["bitstring"]: row["count"] for row in rows} == counts
    assert rows == sorted(rows, key=lambda row: (-row["count"], row["bitstring"]))
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_an_ideal_ghz_state_has_two_bitstrings(profile: str, tmp_path: Path) -> None:
    counts = run_bitcount(profile, tmp_path)
    assert set(counts) == {"0" * 10, "1" * 10}


@flow
async def counting(work_dir: str, name: str, hpc_profile: str) -> dict[str, int]:
    counts: dict[str, int] = await flow_module().count(Path(work_dir), name, hpc_profile)
    return counts


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "spoilt.bin has 0 bytes, fewer than the 24 of its header: it is empty"),
        (packed(10, [0, 1023])[:-1], "does not fit its header: 24 + 2 shots x 2 (10 qubits)"),
    ],
    ids=["empty", "wrong size"],
)
def test_a_spoilt_file_fails_the_run_with_its_reason(
    data: bytes, words: str, profile: str, tmp_path: Path
) -> None:
    (tmp_path / "spoilt.bin").write_bytes(data)

    state: Any = asyncio.run(counting(str(tmp_path), "spoilt", profile, return_state=True))

    assert state.is_failed()
    failure = asyncio.run(state.aresult(raise_on_failure=False))
    assert isinstance(failure, JobFailed)
    assert (failure.result.verdict.reason, failure.result.exit_code) == (Reason.PROGRAM_FAILED, 3)
    assert words in str(failure)
    assert not (tmp_path / "spoilt.json").exists()


# --- the program


@pytest.mark.parametrize(
    ("qubits", "shots", "ranks"), [(1, 3, 4), (8, 1000, 3), (10, 70_001, 2), (20, 500, 1)]
)
def test_any_number_of_ranks_counts_every_shot_once(
    qubits: int, shots: int, ranks: int, example: Path, tmp_path: Path
) -> None:
    numbers = np.random.default_rng(qubits).integers(2**qubits, size=shots).tolist()
    data = packed(qubits, [*numbers[:-1], 2**qubits - 1])  # the highest possible one too
    (tmp_path / "bits").write_bytes(data)

    done = mpi(ranks, example / "bitcount", tmp_path / "bits", tmp_path / "counts")

    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "counts").read_text()) == {
        "qubits": qubits,
        "shots": shots,
        "ranks": ranks,
        "counts": counted_directly(data),
    }
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bits", "counts"]


HOSTILE = {
    "a cut header": (packed(10, [1])[:20], "has 20 bytes, fewer than the 24 of its header"),
    "a byte too many": (packed(10, [1, 2]) + b"x", "does not fit its header"),
    "a shot too many": (packed(10, [1, 2]) + b"\0\1", "does not fit its header"),
    "a size that overflows": (file_of(10, 2**63 + 3, b"\0\1" * 3), "does not fit its header"),
    "another file": (b"\x93NUMPY" + bytes(100), "does not begin with HPBITS1"),
    "no qubits": (file_of(0, 1, b"\0"), "is of 0 qubits; possible are 1 to 20"),
    "too many qubits": (file_of(21, 1, b"\0\0\1"), "is of 21 qubits; possible are 1 to 20"),
    "no shots": (file_of(10, 0, b""), "has no shots"),
    "a bit too high": (packed(10, [1, 2, 3, 1024]), "shot 3 has a bit set above"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_file_that_cannot_be_right_is_refused_in_a_sentence(
    case: str, example: Path, tmp_path: Path
) -> None:
    data, words = HOSTILE[case]
    (tmp_path / "bits").write_bytes(data)

    done = mpi(2, example / "bitcount", tmp_path / "bits", tmp_path / "counts")

    assert done.returncode == 3
    assert re.findall("^bitcount: .*", done.stderr, re.M) == [done.stderr.strip()]
    assert words in done.stderr
    assert not (tmp_path / "counts").exists()


def test_a_missing_file_and_a_folder_are_refused_by_name(example: Path, tmp_path: Path) -> None:
    missing = mpi(1, example / "bitcount", tmp_path / "nowhere", tmp_path / "counts")
    folder = mpi(1, example / "bitcount", tmp_path, tmp_path / "counts")
    assert (missing.returncode, folder.returncode) == (3, 3)
    assert f"{tmp_path}/nowhere cannot be read: No such file" in missing.stderr
    assert f"{tmp_path} is not a regular file" in folder.stderr


def test_counts_that_cannot_be_written_are_an_error_and_replace_nothing(
    example: Path, tmp_path: Path
) -> None:
    (tmp_path / "bits").write_bytes(packed(10, [1, 2, 3]))
    os.mkfifo(tmp_path / "pipe")  # stands for /dev/null, which a rename would replace
    for target in ("pipe", "nowhere/counts"):
        done = mpi(2, example / "bitcount", tmp_path / "bits", tmp_path / target)
        assert done.returncode == 4
        assert f"{target} cannot be written: " in done.stderr
    assert (tmp_path / "pipe").is_fifo()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bits", "pipe"]


def test_wrong_arguments_tell_the_right_ones(example: Path) -> None:
    done = mpi(2, example / "bitcount", "only-one")
    assert (done.returncode, done.stderr) == (2, "bitcount: usage: bitcount BITS COUNTS\n")


def test_a_rank_that_does_not_find_the_others_counts_nothing(example: Path, tmp_path: Path) -> None:
    """As when one MPI's program is started by another one's launcher."""
    (tmp_path / "bits").write_bytes(packed(10, [1, 2, 3]))
    done = subprocess.run(
        [example / "bitcount", tmp_path / "bits", tmp_path / "counts"],
        env=ENVIRONMENT | {"OMPI_COMM_WORLD_SIZE": "4"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 2
    assert "started as one of 4 ranks (OMPI_COMM_WORLD_SIZE), but MPI knows only" in done.stderr
    assert not (tmp_path / "counts").exists()


@pytest.mark.parametrize(
    ("tool", "words"),
    [
        ("no-such-mpicxx", "apt-get install openmpi-bin libopenmpi-dev"),
        ("false", "apt-get install g++"),
    ],
)
def test_a_missing_tool_is_told_with_its_remedy(tool: str, words: str, tmp_path: Path) -> None:
    done = make(copied(tmp_path), f"MPICXX={tool}")
    assert done.returncode != 0
    assert words in done.stderr


# --- the files that a newcomer reads


def test_the_flow_names_no_place_and_fits_on_a_page() -> None:
    text = (EXAMPLE / "flow.py").read_text(encoding="utf-8")
    schedulers = "local slurm pbs pjm lsf sge torque"
    commands = "sbatch srun squeue sacct scancel scontrol qsub qstat qdel pjsub pjstat pjdel"
    rest = "mpiexec mpirun queue partition walltime account module"
    words = f"{schedulers} {commands} {rest}".split()
    assert [word for word in words if word in text.lower()] == []
    assert len(text.splitlines()) < 100


def test_the_flow_takes_the_place_as_an_argument_and_every_other_block_is_in_the_file() -> None:
    tree = ast.parse((EXAMPLE / "flow.py").read_text(encoding="utf-8"))
    texts = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
    kinds = ("cmd-", "exec-", "hpc-", "qpu-", "bitcount-")
    named = {text for text in texts if isinstance(text, str) and text.startswith(kinds)}
    saved = {name for kind in BLOCKS.values() for name in kind}
    assert named == saved - {"hpc-local", "qpu-noisy"}


@pytest.mark.parametrize("name", ["slurm", "pbs"])
def test_a_clusters_profile_can_be_applied_and_has_the_program(name: str) -> None:
    text = (EXAMPLE / f"{name}.toml").read_text(encoding="utf-8")
    (item,) = read_document(text, here="/shared/bitcount", venv="/v", environ={}).items
    assert (item.name, item.value.scheduler) == (f"hpc-{name}", name)
    assert item.value.executables == {"bitcount": "/shared/bitcount/bitcount"}


def test_the_readmes_three_commands_run(
    example: Path, prefect_server: Server, tmp_path: Path
) -> None:
    """In a fresh clone and an empty home, so that the queue too is the test's own."""
    clone = copied(tmp_path)
    blocks = (clone / "blocks.toml").read_text(encoding="utf-8")
    (clone / "blocks.toml").write_text(blocks.replace("hpc-local", "hpc-bitcount-readme"))
    (commands,) = re.findall(
        r"^```bash\n(.*?)^```$", (EXAMPLE / "README.md").read_text(encoding="utf-8"), re.S | re.M
    )
    assert len(commands.splitlines()) == 3

    done = subprocess.run(
        ["bash", "-e", "-c", commands.replace("hpc-local", "hpc-bitcount-readme")],
        cwd=tmp_path,
        env=ENVIRONMENT | {"HOME": str(tmp_path), "PREFECT_API_URL": prefect_server.url},
        capture_output=True,
        text=True,
        timeout=240,
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-2:] == ["0000000000 5004", "1111111111 4996"]
    assert len(list(tmp_path.glob("work/bitcount/*.png"))) == 1


def test_a_picture_is_drawn_of_few_bitstrings_and_of_many() -> None:
    draw = flow_module().draw
    for counts in ({"0101": 1}, {f"{n:010b}": 1 + n % 7 for n in range(1024)}):
        assert draw(counts, "any").startswith(b"\x89PNG")
