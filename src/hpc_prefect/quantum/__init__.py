"""Sampling circuits as a step of a flow, each sampling once.

    block.py      QuantumBackendBlock: where
    options.py    SamplerOptions: how, from a Prefect Variable
    canonical.py  circuits as plain values, for the digest
    backends/     the family of backends
    sampling.py   one sampling: checked, run at most once
    record.py     its record on disk
    task.py       sample, sample_sync: the Prefect edge

Only `canonical`, `record`, `sampling` and the backends' work need Qiskit; the block and the options
can be used without it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hpc_prefect.quantum.block import QuantumBackendBlock
    from hpc_prefect.quantum.options import SamplerOptions
    from hpc_prefect.quantum.task import sample, sample_sync

__all__ = ["QuantumBackendBlock", "SamplerOptions", "sample", "sample_sync"]

_HOMES = {
    "QuantumBackendBlock": "block",
    "SamplerOptions": "options",
    "sample": "task",
    "sample_sync": "task",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
