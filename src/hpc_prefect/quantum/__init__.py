"""Sampling circuits and estimating observables as steps of a flow, each once.

    block.py          QuantumBackendBlock: where
    credentials.py    IBMQuantumCredentials: who pays
    options.py        SamplerOptions, EstimatorOptions: how, from a Prefect Variable
    resolve.py        from the names in a call to a backend and options
    circuit_digest.py circuits as plain values, for the digest
    transpilation.py  circuits in a device's own gates, by a cached task
    backend.py        what a backend is; backends.py builds one; simulators/
    sampling.py       one sampling or estimation: checked, run at most once
    result_file.py    its record on disk
    service.py        what a quantum service is; services/ has a folder a vendor
    purchase/         quantum jobs of a service, run by the executor
    jobs.py           the operations' access to such jobs; by_folder.py does the work
    task.py           sample, estimate, submit_…, fetch: the Prefect edge

Blocks, options and calls can be imported without Qiskit, which is loaded when it is first needed.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hpc_prefect.quantum.block import QuantumBackendBlock
    from hpc_prefect.quantum.credentials import IBMQuantumCredentials
    from hpc_prefect.quantum.options import EstimatorOptions, SamplerOptions
    from hpc_prefect.quantum.task import (
        QuantumJob,
        estimate,
        estimate_sync,
        fetch,
        sample,
        sample_sync,
        submit_estimation,
        submit_sampling,
    )

__all__ = [
    "EstimatorOptions",
    "IBMQuantumCredentials",
    "QuantumBackendBlock",
    "QuantumJob",
    "SamplerOptions",
    "estimate",
    "estimate_sync",
    "fetch",
    "sample",
    "sample_sync",
    "submit_estimation",
    "submit_sampling",
]

_HOMES = {
    "EstimatorOptions": "options",
    "IBMQuantumCredentials": "credentials",
    "QuantumBackendBlock": "block",
    "QuantumJob": "task",
    "SamplerOptions": "options",
    "estimate": "task",
    "estimate_sync": "task",
    "fetch": "task",
    "sample": "task",
    "sample_sync": "task",
    "submit_estimation": "task",
    "submit_sampling": "task",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
