"""The demo's science on a small case: N₂ in STO-3G, 10 electrons in 8 orbitals."""

from __future__ import annotations

import ast
import asyncio
import importlib.util
import math
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

DEMO = Path(__file__).parents[2] / "examples" / "sqd_n2"
# The demo's files find each other as its own folder's modules, as when demo.py is started.
sys.path.insert(0, str(DEMO))

import diagonalize  # noqa: E402
import report  # noqa: E402
from chemistry import NELEC, Molecule, prepare  # noqa: E402
from exchange import ask, read_answer  # noqa: E402
from ffsim.qiskit import FfsimSampler  # noqa: E402
from qiskit.primitives import BitArray  # noqa: E402
from recovery import Estimate, determinants, flip_bits, fork, strings  # noqa: E402

from hpc_prefect.block_files.document import read_document  # noqa: E402
from hpc_prefect.quantum.options import options_of_variable, parse_options  # noqa: E402

PARAMETERS: dict[str, Any] = {
    "bit_flip_rate": 0.1,
    "batches": 3,
    "samples_per_batch": 20,
    "max_strings": 30,
}
BLOCKS = tomllib.loads((DEMO / "blocks.toml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sqd")


@pytest.fixture(scope="module")
def molecule(folder: Path) -> Molecule:
    return prepare(folder / "molecule.npz", basis="sto-3g", norb=8)


@pytest.fixture(scope="module")
def samples(molecule: Molecule) -> BitArray:
    sampler = FfsimSampler(default_shots=500, seed=1)
    return sampler.run([molecule.circuit()]).result()[0].data.meas


@pytest.fixture(scope="module")
def question(folder: Path, molecule: Molecule, samples: BitArray) -> str:
    batches = determinants(samples, Estimate(), NELEC, PARAMETERS, np.random.default_rng(1))
    return ask(folder, "small", molecule, batches, threshold=1e-3)[0]


def diagonalized(
    folder: Path, question: str, answer: str, *, ranks: int
) -> subprocess.CompletedProcess[str]:
    """The MPI program as a job runs it: by its own shebang, from its work_dir."""
    venv = Path(sys.executable).parent
    environment = os.environ | {
        "PATH": f"{venv}{os.pathsep}{os.environ['PATH']}",
        "OMP_NUM_THREADS": "1",
    }
    return subprocess.run(
        ["mpiexec", "-n", str(ranks), str(DEMO / "diagonalize.py"), question, answer],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.fixture(scope="module")
def answer(folder: Path, question: str) -> Path:
    done = diagonalized(folder, question, "two.npz", ranks=2)
    assert done.returncode == 0, done.stderr
    return folder / "two.npz"


def bytes_of(path: Path, *, without: set[str]) -> dict[str, bytes]:
    with np.load(path) as stored:
        return {name: stored[name].tobytes() for name in stored if name not in without}


# --- the molecule


def test_the_reference_energies_of_sto_3g_are_those_of_the_literature_table(
    molecule: Molecule,
) -> None:
    energies = [molecule.e_hf, molecule.e_ccsd, molecule.e_exact]
    assert energies == pytest.approx([-107.495975, -107.648813, -107.652704], abs=2e-6)


def test_a_molecule_is_read_back_and_not_computed_again(folder: Path, molecule: Molecule) -> None:
    before = (folder / "molecule.npz").stat().st_mtime_ns

    again = prepare(folder / "molecule.npz", basis="no such basis", norb=8)

    assert (folder / "molecule.npz").stat().st_mtime_ns == before
    assert again.e_exact == molecule.e_exact
    assert np.array_equal(again.rotations, molecule.rotations)


def test_samples_of_the_circuit_have_the_right_number_of_electrons(
    samples: BitArray, molecule: Molecule
) -> None:
    bits = samples.to_bool_array()
    assert set(bits[:, molecule.norb :].sum(axis=1)) == {NELEC[0]}
    assert set(bits[:, : molecule.norb].sum(axis=1)) == {NELEC[1]}


# --- recovery


@pytest.mark.parametrize("first", [True, False], ids=["post-selection", "recovery"])
def test_the_same_generator_gives_the_same_determinants_and_nothing_is_altered(
    samples: BitArray, first: bool
) -> None:
    occupancies = None if first else np.full((2, 8), NELEC[0] / 8)
    before = Estimate(occupancies=occupancies)
    untouched = samples.array.copy()

    once, again = (
        determinants(samples, before, NELEC, PARAMETERS, np.random.default_rng(5)) for _ in range(2)
    )

    assert [batch.tobytes() for batch in once] == [batch.tobytes() for batch in again]
    assert np.array_equal(samples.array, untouched)


def test_every_determinant_has_the_right_number_of_electrons_after_recovery(
    samples: BitArray,
) -> None:
    before = Estimate(occupancies=np.full((2, 8), NELEC[0] / 8))
    batches = determinants(samples, before, NELEC, PARAMETERS, np.random.default_rng(5))
    assert {int(each).bit_count() for batch in batches for each in batch} == {NELEC[0]}


def test_carried_over_determinants_are_in_every_batch_even_when_it_is_full(
    samples: BitArray,
) -> None:
    kept = np.array([0b11111000, 0b11110100, 0b11101100])
    before = Estimate(occupancies=np.full((2, 8), NELEC[0] / 8), carryover=kept)
    tight = PARAMETERS | {"max_strings": 4}

    batches = determinants(samples, before, NELEC, tight, np.random.default_rng(5))

    assert len(batches) == PARAMETERS["batches"]
    assert all(len(batch) == 4 and np.isin(kept, batch).all() for batch in batches)


def test_a_full_batch_keeps_the_most_frequent_determinants() -> None:
    rows = ["0110"] * 3 + ["1010"] * 2 + ["0101"]  # two orbitals: spin down left, spin up right
    batch = np.array([[bit == "1" for bit in row] for row in rows])
    assert strings(batch, np.array([], dtype=np.int64), 1).tolist() == [2]
    assert strings(batch, np.array([3]), 2).tolist() == [2, 3]


def test_samples_without_a_single_right_one_say_so() -> None:
    empty = BitArray.from_bool_array(np.zeros((10, 16), dtype=bool))
    quiet = PARAMETERS | {"bit_flip_rate": 0.0}
    with pytest.raises(
        ValueError, match="none of 10 samples has 5 \\+ 5 electrons: use more shots"
    ):
        determinants(empty, Estimate(), NELEC, quiet, np.random.default_rng(1))


def test_bits_are_flipped_at_the_rate_that_was_asked_for() -> None:
    zeros = BitArray.from_bool_array(np.zeros((5000, 16), dtype=bool))
    flipped = flip_bits(zeros, 0.1, np.random.default_rng(1)).to_bool_array()
    assert flipped.mean() == pytest.approx(0.1, abs=0.01)
    assert not flip_bits(zeros, 0.0, np.random.default_rng(1)).to_bool_array().any()


def test_a_fork_depends_on_nothing_but_the_saved_state_of_its_generator() -> None:
    original, restored = np.random.default_rng(1), np.random.default_rng(2)
    fork(original)
    restored.bit_generator.state = original.bit_generator.state
    assert fork(original).random() == fork(restored).random()


# --- the files between flow and program


def test_a_question_is_named_by_its_content(folder: Path, molecule: Molecule) -> None:
    batch = np.array([0b11111, 0b101111])
    first, again = (ask(folder, "x", molecule, [batch], threshold=1e-3) for _ in range(2))
    other = ask(folder, "x", molecule, [batch[:1]], threshold=1e-3)
    assert first == again
    assert first[0] != other[0]


# --- the MPI program


def test_one_rank_and_two_give_the_same_bytes(folder: Path, question: str, answer: Path) -> None:
    assert diagonalized(folder, question, "one.npz", ranks=1).returncode == 0

    assert bytes_of(folder / "one.npz", without={"ranks"}) == bytes_of(answer, without={"ranks"})


def test_every_rank_solves_a_share(answer: Path) -> None:
    with np.load(answer) as stored:
        assert set(stored["ranks"]) == {0, 1}


def test_energies_are_never_below_the_exact_one(answer: Path, molecule: Molecule) -> None:
    with np.load(answer) as stored:
        assert (stored["energies"] >= molecule.e_exact - 1e-8).all()
        assert stored["energies"][stored["best"]] == stored["energies"].min()
        assert (stored["energies"] < molecule.e_hf).all()


def test_the_full_space_gives_the_exact_energy(folder: Path, molecule: Molecule) -> None:
    everything = np.array([n for n in range(1 << 8) if n.bit_count() == NELEC[0]])
    question, name = ask(folder, "full", molecule, [everything], threshold=1e-3)

    assert diagonalized(folder, question, name, ranks=1).returncode == 0

    estimate = read_answer(folder / name)
    assert estimate.energy == pytest.approx(molecule.e_exact, abs=1e-8)
    assert estimate.dimension == len(everything) ** 2
    assert estimate.occupancies is not None
    assert estimate.occupancies.sum() == pytest.approx(sum(NELEC))


def test_the_carry_over_is_of_the_best_batch_and_heaviest_first(
    folder: Path, question: str, answer: Path
) -> None:
    with np.load(folder / question) as asked, np.load(answer) as stored:
        best = asked[f"strings_{stored['best']}"]
        assert np.isin(stored["carryover"], best).all()
        assert stored["carryover"][0] == 0b11111  # the Hartree–Fock determinant


def test_a_failure_of_one_rank_ends_all_with_its_reason(folder: Path, molecule: Molecule) -> None:
    good, bad = np.array([0b11111, 0b101111]), np.array(["not a determinant"])
    question, name = ask(folder, "bad", molecule, [good, bad], threshold=1e-3)

    done = diagonalized(folder, question, name, ranks=2)

    assert done.returncode != 0
    assert "diagonalize.py: rank " in done.stderr
    assert "Error: " in done.stderr
    assert not (folder / name).exists()


def test_a_missing_question_ends_with_its_name(folder: Path) -> None:
    done = diagonalized(folder, "nowhere.npz", "never.npz", ranks=1)
    assert done.returncode != 0
    assert "nowhere.npz" in done.stderr
    assert not (folder / "never.npz").exists()


def test_a_rank_that_does_not_find_the_others_solves_nothing(
    folder: Path, question: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when one MPI's launcher starts a program with another one's library."""
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "4")
    done = diagonalized(folder, question, "alone.npz", ranks=1)
    assert done.returncode != 0
    assert "started as one of 4 ranks (OMPI_COMM_WORLD_SIZE), but MPI knows only" in done.stderr
    assert not (folder / "alone.npz").exists()


@pytest.mark.parametrize(("sizes", "ranks"), [([5, 5, 5, 5], 2), ([9, 1, 1, 1], 2), ([3], 4)])
def test_batches_are_shared_out_once_each(sizes: list[int], ranks: int) -> None:
    mine = diagonalize.shares(sizes, ranks)
    assert sorted(i for share in mine for i in share) == list(range(len(sizes)))
    assert len(mine) == ranks


# --- the pipeline


def test_iterations_come_closer_to_the_exact_energy_and_repeat_to_the_last_bit(
    folder: Path, molecule: Molecule, samples: BitArray
) -> None:
    def loop() -> list[float]:
        rng, estimate, energies = np.random.default_rng(3), Estimate(), []
        for number in (1, 2):
            batches = determinants(samples, estimate, NELEC, PARAMETERS, fork(rng))
            asked = ask(folder, f"loop-{number}", molecule, batches, threshold=1e-4)
            assert diagonalized(folder, *asked, ranks=2).returncode == 0
            estimate = read_answer(folder / asked[1])
            energies.append(estimate.energy)
        return energies

    first = loop()

    assert first == loop()
    assert molecule.e_exact - 1e-8 <= first[-1] < first[0]


# --- blocks.toml and flow.py


def called_names(tree: ast.Module) -> set[str]:
    """Every text in a flow's file that stands for a block or a Variable."""
    texts = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
    kinds = ("cmd-", "exec-", "hpc-", "qpu-", "sqd-quantum", "sqd-algorithm", "sqd-walkers")
    return {text for text in texts if isinstance(text, str) and text.startswith(kinds)}


def test_the_blocks_of_the_file_are_those_that_the_flows_name() -> None:
    files = ("flow.py", "subspaces.py", "optimize.py")
    flows = [(DEMO / name).read_text(encoding="utf-8") for name in files]
    called = set.union(*(called_names(ast.parse(text)) for text in flows))
    assert called == {name for kind in BLOCKS.values() for name in kind} - {"qpu-device"}


def test_the_file_can_be_applied() -> None:
    text = (DEMO / "blocks.toml").read_text(encoding="utf-8")
    document = read_document(
        text, here=str(DEMO), venv=sys.prefix, environ={}, source="blocks.toml"
    )
    assert document.warnings == ()
    assert len(document.items) == sum(len(kind) for kind in BLOCKS.values())


@pytest.mark.parametrize("site_mpi", [False, True], ids=["own MPI", "site's MPI"])
@pytest.mark.parametrize("name", ["slurm", "pbs"])
def test_a_clusters_profile_can_be_applied_with_either_mpi(name: str, site_mpi: bool) -> None:
    text = (DEMO / f"{name}.toml").read_text(encoding="utf-8")
    if site_mpi:  # what the comments show, instead of what stands above them
        names = "launcher|modules|environment"
        text = re.sub(rf"^({names}) = .*\n", "", text, flags=re.M)
        text, count = re.subn(rf"^# ({names}) = ", r"\1 = ", text, flags=re.M)
        assert count == 3
    (item,) = read_document(text, here="/shared/sqd_n2", venv="/v", environ={}).items
    assert (item.name, item.value.scheduler) == (f"hpc-{name}", name)
    assert item.value.executables["diag"]["path"] == "/shared/sqd_n2/diagonalize.py"
    assert item.value.environment == ({"MPI4PY_LIBMPI": "libmpi.so.40"} if site_mpi else {})


def test_the_program_of_the_profile_can_be_started() -> None:
    entry = BLOCKS["hpc-profile"]["hpc-local"]["executables"]["diag"]
    assert os.access(entry["path"].replace("${HERE}", str(DEMO)), os.X_OK)


def test_the_quantum_variable_holds_options_of_the_sampler() -> None:
    layer = options_of_variable(BLOCKS["variable"]["sqd-quantum"])
    options, problems = parse_options([("sqd-quantum", layer)])
    assert problems == []
    assert options is not None
    assert options.shots == 10000


def test_the_subspaces_of_the_demo_stay_far_below_the_full_space() -> None:
    limit = BLOCKS["variable"]["sqd-algorithm"]["max_strings"]
    assert limit**2 < 0.2 * math.comb(12, 5) ** 2


@pytest.mark.parametrize(("name", "lines"), [("flow.py", 100), ("optimize.py", 150)])
def test_a_flow_names_no_scheduler_and_is_short(name: str, lines: int) -> None:
    text = (DEMO / name).read_text(encoding="utf-8")
    words = {"slurm", "pbs", "pjm", "sbatch", "qsub", "pjsub", "squeue", "qstat", "mpiexec", "srun"}
    assert not words & set(text.lower().replace("_", " ").split())
    assert len(text.splitlines()) < lines


def flow_module() -> Any:
    """examples/sqd_n2/flow.py; under a name of its own, as every example has a flow.py."""
    spec = importlib.util.spec_from_file_location("sqd_flow", DEMO / "flow.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


async def test_the_table_has_both_methods_beside_each_other(molecule: Molecule) -> None:
    flow = await asyncio.to_thread(flow_module)  # Prefect is slow to import
    state = {
        "lucj": Estimate(energy=molecule.e_exact + 1e-3, dimension=100),
        "uniform": Estimate(energy=molecule.e_exact + 2e-3, dimension=400),
    }
    row = flow.columns(state, molecule)
    assert row["error_mha"] == pytest.approx(1.0)
    assert row["uniform_error_mha"] == pytest.approx(2.0)
    assert (row["dimension"], row["uniform_dimension"]) == (100, 400)


def test_the_table_has_a_line_an_iteration_and_the_result_every_digit() -> None:
    first = {
        "iteration": 1,
        "energy": -109.07,
        "error_mha": 6.563,
        "change": None,
        "dimension": 15376,
        "uniform_error_mha": 27.472,
        "uniform_dimension": 67600,
    }
    second = first | {"iteration": 2, "energy": -109.07595400314972, "change": -0.006}
    header, *lines = report.iterations([first, second]).splitlines()
    assert [line.split()[0] for line in lines] == ["1", "2"]
    assert {len(header), *map(len, lines)} == {len(header)}
    assert report.result_line([first, second], converged=True) == (
        "RESULT energy=-109.07595400314972 error_mha=6.563 iterations=2 converged=true"
    )
