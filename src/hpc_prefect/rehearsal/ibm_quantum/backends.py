"""The backends that are offered: IBM's own snapshots of devices, as JSON, and what moves on them.

The snapshots come with qiskit-ibm-runtime as files, which are found without importing it: that
takes seconds, and the service answers before.
"""

from __future__ import annotations

import json
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

_PREFIX = "fake_"


class UnknownDevice(Exception):
    """There is no such device, or qiskit-ibm-runtime is not installed."""


def snapshots() -> dict[str, Path]:
    """The folder of each snapshot, by the device's name here."""
    found = find_spec("qiskit_ibm_runtime")
    if found is None or not found.submodule_search_locations:
        raise UnknownDevice(
            "qiskit-ibm-runtime is not installed; run `pip install 'hpc-prefect[ibm]'`"
        )
    root = Path(found.submodule_search_locations[0]) / "fake_provider" / "backends"
    return {
        _PREFIX + folder.name: folder
        for folder in sorted(root.iterdir())
        if (folder / f"conf_{folder.name}.json").exists()
        and (folder / f"props_{folder.name}.json").exists()
    }


class Device:
    """One backend, by its snapshot."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self._folder = folder

    @cached_property
    def configuration(self) -> dict[str, Any]:
        """As the device itself told it, under the name it has here."""
        text = (self._folder / f"conf_{self._folder.name}.json").read_text()
        values: dict[str, Any] = json.loads(text)
        return values | {"backend_name": self.name}

    def properties(self, calibrated: str | None) -> dict[str, Any]:
        """Its calibration; `calibrated` (ISO 8601) is its time if it is not the snapshot's."""
        text = (self._folder / f"props_{self._folder.name}.json").read_text()
        values: dict[str, Any] = json.loads(text)
        moved = {} if calibrated is None else {"last_update_date": calibrated}
        return values | {"backend_name": self.name} | moved

    @property
    def qubits(self) -> int:
        return int(self.configuration["n_qubits"])

    @property
    def repetition_seconds(self) -> float:
        """From the start of one shot to that of the next; the snapshot has microseconds."""
        return float(self.configuration.get("default_rep_delay", 250.0)) * 1e-6

    def listed(self, *, waiting: int, maintenance: bool) -> dict[str, Any]:
        """Its line in the list of backends."""
        configuration = self.configuration
        clops = configuration.get("clops_h") or configuration.get("clops_v")
        return {
            "name": self.name,
            "class": "device",
            "status": {
                "name": "offline" if maintenance else "online",
                "reason": "maintenance" if maintenance else "available",
            },
            "is_simulator": bool(configuration["simulator"]),
            "qubits": self.qubits,
            "clops": {"type": "hardware", "value": clops if isinstance(clops, int) else 0},
            "processor_type": configuration.get("processor_type", {}),
            "queue_length": waiting,
            "wait_time_seconds": {"average": 0},
        }

    def status(self, *, waiting: int, maintenance: bool) -> dict[str, Any]:
        return {
            "backend_version": self.configuration["backend_version"],
            "state": not maintenance,
            "status": "maintenance" if maintenance else "active",
            "message": "",
            "length_queue": waiting,
        }


def devices(names: tuple[str, ...]) -> dict[str, Device]:
    """The devices of these names.

    Raises:
        UnknownDevice: there is no snapshot of one of them.
    """
    known = snapshots()
    unknown = [name for name in names if name not in known]
    if unknown:
        raise UnknownDevice(f"there is no device {unknown[0]!r}; there are {', '.join(known)}")
    return {name: Device(name, known[name]) for name in names}
