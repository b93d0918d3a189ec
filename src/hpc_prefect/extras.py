"""The optional packages, and the message for those that are not installed.

It imports nothing, so that every part of the package can use it.
"""

from __future__ import annotations

#: Module → distribution, and our extra that installs it.
OPTIONAL = {
    "numpy": ("numpy", "quantum"),
    "qiskit": ("qiskit", "quantum"),
    "qiskit_aer": ("qiskit-aer", "quantum"),
    "ffsim": ("ffsim", "quantum"),
    "qiskit_ibm_runtime": ("qiskit-ibm-runtime", "ibm"),
    "fastapi": ("fastapi", "rehearsal"),
    "uvicorn": ("uvicorn", "rehearsal"),
    "matplotlib": ("matplotlib", "plot"),
    "pyscf": ("pyscf", "sqd"),
    "qiskit_addon_sqd": ("qiskit-addon-sqd", "sqd"),
    "mpi4py": ("mpi4py", "mpi"),
    "rocrate": ("rocrate", "crate"),
    "mlflow": ("mlflow-skinny", "mlflow"),
    "prefect_dask": ("prefect-dask", "dask"),
    "distributed": ("distributed", "dask"),
    "cryptography": ("cryptography", "dask"),
}


def missing(what: str, *modules: str) -> str:
    """Which packages are missing for something, and how to install them; empty if none is.

    Args:
        what: the beginning of the sentence: `sampling`, `the simulator 'aer'`.
    """
    from importlib.util import find_spec

    absent = [module for module in modules if find_spec(module) is None]
    if not absent:
        return ""
    names = ", ".join(OPTIONAL[module][0] for module in absent)
    extras = dict.fromkeys(OPTIONAL[module][1] for module in absent)  # each once, in their order
    verb = "is" if len(absent) == 1 else "are"
    return (
        f"{what} needs {names}, which {verb} not installed here;"
        f" run: pip install 'hpc-prefect[{','.join(extras)}]'"
    )
