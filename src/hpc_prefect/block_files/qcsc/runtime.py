"""Converts `QiskitRuntimeConfig` to our two blocks: the backend and its credentials."""

from __future__ import annotations

from typing import Any

from hpc_prefect.block_files.qcsc.fates import QcscFields
from hpc_prefect.block_files.qcsc.toml_text import Reference

_CHANNELS = ("ibm_quantum_platform", "ibm_cloud")
_TOKEN = "QISKIT_IBM_TOKEN"


def read_runtime(fields: QcscFields) -> list[tuple[str, str, dict[str, Any]]]:
    """The backend, preceded by its credentials, if the block has any."""
    backend: dict[str, Any] = {"kind": "ibm"}
    backend["backend_name"] = fields.text("backend_name") or "<device>"
    fields.tell("backend_name", "kept", f"[quantum-backend.{fields.name}]")
    credentials = _credentials(fields)
    if not credentials:
        return [("quantum-backend", fields.name, backend)]
    backend["credentials_block_name"] = fields.name
    return [
        ("ibm-credentials", fields.name, credentials),
        ("quantum-backend", fields.name, backend),
    ]


def _credentials(fields: QcscFields) -> dict[str, Any]:
    table = f"[ibm-credentials.{fields.name}]"
    found: dict[str, Any] = {}
    if fields.text("token"):
        found["token"] = Reference(f"${{ENV:{_TOKEN}}}")
        why = f"is neither read nor written: set {_TOKEN} where you run `blocks apply`"
        fields.tell("token", "decide", f"{table} token", why)
    else:
        why = "empty: the account that qiskit-ibm-runtime finds by itself, as before"
        fields.tell("token", "left out", why=why)
    channel = fields.text("channel")
    if channel in _CHANNELS:
        found["channel"] = channel
        fields.tell("channel", "kept", table)
    elif channel:
        why = f"is none of {', '.join(_CHANNELS)}; the first one is taken"
        fields.tell("channel", "decide", f"{table} channel", why)
    else:
        fields.tell("channel", "left out", why="empty")
    if instance := fields.text("instance"):
        found["instance"] = instance
        fields.tell("instance", "kept", table)
    else:
        fields.tell("instance", "left out", why="empty")
    for name in ("account_name", "filename"):
        given = fields.text(name)
        why = (
            "saved accounts cannot be chosen by name or file: give the account's token and"
            " instance in a block, or make it the default one of qiskit-ibm-runtime"
        )
        fields.tell(name, "decide" if given else "left out", why=why if given else "empty")
    return found
