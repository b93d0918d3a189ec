"""The molecule: N₂ in an active space, its reference energies, and the circuit to sample.

Two nitrogen atoms 1.098 Å apart, the 1s cores frozen, 10 electrons in the lowest `norb` orbitals.
In cc-pVDZ with 12 orbitals: 627 264 determinants, 24 qubits.
"""

from __future__ import annotations

import io
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import ffsim
import numpy as np
from pyscf import ao2mo, cc, gto, mcscf, scf
from qiskit import QuantumCircuit

from hpc_prefect.transports.local import write_atomic

N_CORE = 2
NELEC = (5, 5)


@dataclass(frozen=True, kw_only=True)
class Molecule:
    """Integrals, energies and the circuit's parameters. Energies in hartree.

    Attributes:
        h1, eri: one- and two-electron integrals of the active space, (norb,)*2 and (norb,)*4,
            chemists' order.
        core: energy of nuclei and frozen core; add it to an active-space energy.
        e_hf, e_ccsd, e_exact: total energies; exact within the active space.
        jastrow: the diagonal Coulomb matrices of the LUCJ ansatz, (n_reps, 2, norb, norb).
        rotations: its orbital rotations, (n_reps, norb, norb); `last_rotation`: the final one.
    """

    h1: np.ndarray
    eri: np.ndarray
    core: float
    e_hf: float
    e_ccsd: float
    e_exact: float
    jastrow: np.ndarray
    rotations: np.ndarray
    last_rotation: np.ndarray

    @property
    def norb(self) -> int:
        """Spatial orbitals; the circuit has twice as many qubits."""
        return int(self.h1.shape[0])

    @property
    def couplings(self) -> np.ndarray:
        """The ansatz's parameters beside its rotations: a strength for each `interactions` pair."""
        kinds = [np.array(pairs).T for pairs in interactions(self.norb)]
        parts = [self.jastrow[:, kind, *pairs] for kind, pairs in enumerate(kinds)]
        return np.concatenate(parts, axis=1).ravel()

    def with_couplings(self, couplings: np.ndarray) -> Molecule:
        """The same molecule with other couplings in its circuit.

        They are put in place as they are, without any linear algebra: the circuit of one vector is
        the same to the last bit wherever it is made.
        """
        jastrow = self.jastrow.copy()
        values = couplings.reshape(len(jastrow), -1)
        for kind, pairs in enumerate(interactions(self.norb)):
            strengths, values = values[:, : len(pairs)], values[:, len(pairs) :]
            rows, columns = np.array(pairs).T
            jastrow[:, kind, rows, columns] = jastrow[:, kind, columns, rows] = strengths
        return replace(self, jastrow=jastrow)

    def circuit(self) -> QuantumCircuit:
        """LUCJ on the Hartree–Fock state: qubits 0 … norb-1 are spin up, the others spin down."""
        ansatz = ffsim.UCJOpSpinBalanced(self.jastrow, self.rotations, self.last_rotation)
        circuit = QuantumCircuit(2 * self.norb, name="lucj")
        circuit.append(ffsim.qiskit.PrepareHartreeFockJW(self.norb, NELEC), circuit.qubits)
        circuit.append(ffsim.qiskit.UCJOpSpinBalancedJW(ansatz), circuit.qubits)
        circuit.measure_all()
        return circuit


def prepare(path: Path, *, basis: str = "cc-pvdz", norb: int = 12) -> Molecule:
    """The molecule, computed once and kept in `path`.

    A resumed run must sample the same circuit to the last bit. Linear algebra gives that only with
    the same number of threads on the same processor, so the numbers are read back, not recomputed.
    """
    if not path.exists():
        text = io.BytesIO()
        np.savez(text, allow_pickle=False, **asdict(compute(basis, norb)))
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, text.getvalue())
    with np.load(path) as stored:
        numbers = {name: stored[name] for name in stored}
    scalars = {name: float(value) for name, value in numbers.items() if value.ndim == 0}
    return Molecule(**(numbers | scalars))


def compute(basis: str = "cc-pvdz", norb: int = 12) -> Molecule:
    """Hartree–Fock, CCSD, the exact energy of the active space, and the LUCJ parameters."""
    atoms = "N 0 0 0; N 0 0 1.098"
    # Symmetry fixes the orientation of the degenerate π orbitals.
    molecule = gto.M(atom=atoms, basis=basis, symmetry="D2h", verbose=0)
    field = scf.RHF(molecule)
    # HDF5 locks PySCF's file of the field, which nobody needs. A process that is forked at that
    # moment, such as git for the run's record, holds the lock for an instant more.
    field.chkfile = None
    field.run(conv_tol=1e-12)
    orbitals = field.mo_coeff.shape[1]
    frozen = [*range(N_CORE), *range(N_CORE + norb, orbitals)]
    ccsd = cc.CCSD(field, frozen=frozen).run(conv_tol=1e-10)
    active = mcscf.CASCI(field, norb, NELEC)
    active.fcisolver.conv_tol = 1e-12
    e_exact = active.kernel()[0]
    h1, core = active.get_h1eff()
    ansatz = lucj(ccsd.t1, ccsd.t2)
    return Molecule(
        h1=h1,
        eri=ao2mo.restore(1, active.get_h2eff(), norb),
        core=float(core),
        e_hf=float(field.e_tot),
        e_ccsd=float(ccsd.e_tot),
        e_exact=float(e_exact),
        jastrow=ansatz.diag_coulomb_mats,
        rotations=ansatz.orbital_rotations,
        last_rotation=ansatz.final_orbital_rotation,
    )


def lucj(t1: np.ndarray, t2: np.ndarray) -> ffsim.UCJOpSpinBalanced:
    """One layer of the local unitary cluster Jastrow ansatz, from CCSD amplitudes.

    Local: only the pairs of `interactions` have a term. The truncated factorization of t2 is
    re-fitted to those few (`optimize`); taken as it is, it leaves 99.8 % of the samples in the
    Hartree–Fock determinant.
    """
    return ffsim.UCJOpSpinBalanced.from_t_amplitudes(
        t2,
        t1=t1,
        n_reps=1,
        interaction_pairs=interactions(sum(t1.shape)),
        optimize=True,
        method="L-BFGS-B",
        options={"maxiter": 100},
    )


def interactions(norb: int) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """The orbitals that interact in the ansatz: those of the same spin, those of opposite spins.

    Same-spin orbitals do along a line, opposite spins at every fourth orbital, which is what a
    heavy-hex lattice connects without swaps.
    """
    return [(p, p + 1) for p in range(norb - 1)], [(p, p) for p in range(0, norb, 4)]
