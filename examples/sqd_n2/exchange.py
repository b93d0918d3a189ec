"""The files between the flow and diagonalize.py.

A question is named by its content: two runs in one work_dir never write over each other's files,
and a resumed run asks the same question under the same name.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from chemistry import NELEC, Molecule
from recovery import Estimate

from hpc_prefect.transports.local import write_atomic


def ask(
    folder: Path, label: str, molecule: Molecule, batches: Sequence[np.ndarray], *, threshold: float
) -> tuple[str, str]:
    """Write the question into `folder`; the names of question and answer, relative to it."""
    content = io.BytesIO()
    np.savez(
        content,
        h1=molecule.h1,
        eri=molecule.eri,
        core=molecule.core,
        nelec=NELEC,
        threshold=threshold,
        **{f"strings_{i}": batch for i, batch in enumerate(batches)},
    )
    data = content.getvalue()
    name = f"{label}-{hashlib.sha256(data).hexdigest()[:12]}"
    write_atomic(folder / f"{name}.question.npz", data)
    return f"{name}.question.npz", f"{name}.answer.npz"


def read_answer(path: Path) -> Estimate:
    """The best batch of an answer."""
    with np.load(path) as answer:
        best = int(answer["best"])
        return Estimate(
            energy=float(answer["energies"][best]),
            dimension=int(answer["dimensions"][best]),
            occupancies=answer["occupancies"][best],
            carryover=answer["carryover"],
        )


def read_energies(path: Path) -> np.ndarray:
    """The energies of an answer's batches, in the order of the question."""
    with np.load(path) as answer:
        return np.array(answer["energies"])
