"""The questions to a vendor's backend. Everything here blocks."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from hpc_prefect.errors import ConfigurationError
from hpc_prefect.quantum.service import (
    CANCELLED,
    DONE,
    ERROR,
    QUEUED,
    RUNNING,
    DeviceChoice,
    Kind,
    Look,
)
from hpc_prefect.quantum.services.http_errors import chain, kind_by_status, status_of

#: By the names of Qiskit's JobStatus. With any other word the job has not ended.
_STATES = {
    "INITIALIZING": QUEUED,
    "VALIDATING": QUEUED,
    "QUEUED": QUEUED,
    "RUNNING": RUNNING,
    "DONE": DONE,
    "ERROR": ERROR,
    "CANCELLED": CANCELLED,
}
_TIMED_OUT = 408


@dataclass(frozen=True)
class CircuitOrder:
    """One job as `run` takes it.

    Attributes:
        circuits: bound, one for each point of each PUB.
        options: of the vendor's `run`.
    """

    circuits: list[Any]
    shots: int
    options: Mapping[str, Any]


class BackendService:
    """The service behind a backend, which is made at the first question, since that may sign in."""

    name = "qiskit"
    searchable = False

    def __init__(self, path: str, make: Callable[[], Any]) -> None:
        """`path`: as the block has it; `make`: makes the backend."""
        self._path, self._make = path, make
        self._backend: Any = None
        self._lock = threading.Lock()

    def _opened(self) -> Any:
        with self._lock:
            if self._backend is None:
                made = self._make()
                if missing := [name for name in ("run", "retrieve_job") if not hasattr(made, name)]:
                    raise ConfigurationError(
                        f"backend_name: {self._path!r} has no {' and no '.join(missing)}, so that"
                        " its jobs could not be found again by their id; nothing was submitted"
                    )
                self._backend = made
            return self._backend

    def device(self, choice: DeviceChoice) -> Any:
        """The backend itself."""
        return self._opened()

    def calibrated_at(self, device: Any) -> str:
        """As IQM's backends have it; empty for others."""
        return str(getattr(device, "calibration_set_id", "") or "")

    def usage(self) -> Mapping[str, Any]:
        """Unknown, so empty."""
        return {}

    def find(self, tag: str) -> list[tuple[str, str]]:
        """Empty: there is no search."""
        return []

    def post(self, order: CircuitOrder) -> str:
        """Submit; the job's id."""
        backend = self._opened()
        options = dict(order.options)
        if hasattr(backend.options, "memory"):
            options.setdefault("memory", True)
        return str(backend.run(order.circuits, shots=order.shots, **options).job_id())

    def look(self, job_id: str) -> Look:
        """How the job is."""
        job = self._job(job_id)
        said = job.status()
        status = _STATES.get(str(getattr(said, "name", said)).upper(), RUNNING)
        reason = ""
        if status == ERROR and hasattr(job, "error_message"):
            reason = " ".join(str(job.error_message() or "").split())
        return Look(status=status, reason=reason)

    def cancel(self, job_id: str) -> bool:
        """Request that it is cancelled; `look` shows what came of it."""
        return self._job(job_id).cancel() is not False

    def result(self, job_id: str, made_for: Mapping[str, Any]) -> Any:
        """The samples of a job that is done."""
        from hpc_prefect.quantum.services.qiskit_backend.samples import sampled

        return sampled(self._job(job_id).result(), made_for["layout"])

    def _job(self, job_id: str) -> Any:
        return self._opened().retrieve_job(job_id)

    def drop(self, job_id: str) -> None:
        """Nothing is kept of a job."""

    def forget(self) -> None:
        """Make a new backend at the next question."""
        with self._lock:
            self._backend = None

    def kind_of(self, error: BaseException) -> Kind:
        """The kind by the HTTP status if the error has one, else by its class; vendors differ."""
        if status := _status_of(error):
            return kind_by_status(status)
        if any(_is_network(each) for each in chain(error)):
            return Kind.TRANSIENT
        return Kind.REFUSED if isinstance(error, ConfigurationError) else Kind.FOREIGN

    def is_of_the_client(self, error: BaseException) -> bool:
        """Only for our own refusals: a vendor's error may come after the job was accepted."""
        return isinstance(error, ConfigurationError)

    def was_answered(self, error: BaseException) -> bool:
        """Not for a 5xx, which may come from something between the service and us, nor for a 408,
        which may come before or after the whole request was read.
        """
        status = _status_of(error)
        return 400 <= status < 500 and status != _TIMED_OUT


def _status_of(error: BaseException) -> int:
    return next((found for each in chain(error) if (found := status_of(each))), 0)


def _is_network(error: BaseException) -> bool:
    above = {f"{kind.__module__.partition('.')[0]}.{kind.__name__}" for kind in type(error).__mro__}
    vendors = {"requests.RequestException", "urllib3.HTTPError", "httpx.TransportError"}
    return isinstance(error, ConnectionError | TimeoutError) or bool(above & vendors)
