"""What kind of trouble an error is, by its class and its HTTP status, never by its text.

The client (qiskit-ibm-runtime 0.51) wraps errors in its own and cuts the chain for the reader
(`raise … from None`), but Python keeps it in `__context__`. A 503 arrives with `status_code` -1 and
the response only in the chain.
"""

from __future__ import annotations

from collections.abc import Iterator

from hpc_prefect.quantum.service import Kind

#: Worth asking again: too early, too many requests, and every trouble of the server's own.
_PASSING = frozenset({408, 425, 429})
_CONFLICT, _MISSING = 409, 404


def kind_of(error: BaseException) -> Kind:
    """The kind of an error that a question to the service raised."""
    from qiskit.exceptions import QiskitError

    causes = list(_chain(error))
    status = next((found for each in causes if (found := status_of(each)) > 0), 0)
    if status:
        return _by_status(status)
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

    causes = list(_chain(error))
    names = {kind.__name__ for kind in type(error).__mro__}
    own = "IBMInputValueError" in names or isinstance(error, ValidationError)
    return own and not any(status_of(each) or _is_network(each) for each in causes)


def was_answered(error: BaseException) -> bool:
    """Whether the service has answered with an error of its own, so that nothing was done."""
    return any(status_of(each) >= 400 for each in _chain(error))


def status_of(error: BaseException) -> int:
    """The HTTP status that one error carries; 0 for none. The client writes -1 for none."""
    response = getattr(error, "response", None)
    for status in (
        getattr(error, "status_code", None),  # the client's, and ibm-cloud-sdk's ApiException
        getattr(response, "status_code", None),  # that of requests
    ):
        if isinstance(status, int) and status > 0:
            return status
    return 0


def _by_status(status: int) -> Kind:
    if status == 401:
        return Kind.UNAUTHORIZED
    if status == _MISSING:
        return Kind.MISSING
    if status == _CONFLICT:
        return Kind.CONFLICT
    return Kind.TRANSIENT if status >= 500 or status in _PASSING else Kind.REFUSED


def _is_network(error: BaseException) -> bool:
    from requests import RequestException
    from urllib3.exceptions import HTTPError

    # OSError last: requests' own errors are some, and so are those of sockets.
    return isinstance(error, RequestException | HTTPError | ConnectionError | TimeoutError)


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error and its causes, also those that a traceback hides (`raise … from None`)."""
    seen: set[int] = set()
    each: BaseException | None = error
    while each is not None and id(each) not in seen:
        seen.add(id(each))
        yield each
        each = each.__cause__ or each.__context__
