"""N₂ in a minimal basis: 10 electrons in 8 orbitals, 3136 determinants, 16 qubits."""

import io
from pathlib import Path

import ffsim
import numpy as np
from pyscf import ao2mo, cc, gto, mcscf, scf
from qiskit import QuantumCircuit

NORB, NELEC = 8, (5, 5)


def prepare(path: Path) -> dict[str, np.ndarray]:
    """Integrals, energies and the circuit's parameters, computed once and kept in `path`.

    A resumed run must sample the same circuit to the last bit, which threaded linear algebra does
    not give a second time.
    """
    if not path.exists():
        text = io.BytesIO()
        np.savez(text, allow_pickle=False, **compute())
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        part.write_bytes(text.getvalue())
        part.replace(path)  # as a whole or not at all
    with np.load(path) as stored:
        return dict(stored)


def compute() -> dict[str, np.ndarray]:
    """By Hartree–Fock, CCSD and full CI; the two lowest orbitals are frozen."""
    molecule = gto.M(atom="N 0 0 0; N 0 0 1.098", basis="sto-3g", symmetry="D2h", verbose=0)
    field = scf.RHF(molecule)
    field.chkfile = None  # a file that HDF5 locks, and that nobody needs
    field.run(conv_tol=1e-12)
    ccsd = cc.CCSD(field, frozen=2).run(conv_tol=1e-10)
    active = mcscf.CASCI(field, NORB, NELEC)
    exact = active.kernel()[0]
    h1, core = active.get_h1eff()
    pairs = ([(p, p + 1) for p in range(NORB - 1)], [(p, p) for p in range(0, NORB, 4)])
    ansatz = ffsim.UCJOpSpinBalanced.from_t_amplitudes(
        ccsd.t2, t1=ccsd.t1, n_reps=1, interaction_pairs=pairs,
        optimize=True, method="L-BFGS-B", options={"maxiter": 100},
    )  # fmt: skip
    return {
        "h1": h1,
        "eri": ao2mo.restore(1, active.get_h2eff(), NORB),
        "core": np.array(core),
        "exact": np.array(exact),
        "jastrow": ansatz.diag_coulomb_mats,
        "rotations": ansatz.orbital_rotations,
        "last_rotation": ansatz.final_orbital_rotation,
    }


def circuit(molecule: dict[str, np.ndarray]) -> QuantumCircuit:
    """The LUCJ ansatz on the Hartree–Fock state: spin up first, then spin down."""
    ansatz = ffsim.UCJOpSpinBalanced(
        molecule["jastrow"], molecule["rotations"], molecule["last_rotation"]
    )
    lucj = QuantumCircuit(2 * NORB, name="lucj")
    lucj.append(ffsim.qiskit.PrepareHartreeFockJW(NORB, NELEC), lucj.qubits)
    lucj.append(ffsim.qiskit.UCJOpSpinBalancedJW(ansatz), lucj.qubits)
    lucj.measure_all()
    return lucj
