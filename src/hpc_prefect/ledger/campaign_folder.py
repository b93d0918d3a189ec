"""A campaign's folder, which identifies its experiment.

<root>/<name>-<digest>[.<instance>]/
    campaign.json   its exact name, and the identifier that its jobs' keys are made from
    claim-<g>       who works on it (`executor.claim`)
    failed/<key>    a call that did not succeed, with the flow run that made it; only a hint: the
                    job's own folder says whether it has succeeded since
    completed       who completed it
    <2 hex>/…       jobs, samplings and loops
"""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass

from hpc_prefect.errors import LedgerError
from hpc_prefect.ledger import claim as claims
from hpc_prefect.transports.base import Transport

CAMPAIGN = "campaign.json"
_FORMAT = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Campaign:
    """One instance of an experiment.

    Attributes:
        id: random, made at its beginning; part of the keys of its jobs.
        name: exactly as it was given, or the flow's or script's name.
        identity: digest of all that identifies this experiment, without its instance.
    """

    folder: str
    id: str
    name: str
    identity: str
    instance: int


def read_campaign(transport: Transport, folder: str) -> Campaign | None:
    """Read a campaign's folder; None if it has no `campaign.json`.

    Raises:
        LedgerError: its content is invalid.
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
    """Make a campaign's folder, or find the one that another process makes at the same time.

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
    """The message about a folder of an earlier version."""
    return (
        f"{folder} was made by an earlier version of hpc-prefect, which identified jobs in"
        f" another way. It may be this experiment, with jobs that still run. Let that version"
        f" finish it, or move the folder away when none of its jobs runs any more; then start again"
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
