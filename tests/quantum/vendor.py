"""A vendor of quantum computers, for tests: Qiskit's interface, with jobs in files of a folder.

`VENDOR` names the folder. A file in it is a fault: `lose-reply` takes the job and loses the reply,
`refuse` answers 400, or what is in it, `fail` has jobs fail, `hold` leaves them in the queue,
`no-memory` gives counts alone. All but `hold` and `no-memory` happen once.

It proves nothing about a real vendor: what those raise and keep is taken from their packages'
sources (IonQ's, IQM's and Azure's `retrieve_job`), not from their services.
"""

from __future__ import annotations

import json
import os
import uuid
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from qiskit.providers import JobStatus
from qiskit.providers.fake_provider import GenericBackendV2
from qiskit_aer import AerSimulator


class Refused(Exception):
    """An answer of the service's."""

    def __init__(self, text: str, status_code: int) -> None:
        super().__init__(text)
        self.status_code = status_code


class Job:
    def __init__(self, path: Path) -> None:
        self._path = path

    def _read(self) -> dict[str, Any]:
        return json.loads(self._path.read_text())

    def job_id(self) -> str:
        return self._path.stem

    def status(self) -> JobStatus:
        state = JobStatus[self._read()["state"]]
        held = (self._path.parent / "hold").exists()
        return JobStatus.QUEUED if state is JobStatus.DONE and held else state

    def error_message(self) -> str:
        return "the trap\nwas empty"

    def cancel(self) -> None:
        if self.status() is JobStatus.QUEUED:
            self._path.write_text(json.dumps(self._read() | {"state": "CANCELLED"}))

    def result(self) -> Any:
        kept = self._read()["experiments"]
        data = [SimpleNamespace(memory=each["memory"]) for each in kept]
        return SimpleNamespace(
            results=[SimpleNamespace(data=each) for each in data],
            get_counts=lambda number: kept[number]["counts"],
        )


class Machine(GenericBackendV2):
    def __init__(self) -> None:
        super().__init__(3, seed=1, noise_info=False)
        self.name = "machine"

    def run(self, circuits: list[Any], **options: Any) -> Job:
        folder = Path(os.environ["VENDOR"])
        status = refusal.read_text() if (refusal := folder / "refuse").exists() else ""
        if fault(folder, "refuse"):
            raise Refused("these gates are not sold", int(status or 400))
        result = AerSimulator().run(circuits, **options).result()
        no_memory = (folder / "no-memory").exists()
        experiments = [
            {
                "memory": None if no_memory else list(result.results[number].data.memory),
                "counts": dict(result.get_counts(number)),
            }
            for number in range(len(circuits))
        ]
        state = "ERROR" if fault(folder, "fail") else "DONE"
        path = folder / f"{uuid.uuid4().hex}.json"
        path.write_text(json.dumps({"state": state, "experiments": experiments}))
        if fault(folder, "lose-reply"):
            raise ConnectionError("the line is dead")
        return Job(path)

    def retrieve_job(self, job_id: str) -> Job:
        return Job(Path(os.environ["VENDOR"], f"{job_id}.json"))


def fault(folder: Path, name: str) -> bool:
    try:
        (folder / name).unlink()
    except FileNotFoundError:
        return False
    return True


class Forgetful(GenericBackendV2):
    """Its jobs cannot be found again."""

    def __init__(self) -> None:
        super().__init__(3)


machine = Machine()
