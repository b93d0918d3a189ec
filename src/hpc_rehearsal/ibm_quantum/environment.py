"""The environment with which an unmodified client finds the service."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from hpc_rehearsal.ibm_quantum.settings import Settings

#: qiskit-ibm-runtime derives the host from the instance, and drops the port, unless the address
#: contains "experimental" (0.51, `api/utils.py::default_runtime_url_resolver`).
API_PATH = "/experimental/api/v1"
CATALOG_PATH = "/catalog"


def api_url(port: int) -> str:
    return f"http://127.0.0.1:{port}{API_PATH}"


def environment(settings: Settings, port: int) -> dict[str, str]:
    """The variables to add to the command's environment."""
    root = f"http://127.0.0.1:{port}"
    return {
        "QISKIT_IBM_CHANNEL": "ibm_quantum_platform",
        "QISKIT_IBM_TOKEN": settings.token,
        "QISKIT_IBM_URL": api_url(port),
        "QISKIT_IBM_INSTANCE": settings.crn,
        "IAM_URL": root,
        "GLOBAL_SEARCH_URL": root,
        "GLOBAL_CATALOG_URL": root + CATALOG_PATH,
        # Requests to loopback must not go through a proxy of the site.
        "NO_PROXY": "127.0.0.1,localhost",
        "no_proxy": "127.0.0.1,localhost",
    }
