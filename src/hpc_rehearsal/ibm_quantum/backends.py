"""The offered backends: IBM's own snapshots of devices, as JSON, with a status that can change.

The snapshots are files of qiskit-ibm-runtime. They are found without importing it, which would take
seconds.
"""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hpc_rehearsal.ibm_quantum.simulation import FERMIONS

_PREFIX = "fake_"
_FERMION_GATES = {
    "x": (),
    "rz": ("theta",),
    "p": ("theta",),
    "cp": ("theta",),
    "rzz": ("theta",),
    "cz": (),
    "swap": (),
    "xx_plus_yy": ("theta", "beta"),
}


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
    """One backend, by its configuration."""

    def __init__(self, name: str, configuration: dict[str, Any]) -> None:
        self.name = name
        self.configuration = configuration | {"backend_name": name}

    def properties(self, calibrated: str | None) -> dict[str, Any]:
        """Its calibration data; `calibrated` (ISO 8601) replaces the snapshot's time."""
        return {}

    @property
    def qubits(self) -> int:
        return int(self.configuration["n_qubits"])

    @property
    def repetition_seconds(self) -> float:
        """Seconds from the start of one shot to the next; configurations have microseconds."""
        return float(self.configuration.get("default_rep_delay", 250.0)) * 1e-6

    def listed(self, *, waiting: int, maintenance: bool) -> dict[str, Any]:
        """Its entry in the list of backends."""
        configuration = self.configuration
        clops = configuration.get("clops_h") or configuration.get("clops_v")
        return {
            "name": self.name,
            "class": "simulator" if configuration["simulator"] else "device",
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


class Snapshot(Device):
    """A fake device: a real device's data, under the name of the fake one."""

    def __init__(self, name: str, folder: Path) -> None:
        self._folder = folder
        super().__init__(name, self._read("conf"))

    def properties(self, calibrated: str | None) -> dict[str, Any]:
        moved = {} if calibrated is None else {"last_update_date": calibrated}
        return self._read("props") | {"backend_name": self.name} | moved

    def _read(self, kind: str) -> dict[str, Any]:
        path = self._folder / f"{kind}_{self._folder.name}.json"
        values: dict[str, Any] = json.loads(path.read_text())
        return values


def _fermions() -> Device:
    """ffsim as a backend. The client sees a simulator, so it posts any circuit."""
    gates = [
        {"name": name, "parameters": list(parameters), "qasm_def": f"gate {name} q {{ }}"}
        for name, parameters in _FERMION_GATES.items()
    ]
    configuration = {
        "backend_version": "1.0.0",
        "n_qubits": 128,
        "basis_gates": list(_FERMION_GATES),
        "gates": gates,
        "supported_instructions": [*_FERMION_GATES, "measure", "barrier"],
        "coupling_map": None,
        "simulator": True,
        "local": False,
        "conditional": False,
        "open_pulse": False,
        "memory": True,
        "max_shots": 1_000_000,
        "online_date": "2026-01-01T00:00:00+00:00",
        "description": "LUCJ circuits in the sector of their particles, exactly (ffsim)",
    }
    return Device(FERMIONS, configuration)


def devices(names: tuple[str, ...]) -> dict[str, Device]:
    """The devices of these names.

    Raises:
        UnknownDevice: there is no snapshot of one of them.
    """
    known = snapshots()
    unknown = [name for name in names if name not in known and name != FERMIONS]
    if unknown:
        raise UnknownDevice(
            f"there is no device {unknown[0]!r}; there are {', '.join([FERMIONS, *known])}"
        )
    return {
        name: _fermions() if name == FERMIONS else Snapshot(name, known[name]) for name in names
    }
