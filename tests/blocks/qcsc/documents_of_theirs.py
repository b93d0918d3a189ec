"""Documents as qcsc-prefect 0.3.0 stores them, made up for the tests."""

from __future__ import annotations

from typing import Any

from hpc_prefect.block_files.qcsc.conversion import Conversion, convert
from hpc_prefect.block_files.qcsc.documents import COMMAND, EXECUTION, HPC, RUNTIME, QcscDocument
from hpc_prefect.block_files.qcsc.fates import Fate

#: Every field of theirs, with the value that it has where nobody gave one.
FIELDS: dict[str, dict[str, Any]] = {
    COMMAND: {
        "command_name": "diag",
        "executable_key": "diag",
        "description": None,
        "default_args": [],
    },
    EXECUTION: {
        "profile_name": "diag-mpi",
        "command_name": "diag",
        "resource_class": "cpu",
        "num_nodes": 1,
        "mpiprocs": 1,
        "ompthreads": None,
        "walltime": "00:05:00",
        "launcher": "single",
        "mpi_options": [],
        "modules": [],
        "pre_commands": [],
        "environments": {},
    },
    HPC: {
        "hpc_target": "miyabi",
        "queue_cpu": "regular-c",
        "queue_gpu": "regular-g",
        "project_cpu": "",
        "project_gpu": "",
        "executable_map": {},
        "slurm_qpu": None,
        "slurm_memory": None,
        "slurm_ntasks": None,
        "slurm_extra_directives": [],
        "gfscache": None,
        "spack_modules": [],
        "mpi_options_for_pjm": [],
        "pjm_resources": [],
    },
    RUNTIME: {
        "backend_name": "ibm_torino",
        "channel": None,
        "instance": None,
        "token": None,
        "account_name": None,
        "filename": None,
    },
}


def document(slug: str, name: str, **fields: Any) -> QcscDocument:
    return QcscDocument(slug, name, FIELDS[slug] | fields)


def three(
    execution: dict[str, Any], hpc: dict[str, Any], command: dict[str, Any] | None = None
) -> Conversion:
    """One command, one execution profile and one HPC profile that has its program."""
    place = {"executable_map": {"diag": "/opt/diag"}, "project_cpu": "gz00"}
    return convert(
        [
            document(COMMAND, "cmd", **command or {}),
            document(EXECUTION, "exec", **execution),
            document(HPC, "hpc", **place | hpc),
        ]
    )


def told(made: Conversion, field: str) -> list[Fate]:
    return [fate for fate in made.fates if fate.field == field]


def outcomes(made: Conversion, field: str) -> list[str]:
    return [fate.outcome for fate in told(made, field)]
