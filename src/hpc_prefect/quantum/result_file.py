"""The record of one sampling or estimation: two files in a folder of its own.

    sampling.json   what was asked, by which versions, when; and, when it is finished, the checksum
                    of the result and of its data alone. Written before the sampling ("asked")
                    and after it ("finished"). An estimation's is estimation.json.
    result.npz      NumPy's archive without pickles: one array for each register of each PUB, and
                    `layout`, JSON text in UTF-8 that says how they belong together.

Both are replaced as a whole. The result is written before the "finished" with its checksum.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from qiskit.primitives import BitArray, DataBin, PrimitiveResult, PubResult, SamplerPubResult

from hpc_prefect.errors import LedgerError
from hpc_prefect.ledger.quantum_folder import RECORDS, RESULT
from hpc_prefect.transports.base import Transport
from hpc_prefect.transports.local import LocalTransport

FORMAT = 1
#: Where the record is, unless it is told: on this machine.
_HERE = LocalTransport()


def write_asked(
    folder: Path, asked: Mapping[str, Any], kind: str = "sampler", transport: Transport = _HERE
) -> None:
    """Record what will be sampled or estimated, before it is."""
    transport.make_folder(str(folder))
    record = {"format": FORMAT, "state": "asked", **asked}
    transport.write_atomic(str(folder / RECORDS[kind]), _json(record))


def read_asked(folder: Path, kind: str = "sampler", transport: Transport = _HERE) -> dict[str, Any]:
    """What was asked; empty if the record is torn or not there."""
    try:
        record = json.loads(transport.read_private(str(folder / RECORDS[kind])) or b"")
    except ValueError:
        return {}
    ours = ("format", "state", "result")
    return {name: value for name, value in record.items() if name not in ours}


def write_finished(
    folder: Path,
    asked: Mapping[str, Any],
    result: PrimitiveResult,
    kind: str = "sampler",
    transport: Transport = _HERE,
) -> None:
    """Write the result, then the record that it is complete."""
    packed = pack(result)
    transport.write_atomic(str(folder / RESULT), packed, durable=True)
    finished = {
        "format": FORMAT,
        "state": "finished",
        **asked,
        "result": {
            "file": RESULT,
            "sha256": hashlib.sha256(packed).hexdigest(),
            "data_sha256": data_digest(result),
        },
    }
    transport.write_atomic(str(folder / RECORDS[kind]), _json(finished), durable=True)


def read_finished(
    folder: Path, digest: str, kind: str = "sampler", transport: Transport = _HERE
) -> PrimitiveResult | None:
    """The result of an earlier run, or None if none was finished here.

    Raises:
        LedgerError: there is a record, but it is torn, belongs to other work, or its result is
            missing or altered.
        NotOurs: another user may have written it.
    """
    name = RECORDS[kind]
    text = transport.read_private(str(folder / name))
    if text is None:
        return None
    try:
        record = json.loads(text)
        if record["state"] != "finished":
            return None
        asked, wanted = record["digest"], record["result"]["sha256"]
    except (ValueError, KeyError, TypeError) as error:
        raise LedgerError(f"{folder / name} cannot be used ({error!r})") from error
    packed = transport.read_private(str(folder / RESULT))
    if packed is None:
        raise LedgerError(f"{folder / name} cannot be used: {RESULT} is not there")
    if asked != digest:
        raise LedgerError(f"{folder / name} belongs to another sampling (its digest is {asked})")
    if hashlib.sha256(packed).hexdigest() != wanted:
        raise LedgerError(f"{folder / RESULT} was changed: its checksum is not the one in {name}")
    return unpack(packed)


def data_digest(result: PrimitiveResult) -> str:
    """The SHA-256 of the measured data, without metadata such as times."""
    digest = hashlib.sha256()
    for pub in result:
        for name, value in pub.data.items():
            bits = value.num_bits if isinstance(value, BitArray) else None
            array = value.array if isinstance(value, BitArray) else np.asarray(value)
            head = [name, bits, list(pub.data.shape), array.dtype.str, list(array.shape)]
            digest.update(json.dumps(head).encode() + b"\n" + array.tobytes())
    return digest.hexdigest()


def pack(result: PrimitiveResult) -> bytes:
    """A primitive result as the bytes of an .npz archive."""
    arrays: dict[str, np.ndarray] = {}
    pubs = []
    for i, pub in enumerate(result):
        fields = []
        for j, (name, value) in enumerate(pub.data.items()):
            key = f"pub{i}.field{j}"
            field: dict[str, Any] = {"name": name, "array": key}
            if isinstance(value, BitArray):
                field["num_bits"] = value.num_bits
            arrays[key] = value.array if isinstance(value, BitArray) else np.asarray(value)
            fields.append(field)
        one = {"shape": list(pub.data.shape), "fields": fields, "metadata": as_json(pub.metadata)}
        pubs.append(one | ({} if isinstance(pub, SamplerPubResult) else {"kind": "estimator"}))
    layout = {"format": FORMAT, "pubs": pubs, "metadata": as_json(result.metadata)}
    arrays["layout"] = np.frombuffer(json.dumps(layout).encode(), dtype=np.uint8)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


def unpack(packed: bytes) -> PrimitiveResult:
    """The primitive result in the bytes of an .npz archive.

    Raises:
        LedgerError: the bytes are not such an archive.
    """
    try:
        with np.load(io.BytesIO(packed), allow_pickle=False) as archive:
            layout = json.loads(archive["layout"].tobytes())
            results = [_unpack_pub(pub, archive) for pub in layout["pubs"]]
            return PrimitiveResult(results, metadata=layout["metadata"])
    except (zipfile.BadZipFile, ValueError, KeyError, TypeError, EOFError) as error:
        raise LedgerError(f"{RESULT} is not the archive of a sampling ({error!r})") from error


def _unpack_pub(pub: dict[str, Any], archive: Mapping[str, np.ndarray]) -> PubResult:
    fields = {}
    for field in pub["fields"]:
        array = archive[field["array"]]
        fields[field["name"]] = BitArray(array, field["num_bits"]) if "num_bits" in field else array
    kind = PubResult if pub.get("kind") == "estimator" else SamplerPubResult
    return kind(DataBin(**fields, shape=tuple(pub["shape"])), metadata=pub["metadata"])


def as_json(value: object) -> Any:
    """Metadata as JSON values; what JSON does not have becomes text."""
    if isinstance(value, Mapping):
        return {str(key): as_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [as_json(item) for item in value]
    if isinstance(value, np.ndarray | np.generic):
        return as_json(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if value is None or isinstance(value, bool | int | str):
        return value
    return str(value)


def _json(value: Mapping[str, Any]) -> bytes:
    return (json.dumps(as_json(value), indent=2, allow_nan=False) + "\n").encode()
