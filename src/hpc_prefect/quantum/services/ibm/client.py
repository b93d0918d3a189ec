"""The questions to IBM Quantum, asked with IBM's own client. Everything here blocks.

Only ids leave this module; the client's objects stay in it. One lock for all threads: the client
keeps the active instance as state.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from hpc_prefect.quantum.service import ENDS, ERROR, QUEUED, DeviceChoice, Kind, Look
from hpc_prefect.quantum.services.ibm.error_kinds import is_of_the_client, kind_of, was_answered

T = TypeVar("T")
logger = logging.getLogger("hpc_prefect.quantum")

LEAST_BUSY = "least-busy"
#: Seconds for a connection and for an answer; the client itself would wait for ever.
_PATIENCE = (10.0, 120.0)


@dataclass(frozen=True)
class Account:
    """How the client finds the service; empty fields it takes from its environment."""

    token: str = field(default="", repr=False)
    instance: str = ""
    channel: str = ""
    url: str = ""


@dataclass(frozen=True, kw_only=True)
class PrimitiveOrder:
    """One job as it is to be posted.

    Attributes:
        kind: sampler or estimator.
        pubs: transpiled for the device.
        options: the client's own, plain values.
        mode: job, batch or session; a batch or session of this id.
    """

    kind: str
    interface: str
    device: str
    fractional_gates: bool
    pubs: Sequence[Any]
    options: Mapping[str, Any]
    tags: Sequence[str]
    max_execution_time: int | None
    mode: str = "job"
    session_id: str = ""


class Client:
    """The service of one account. Signs in at the first question, and again after a 401."""

    name = "ibm"
    searchable = True
    kind_of = staticmethod(kind_of)
    is_of_the_client = staticmethod(is_of_the_client)
    was_answered = staticmethod(was_answered)

    def __init__(
        self,
        account: Account,
        *,
        sign_in: Callable[[Account], Any] | None = None,
        primitive: Callable[[str, str], Any] | None = None,
    ) -> None:
        """Both are seams for a simulation.

        Args:
            sign_in: gives the client's service; None for a `QiskitRuntimeService`.
            primitive: the client's class for a kind and an interface; None for the installed one.
        """
        self._account = account
        self._sign_in = sign_in or _open
        self._primitive = primitive or _primitive
        self._service: Any = None
        self._jobs: dict[str, Any] = {}
        self._lock = threading.RLock()

    def ask(self, question: Callable[[Any], T]) -> T:
        """Ask the service something; after a 401 the next question signs in again."""
        with self._signed_in() as service:
            return question(service)

    @contextlib.contextmanager
    def _signed_in(self) -> Iterator[Any]:
        with self._lock, _quiet():
            try:
                if self._service is None:
                    self._service = self._sign_in(self._account)
                yield self._service
            except Exception as error:
                if kind_of(error) is Kind.UNAUTHORIZED:
                    self.forget()
                raise

    def forget(self) -> None:
        """Sign in again at the next question."""
        with self._lock:
            self._service = None
            self._jobs.clear()

    def device(self, choice: DeviceChoice) -> Any:
        """The device, as Qiskit's transpiler takes it."""
        return self.ask(lambda service: _device(service, choice))

    def calibrated_at(self, device: Any) -> str:
        """When the device was calibrated last. Asks the service."""
        moment = getattr(device.properties(), "last_update_date", None)
        return moment.isoformat() if moment is not None else ""

    def usage(self) -> dict[str, Any]:
        """What the instance has used and may still use, in QPU seconds."""
        usage: dict[str, Any] = self.ask(lambda service: service.usage())
        return usage

    def find(self, tag: str) -> list[tuple[str, str]]:
        """(id, status) of the jobs with this tag, the oldest first."""

        def question(service: Any) -> list[tuple[str, str]]:
            jobs = service.jobs(job_tags=[tag], limit=20, descending=False)
            return [(job.job_id(), str(job.status())) for job in jobs]

        return self.ask(question)

    def post(self, order: PrimitiveOrder) -> str:
        """Post the job; its id."""
        with self._signed_in() as service:
            backend = service.backend(order.device, use_fractional_gates=order.fractional_gates)
            mode = backend
            if order.session_id:
                mode = _session_class(order.mode).from_id(order.session_id, service)
            environment = {**order.options.get("environment", {}), "job_tags": list(order.tags)}
            options: dict[str, Any] = {**order.options, "environment": environment}
            if order.max_execution_time:
                options["max_execution_time"] = order.max_execution_time
            primitive = self._primitive(order.kind, order.interface)(mode=mode, options=options)
            return str(primitive.run(order.pubs).job_id())

    def look(self, job_id: str) -> Look:
        """How the job is."""
        return self.ask(lambda service: _look(self._job(service, job_id)))

    def result(self, job_id: str, made_for: Mapping[str, Any]) -> Any:
        """The result of a job that is done, as often as it is asked for."""
        return self.ask(lambda service: self._job(service, job_id).result(timeout=0))

    def cancel(self, job_id: str) -> bool:
        """Ask the service to cancel the job; False if it had ended already.

        The client's object says cancelled from then on, whatever becomes of the job, so it is
        dropped.
        """
        try:
            self.ask(lambda service: self._job(service, job_id).cancel())
        except Exception as error:
            if kind_of(error) is Kind.CONFLICT:
                return False
            raise
        finally:
            self.drop(job_id)
        return True

    def open_session(self, mode: str, device: str, max_seconds: int) -> str:
        """A new batch or session; its id."""

        def question(service: Any) -> str:
            backend = service.backend(device)
            return str(_session_class(mode)(backend, max_time=max_seconds or None).session_id)

        return self.ask(question)

    def accepts_jobs(self, mode: str, session_id: str) -> bool:
        """Whether a batch or session is still open."""

        def question(service: Any) -> bool:
            details = _session_class(mode).from_id(session_id, service).details() or {}
            return bool(details.get("accepting_jobs")) and details.get("state") != "closed"

        try:
            return self.ask(question)
        except Exception as error:
            if kind_of(error) in (Kind.MISSING, Kind.REFUSED):
                return False
            raise

    def close_session(self, mode: str, session_id: str) -> None:
        """Close a batch or session for new jobs; the jobs in it still run."""
        self.ask(lambda service: _session_class(mode).from_id(session_id, service).close())

    def _job(self, service: Any, job_id: str) -> Any:
        if job_id not in self._jobs:
            self._jobs[job_id] = service.job(job_id)
        return self._jobs[job_id]

    def drop(self, job_id: str) -> None:
        """Forget the client's object of a job that is over."""
        with self._lock:
            self._jobs.pop(job_id, None)


