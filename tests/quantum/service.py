"""An IBM Quantum service on loopback for tests: the real client's plain calls end up there.

    from .service import ibm_quantum  # noqa: F401 - the fixture

    def test_x(ibm_quantum: QuantumService) -> None:
        ibm_quantum.fault("poll-fails", times=2)
        QiskitRuntimeService()  # finds it, here and in processes that the test starts

The faults and what they take are in `hpc_rehearsal/ibm_quantum/faults.py`.
"""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hpc_rehearsal.ibm_quantum.faults import switch_on
from hpc_rehearsal.ibm_quantum.process import RunningService, start
from hpc_rehearsal.ibm_quantum.settings import Settings


class QuantumService:
    """A service that a test has to itself."""

    def __init__(self, running: RunningService) -> None:
        self._running = running

    @property
    def environment(self) -> dict[str, str]:
        return self._running.environment

    @property
    def url(self) -> str:
        return self._running.url

    @property
    def token(self) -> str:
        return self._running.settings.token

    @property
    def crn(self) -> str:
        return self._running.settings.crn

    @property
    def state(self) -> Path:
        return self._running.state

    @property
    def pid(self) -> int:
        return self._running.process.pid

    @contextmanager
    def found(self) -> Iterator[None]:
        """Meanwhile a plain `QiskitRuntimeService()` finds this service."""
        with pytest.MonkeyPatch.context() as environment:
            for name, value in self.environment.items():
                environment.setenv(name, value)
            yield

    def fault(self, name: str, **values: object) -> None:
        switch_on(self.state, name, values)

    def clear(self, *names: str) -> None:
        """End these faults; all of them if none is named."""
        for path in (self.state / "faults").iterdir():
            if not names or path.name in names:
                path.unlink(missing_ok=True)

    def counters(self) -> dict[str, Any]:
        root = f"http://127.0.0.1:{self._running.port}"
        with urllib.request.urlopen(f"{root}/rehearsal/counters", timeout=60) as answer:
            values: dict[str, Any] = json.load(answer)
        return values

    def posted(self, tag: str | None = None) -> int:
        """How many jobs were accepted: in all, or with this tag."""
        counters = self.counters()
        return counters["posted"] if tag is None else counters["posted_by_tag"].get(tag, 0)

    def wait(self, until: Callable[[dict[str, Any]], bool], timeout_seconds: float = 120) -> None:
        """Wait until the counters are so."""
        deadline = time.monotonic() + timeout_seconds
        while not until(self.counters()):
            assert time.monotonic() < deadline, self.counters()
            time.sleep(0.05)

    def kill(self) -> None:
        self._running.kill()

    def stop(self) -> None:
        self._running.stop()

    def restart(self, **changed: Any) -> None:
        """Start it again on its port, after `kill` or `stop`, with some settings changed."""
        running = self._running
        settings = replace(running.settings, port=running.port, **changed)
        self._running = start(running.state, settings)


@contextmanager
def quantum_service(state: Path, **settings: Any) -> Iterator[QuantumService]:
    """A service with these settings (`Settings` has the names)."""
    service = QuantumService(start(state, Settings(**settings)))
    try:
        yield service
    finally:
        service.stop()


@pytest.fixture(scope="module")
def common_ibm_quantum(tmp_path_factory: pytest.TempPathFactory) -> Iterator[QuantumService]:
    """One service for all tests of a module: each has tags of its own and clears its faults."""
    with (
        quantum_service(tmp_path_factory.mktemp("ibm-quantum")) as service,
        service.found(),
    ):
        yield service


@pytest.fixture
def ibm_quantum(tmp_path: Path) -> Iterator[QuantumService]:
    """A service of the test's own, with no delays; the environment leads to it."""
    with quantum_service(tmp_path / "ibm-quantum") as service, service.found():
        yield service
