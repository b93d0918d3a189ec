"""A campaign's folder: which experiment it is, whether it is complete, what in it is not.

<root>/<name>-<digest>[.<instance>]/
    campaign.json   its exact name, and the identifier that its jobs' keys are made from
    claim-<g>       who works on it (`executor.claim`)
    failed/<key>    a call that did not succeed, with the flow run that made it; a hint where to
                    look: the job's own folder says whether it has succeeded since
    completed       who completed it
    <2 hex>/…       jobs, samplings and loops
"""

from __future__ import annotations

import dataclasses
import json
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from hpc_prefect.errors import LedgerError
from hpc_prefect.executor import claim as claims
from hpc_prefect.executor.claim import Claimant
from hpc_prefect.job.identity import digest
from hpc_prefect.jobs.known import read_job
from hpc_prefect.transports.base import Transport

CAMPAIGN = "campaign.json"
COMPLETED = "completed"
FAILED = "failed"
#: Of samplings and estimations: their records say "finished" (`quantum.record`).
_RECORDS = ("sampling.json", "estimation.json")
_FORMAT = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Campaign:
    """One instance of an experiment.

    Attributes:
        id: drawn when it was begun; no other campaign's jobs have it in their keys.
        name: exact, as it was given; the flow's or script's where none was.
        identity: digest of all that tells this experiment from others, but its instance.
    """

    folder: str
    id: str
    name: str
    identity: str
    instance: int


def read_campaign(transport: Transport, folder: str) -> Campaign | None:
    """What a campaign's folder says of it; None when it says nothing.

    Raises:
        LedgerError: it says something that makes no sense.
    """
    data = transport.read(f"{folder}/{CAMPAIGN}")
    if data is None:
        return None
    try:
        entry = json.loads(data)
        if entry["format"] != _FORMAT:
            raise LedgerError(
                f"{folder}/{CAMPAIGN} was written by another version of hpc-prefect (its format is"
                f" {entry['format']}); go on with that version, or move the folder away"
            )
        texts = {name: str(entry[name]) for name in ("id", "name", "identity")}
        return Campaign(folder=folder, instance=int(entry["instance"]), **texts)
    except (ValueError, KeyError, TypeError) as error:
        raise LedgerError(f"{folder}/{CAMPAIGN} cannot be read ({error!r})") from error


def begin_campaign(
    transport: Transport, folder: str, *, name: str, identity: str, instance: int
) -> Campaign:
    """Make a campaign's folder, or find what another process of this moment made.

    Raises:
        LedgerError: the folder is another experiment's, or an earlier version's.
    """
    transport.make_folder(folder)
    known = read_campaign(transport, folder)
    if known is None:
        if claims.holder_of(transport, folder) is not None:
            raise LedgerError(older(folder))
        facts = {"name": name, "identity": identity, "instance": instance}
        entry = {"format": _FORMAT, "id": secrets.token_hex(16), **facts}
        transport.create(f"{folder}/{CAMPAIGN}", json.dumps(entry, indent=2).encode() + b"\n")
        known = read_campaign(transport, folder)
    if known is None or known.identity != identity:
        other = known.name if known else "nothing that can be read"
        raise LedgerError(f"{folder} belongs to another experiment ({other}); move it away")
    return known


def older(folder: str) -> str:
    """What is said of a folder that an earlier version made."""
    return (
        f"{folder} was made by an earlier version of hpc-prefect, which told jobs apart in another"
        " way. It may be this experiment, and jobs of it may still run. Let that version finish"
        " it, or move the folder away when nothing of it runs any more; then start again"
    )


def instances(transport: Transport, root: str, base: str) -> dict[int, str]:
    """The folders of an experiment's instances, by number."""
    found = {}
    for name in transport.list(root):
        stem, _, number = name.rpartition(".")
        if name == base:
            found[1] = f"{root}/{name}"
        elif stem == base and number.isdecimal() and int(number) > 1:
            found[int(number)] = f"{root}/{name}"
    return found


# --- whether it is complete


def note_failed(transport: Transport, work: str, flow_run: str) -> None:
    """A call did not succeed: its campaign is not complete before it has.

    Args:
        work: the folder of the call's work, `<campaign>/<2 hex>/<key>`, or anything else below.
    """
    campaign, _, key = work.rsplit("/", 2)
    transport.make_folder(f"{campaign}/{FAILED}")
    transport.write_atomic(f"{campaign}/{FAILED}/{key}", flow_run.encode())


def unfinished(transport: Transport, campaign: str, flow_run: str) -> Iterator[str]:
    """Keys of calls that a flow run made and that have not succeeded since."""
    for key in transport.list(f"{campaign}/{FAILED}"):
        by = (transport.read(f"{campaign}/{FAILED}/{key}") or b"").decode(errors="replace")
        if by == flow_run and not _has_succeeded(transport, campaign, key):
            yield key


def _has_succeeded(transport: Transport, campaign: str, key: str) -> bool:
    above = f"{campaign}/{digest(key)[:2]}"
    numbers = [name.removeprefix(f"{key}-") for name in transport.list(above)]
    newest = max((int(number) for number in numbers if number.isdecimal()), default=0)
    if newest:
        result = read_job(f"{above}/{key}-{newest}", transport).result
        return result is not None and result.succeeded
    return any(_is_finished(transport.read(f"{above}/{key}/{name}")) for name in _RECORDS)


def _is_finished(data: bytes | None) -> bool:
    try:
        record: Any = json.loads(data or b"")
        return bool(record["state"] == "finished")
    except (ValueError, KeyError, TypeError):
        return False


def mark_completed(transport: Transport, campaign: str, by: Claimant) -> None:
    """All of it has succeeded."""
    for key in transport.list(f"{campaign}/{FAILED}"):
        transport.remove(f"{campaign}/{FAILED}/{key}")
    text = json.dumps(dataclasses.asdict(by)).encode() + b"\n"
    transport.write_atomic(f"{campaign}/{COMPLETED}", text)


def is_marked(transport: Transport, campaign: str) -> bool:
    """Whether it was marked as completed."""
    return transport.status(f"{campaign}/{COMPLETED}") is not None


def unmark(transport: Transport, campaign: str) -> None:
    """It is worked on again."""
    transport.remove(f"{campaign}/{COMPLETED}")
