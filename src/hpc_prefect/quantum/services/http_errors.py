"""Helpers for errors of vendors' clients: the chain of causes, and the HTTP status."""

from __future__ import annotations

from collections.abc import Iterator

from hpc_prefect.quantum.service import Kind

#: Statuses worth asking again: too early, too many requests, and every error of the server.
_PASSING = frozenset({408, 425, 429})
_OWN = {401: Kind.UNAUTHORIZED, 404: Kind.MISSING, 409: Kind.CONFLICT}


def chain(error: BaseException) -> Iterator[BaseException]:
    """The error and its causes, also those that a traceback hides (`raise … from None`)."""
    seen: set[int] = set()
    each: BaseException | None = error
    while each is not None and id(each) not in seen:
        seen.add(id(each))
        yield each
        each = each.__cause__ or each.__context__


def status_of(error: BaseException) -> int:
    """The HTTP status that one error carries; 0 for none. Some clients write -1 for none."""
    response = getattr(error, "response", None)
    for status in (
        getattr(error, "status_code", None),  # the client's, and ibm-cloud-sdk's ApiException
        getattr(response, "status_code", None),  # that of requests and httpx
    ):
        if isinstance(status, int) and status > 0:
            return status
    return 0


def kind_by_status(status: int) -> Kind:
    """What can be done about an answer that is an error."""
    if status in _OWN:
        return _OWN[status]
    return Kind.TRANSIENT if status >= 500 or status in _PASSING else Kind.REFUSED
