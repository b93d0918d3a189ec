"""A GHZ state is sampled, and an MPI program on a supercomputer counts its bitstrings."""

import argparse
import asyncio
import hashlib
import json
import os
import struct
from pathlib import Path

from plot import draw
from prefect import flow
from prefect.artifacts import TableArtifact
from qiskit import QuantumCircuit
from qiskit.primitives import BitArray

from hpc_prefect import cancel_jobs, run_job_from_blocks, sample

QUBITS = 10


@flow(on_cancellation=[cancel_jobs])
async def bitcount(
    work_dir: str, hpc_profile: str, quantum_backend: str = "qpu-aer", seed: int = 1
) -> dict[str, int]:
    """How often each bitstring of a GHZ state was measured."""
    folder = Path(work_dir).absolute()
    sampled = await sample(
        [ghz(QUBITS)],
        quantum_backend_block_name=quantum_backend,
        work_dir=folder,
        variable_name="bitcount-quantum",
        options={"seed": seed},
    )
    bits = sampled[0].data.meas
    name = write_bits(folder, bits)
    counts = await count(folder, name, hpc_profile)
    if counts != bits.get_counts():
        raise ValueError(f"{name}.json has other counts than the bitstrings of {name}.bin")

    shots, picture = bits.num_shots, folder / f"{name}.png"
    picture.write_bytes(draw(counts, f"{QUBITS}-qubit GHZ state, {quantum_backend}"))
    rows = [{"bitstring": key, "count": n, "share": n / shots} for key, n in ordered(counts)]
    about = f"{shots} shots on {quantum_backend}, counted on {hpc_profile}; plot: {picture}"
    await TableArtifact(key="bitcount", table=rows, description=about).acreate()
    return counts


def ghz(qubits: int) -> QuantumCircuit:
    """(|00…0⟩ + |11…1⟩) / √2, measured."""
    circuit = QuantumCircuit(qubits, name="ghz")
    circuit.h(0)
    for qubit in range(1, qubits):
        circuit.cx(qubit - 1, qubit)
    circuit.measure_all()
    return circuit


def write_bits(folder: Path, bits: BitArray) -> str:
    """Write the file that bitcount.cpp describes, named by its content; its name without `.bin`."""
    header = struct.pack("<8sQQ", b"HPBITS1\n", bits.num_bits, bits.num_shots)
    data = header + bits.array.tobytes()
    name = f"bits-{hashlib.sha256(data).hexdigest()[:12]}"
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f"{name}.part{os.getpid()}"
    part.write_bytes(data)
    part.replace(folder / f"{name}.bin")  # as a whole or not at all
    return name


async def count(folder: Path, name: str, hpc_profile: str) -> dict[str, int]:
    """Count the bitstrings of `name.bin` in an MPI job, which writes `name.json`."""
    await run_job_from_blocks(
        command_block_name="cmd-bitcount",  # WHAT
        execution_profile_block_name="exec-bitcount-mpi",  # HOW
        hpc_profile_block_name=hpc_profile,  # WHERE
        work_dir=folder,
        script_filename="bitcount",
        user_args=[f"{name}.bin", f"{name}.json"],
        inputs=[f"{name}.bin"],
        expected_outputs=[f"{name}.json"],
    )
    return json.loads((folder / f"{name}.json").read_text())["counts"]


def ordered(counts: dict[str, int]) -> list[tuple[str, int]]:
    """Bitstrings and counts, the most frequent first."""
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("hpc_profile")
    parser.add_argument("--quantum-backend", default="qpu-aer")
    parser.add_argument("--work-dir", default="work/bitcount")
    for bitstring, n in ordered(asyncio.run(bitcount(**vars(parser.parse_args()))))[:10]:
        print(bitstring, n)