def _open(account: Account) -> Any:
    from qiskit_ibm_runtime import QiskitRuntimeService

    given = {
        name: value
        for name in ("token", "instance", "channel", "url")
        if (value := getattr(account, name))
    }
    service = QiskitRuntimeService(**given)
    for api_client in getattr(service, "_api_clients", {}).values():
        _ask_once(api_client)
    return service


def _ask_once(api_client: Any) -> None:
    """Switch off the client's own repetitions, which we decide on, and its endless waiting.

    It repeats a POST after a 5xx (0.51, `PostForcelistRetry`), which buys a second job when the
    first one was accepted and only the reply was lost. The attribute is private; should it be
    renamed, the duplicate is found by its tag and cancelled.
    """
    from requests.adapters import HTTPAdapter

    session = getattr(api_client, "_session", None)
    if session is not None and hasattr(session, "mount"):
        for scheme in ("http://", "https://"):
            session.mount(scheme, HTTPAdapter(max_retries=0))
        session._timeout = _PATIENCE


def _device(service: Any, choice: DeviceChoice) -> Any:
    if choice.name != LEAST_BUSY:
        return service.backend(choice.name, use_fractional_gates=choice.fractional_gates)
    wanted = set(choice.only)
    return service.least_busy(
        min_num_qubits=choice.min_num_qubits or None,
        filters=(lambda device: device.name in wanted) if wanted else None,
        use_fractional_gates=choice.fractional_gates,
        **({"simulator": False, "operational": True} if wanted else {}),
    )


def has_executor() -> bool:
    """Whether the installed client has the successors of SamplerV2 and EstimatorV2."""
    from importlib.util import find_spec

    return find_spec("qiskit_ibm_runtime.executor_sampler") is not None


def _primitive(kind: str, interface: str) -> Any:
    if interface == "executor":
        if kind == "sampler":
            from qiskit_ibm_runtime.executor_sampler import Sampler

            return Sampler
        from qiskit_ibm_runtime.executor_estimator import Estimator

        return Estimator
    from qiskit_ibm_runtime import EstimatorV2, SamplerV2

    return SamplerV2 if kind == "sampler" else EstimatorV2


def _session_class(mode: str) -> Any:
    from qiskit_ibm_runtime import Batch, Session

    return Batch if mode == "batch" else Session


def _look(job: Any) -> Look:
    status = str(job.status())
    reason = " ".join(str(job.error_message() or "").split()) if status == ERROR else ""
    metrics = job.metrics() if status == QUEUED or status in ENDS else {}
    facts = _facts(metrics) | {"estimated_seconds": job.usage_estimation.get("quantum_seconds")}
    return Look(status=status, reason=reason, facts=facts)


def _facts(metrics: Mapping[str, Any]) -> dict[str, Any]:
    times, usage = metrics.get("timestamps") or {}, metrics.get("usage") or {}
    # `quantum_seconds` before 0.51; "pending" is a figure that may still change.
    seconds = usage.get("qpu_charge_time_seconds", usage.get("quantum_seconds"))
    return {
        "created": times.get("created"),
        "running": times.get("running"),
        "finished": times.get("finished"),
        "position": metrics.get("position_in_queue"),
        "starts_at": metrics.get("estimated_start_time"),
        "qpu_seconds": None if usage.get("status") == "pending" else seconds,
    }


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Logs the client's warnings; their text never contains the token."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        yield
    for each in caught:
        if not issubclass(each.category, DeprecationWarning):
            logger.warning("qiskit-ibm-runtime: %s", each.message)


_clients: dict[tuple[object, ...], Client] = {}
_clients_lock = threading.Lock()


def client_of(account: Account) -> Client:
    """The process's client of an account, which may be the environment's."""
    around = (value for name, value in os.environ.items() if name.startswith("QISKIT_IBM_"))
    key = (account, *sorted(around))
    with _clients_lock:
        return _clients.setdefault(key, Client(account))
