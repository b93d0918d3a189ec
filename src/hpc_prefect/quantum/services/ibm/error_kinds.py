"""The kind of an error, by its class and its HTTP status, never by its text.

The client (qiskit-ibm-runtime 0.51) wraps errors in its own and cuts the chain for the reader
(`raise … from None`), but Python keeps it in `__context__`. A 503 arrives with `status_code` -1 and
the response only in the chain.
"""

from __future__ import annotations

from hpc_prefect.quantum.service import Kind
from hpc_prefect.quantum.services.http_errors import chain, kind_by_status, status_of


def kind_of(error: BaseException) -> Kind:
    """The kind of an error that a question to the service raised."""
    from qiskit.exceptions import QiskitError

    causes = list(chain(error))
    status = next((found for each in causes if (found := status_of(each)) > 0), 0)
    if status:
        return kind_by_status(status)
    if any(_is_network(each) for each in causes):
        return Kind.TRANSIENT
    names = {kind.__name__ for each in causes for kind in type(each).__mro__}
    if "IBMNotAuthorizedError" in names or "InvalidAccountError" in names:
        return Kind.UNAUTHORIZED
    if names & {"RuntimeJobNotFound", "QiskitBackendNotFoundError"}:
        return Kind.MISSING
    if "RuntimeInvalidStateError" in names:
        return Kind.CONFLICT
    if isinstance(error, QiskitError | ValueError):
        return Kind.REFUSED
    return Kind.FOREIGN


def is_of_the_client(error: BaseException) -> bool:
    """Whether the client refused what it was given, before it asked the service."""
    from pydantic import ValidationError

    causes = list(chain(error))
    names = {kind.__name__ for kind in type(error).__mro__}
    own = "IBMInputValueError" in names or isinstance(error, ValidationError)
    return own and not any(status_of(each) or _is_network(each) for each in causes)


def was_answered(error: BaseException) -> bool:
    """Whether the service has answered with an error of its own, so that nothing was done."""
    return any(status_of(each) >= 400 for each in chain(error))


def _is_network(error: BaseException) -> bool:
    from requests import RequestException
    from urllib3.exceptions import HTTPError

    # OSError last: requests' own errors are some, and so are those of sockets.
    return isinstance(error, RequestException | HTTPError | ConnectionError | TimeoutError)
