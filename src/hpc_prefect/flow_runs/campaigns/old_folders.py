"""Refuses campaign folders of an earlier version, so that they are never misread."""

from __future__ import annotations

import re

from hpc_prefect.errors import LedgerError
from hpc_prefect.job.identity import slug
from hpc_prefect.ledger import claim as claims
from hpc_prefect.ledger.campaign_folder import CAMPAIGN, older
from hpc_prefect.operations.completion import is_marked
from hpc_prefect.transports.base import Transport


def refuse_older(transport: Transport, root: str, name: str, *, named: bool) -> None:
    """Refuse to begin an experiment that an earlier version may have begun and not completed.

    That version named a campaign's folder by the slug of its name, or by the slug of the flow's
    name and eight digits.

    Raises:
        LedgerError: there is such a folder; the message says what to do with it.
    """
    told = re.escape(slug(name)) if named else f"{re.escape(slug(name, 24))}-[0-9a-f]{{8}}"
    pattern = re.compile(rf"{told}(\.[0-9]+)?")
    for found in transport.list(root):
        folder = f"{root}/{found}"
        if (
            pattern.fullmatch(found)
            and transport.status(f"{folder}/{CAMPAIGN}") is None
            and claims.holder_of(transport, folder) is not None
            and not is_marked(transport, folder)
        ):
            raise LedgerError(older(folder))
