"""The kind of an error: by class and HTTP status, whatever its text says."""

from __future__ import annotations

import pytest
import requests
from qiskit.providers.exceptions import QiskitBackendNotFoundError
from qiskit_ibm_runtime.api.exceptions import RequestsApiError
from qiskit_ibm_runtime.exceptions import (
    IBMInputValueError,
    IBMNotAuthorizedError,
    IBMRuntimeError,
    RuntimeInvalidStateError,
    RuntimeJobNotFound,
)

from hpc_prefect.quantum.services.ibm.error_kinds import (
    Kind,
    is_of_the_client,
    kind_of,
    was_answered,
)


def http_error(status: int) -> requests.HTTPError:
    response = requests.Response()
    response.status_code = status
    return requests.HTTPError("job 500 not found, 401 Unauthorized", response=response)


def as_the_client_raises(status: int) -> Exception:
    """Its chain: of requests, of its session, of the call, the last one cut for the reader."""
    try:
        try:
            try:
                raise http_error(status)
            except requests.HTTPError as error:
                if status == 503:  # so it does: no status, and no `from`
                    raise RequestsApiError("maintenance?") from None
                raise RequestsApiError(str(error), status) from error
        except RequestsApiError as error:
            raise IBMRuntimeError(f"Failed to run program: {error}") from None
    except IBMRuntimeError as error:
        return error


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, Kind.REFUSED),
        (401, Kind.UNAUTHORIZED),
        (403, Kind.REFUSED),
        (404, Kind.MISSING),
        (409, Kind.CONFLICT),
        (429, Kind.TRANSIENT),
        (500, Kind.TRANSIENT),
        (503, Kind.TRANSIENT),
        (522, Kind.TRANSIENT),
    ],
)
def test_the_http_status_decides_wherever_it_is_in_the_chain(status, kind):
    assert kind_of(as_the_client_raises(status)) is kind


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (requests.ConnectionError("401"), Kind.TRANSIENT),
        (requests.ReadTimeout("404"), Kind.TRANSIENT),
        (ConnectionResetError("400"), Kind.TRANSIENT),
        (IBMNotAuthorizedError("500"), Kind.UNAUTHORIZED),
        (RuntimeJobNotFound("503"), Kind.MISSING),
        (QiskitBackendNotFoundError("503"), Kind.MISSING),
        (RuntimeInvalidStateError("503"), Kind.CONFLICT),
        (IBMInputValueError("503"), Kind.REFUSED),
        (RuntimeError("503 Service Unavailable"), Kind.FOREIGN),
        (AttributeError("429"), Kind.FOREIGN),
    ],
)
def test_the_class_decides_where_there_is_no_status(error, kind):
    assert kind_of(error) is kind


def no_backend() -> None:
    try:
        raise requests.ConnectionError("refused")
    except requests.ConnectionError as error:
        raise QiskitBackendNotFoundError("No backend matches the criteria.") from error


def test_an_error_of_the_network_below_others_is_one():
    with pytest.raises(QiskitBackendNotFoundError) as raised:
        no_backend()

    assert kind_of(raised.value) is Kind.TRANSIENT


@pytest.mark.parametrize(
    ("error", "of_the_client", "answered"),
    [
        (IBMInputValueError("no"), True, False),
        (as_the_client_raises(400), False, True),
        (as_the_client_raises(404), False, True),
        (KeyError("backend"), False, False),  # a reply that makes no sense: posted, or not
        (ValueError("no JSON"), False, False),
    ],
)
def test_only_an_error_of_the_service_or_a_check_of_the_client_says_that_nothing_was_posted(
    error, of_the_client, answered
):
    assert (is_of_the_client(error), was_answered(error)) == (of_the_client, answered)
