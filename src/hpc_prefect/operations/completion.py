"""Whether a campaign is complete: its flow has completed, and all of its calls have succeeded."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from typing import Any

from hpc_prefect.job.identity import spread
from hpc_prefect.job.members import ASKED
from hpc_prefect.ledger.campaign_parts import folders_of, home_of
from hpc_prefect.ledger.claim import Claimant
from hpc_prefect.ledger.quantum_folder import RECORDS
from hpc_prefect.operations.snapshot import read_job
from hpc_prefect.transports.base import Transport

COMPLETED = "completed"
FAILED = "failed"


def note_failed(transport: Transport, work: str, flow_run: str) -> None:
    """Note that a call did not succeed: until it has, its campaign is not complete.

    Args:
        work: the folder of the call's work, `<campaign>/<2 hex>/<key>`, or anything else below.
    """
    campaign, _, key = work.rsplit("/", 2)
    transport.make_folder(f"{campaign}/{FAILED}")
    transport.write_atomic(f"{campaign}/{FAILED}/{key}", flow_run.encode())


def note_succeeded(transport: Transport, work: str) -> None:
    """Note that all of a call has succeeded now, whatever an earlier run noted."""
    campaign, _, key = work.rsplit("/", 2)
    transport.remove(f"{campaign}/{FAILED}/{key}")


def unfinished(transport: Transport, campaign: str, flow_run: str) -> Iterator[str]:
    """Keys of a flow run's calls, in all of the campaign's folders, that have not succeeded."""
    for folder in folders_of(transport, campaign):
        for key in transport.list(f"{folder}/{FAILED}"):
            by = (transport.read(f"{folder}/{FAILED}/{key}") or b"").decode(errors="replace")
            if by == flow_run and not _has_succeeded(transport, folder, key):
                yield key


def _has_succeeded(transport: Transport, campaign: str, key: str) -> bool:
    above = f"{campaign}/{spread(key)}"
    numbers = [name.removeprefix(f"{key}-") for name in transport.list(above)]
    newest = max((int(number) for number in numbers if number.isdecimal()), default=0)
    if newest and transport.status(f"{above}/{key}-{newest}/{ASKED}") is not None:
        return False  # an array: its newest submission may have only some of the members
    if newest:
        result = read_job(f"{above}/{key}-{newest}", transport).result
        return result is not None and result.succeeded
    return has_result(transport, f"{above}/{key}")


def has_result(transport: Transport, folder: str) -> bool:
    """Whether the result of a sampling or estimation is in its folder: its record says so."""
    return any(_is_finished(transport.read(f"{folder}/{name}")) for name in RECORDS.values())


def _is_finished(data: bytes | None) -> bool:
    try:
        record: Any = json.loads(data or b"")
        return bool(record["state"] == "finished")
    except (ValueError, KeyError, TypeError):
        return False


def mark_completed(transport: Transport, campaign: str, by: Claimant) -> None:
    """Mark a campaign as completed: in its home folder, and in each of its folders in case the home
    is lost later.
    """
    text = json.dumps(dataclasses.asdict(by)).encode() + b"\n"
    for folder in folders_of(transport, campaign):
        if transport.list(folder):  # it may have been removed
            for key in transport.list(f"{folder}/{FAILED}"):
                transport.remove(f"{folder}/{FAILED}/{key}")
            transport.write_atomic(f"{folder}/{COMPLETED}", text)


def is_marked(transport: Transport, campaign: str) -> bool:
    """Whether it was marked as completed."""
    return transport.status(f"{home_of(transport, campaign)}/{COMPLETED}") is not None


def unmark(transport: Transport, folder: str) -> None:
    """Remove the mark, since the campaign is worked on again."""
    transport.remove(f"{folder}/{COMPLETED}")
