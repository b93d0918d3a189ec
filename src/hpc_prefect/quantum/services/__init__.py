"""Quantum services, one folder for each vendor.

A vendor's module has `build(spec, account)`, which makes the backend of a block, and
`of_environment()`, the service for a job whose block cannot be loaded; None if the environment
names no account.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

#: By the `kind` of a `QuantumBackendBlock`.
VENDORS = {
    "ibm": "hpc_prefect.quantum.services.ibm.backend",
    "qiskit": "hpc_prefect.quantum.services.qiskit_backend.backend",
}


def vendor(kind: str) -> Any:
    """The vendor's module."""
    return import_module(VENDORS[kind])
