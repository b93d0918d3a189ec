"""Marks campaigns as complete when their run ends."""

from __future__ import annotations

import atexit
import logging
import os
from typing import Any

from prefect.client.schemas.objects import State

from hpc_prefect.errors import HpcPrefectError
from hpc_prefect.flow_runs.campaigns.experiments import experiments
from hpc_prefect.flow_runs.hooks import hook_once
from hpc_prefect.flow_runs.run_labels import forget_notes
from hpc_prefect.flow_runs.scopes import current_run, root_flow
from hpc_prefect.flow_runs.script import came_to_its_end, note_main
from hpc_prefect.flow_runs.watch import watch
from hpc_prefect.flow_runs.workers import flow_process
from hpc_prefect.ledger.campaign_parts import home_of
from hpc_prefect.ledger.claim import Claimant, this_process
from hpc_prefect.operations.completion import (
    mark_completed,
    note_failed,
    note_succeeded,
    unfinished,
)
from hpc_prefect.transports.local import LocalTransport

logger = logging.getLogger("hpc_prefect.flow_runs.campaigns")


def see_to_its_end() -> None:
    """Have the campaigns marked as completed when their run completes."""
    root = root_flow()
    if root is not None and root.flow is not None:
        hook_once(root.flow, _flow_completed, "completion")
    else:
        note_main()
        atexit.unregister(_script_ended)
        atexit.register(_script_ended)


def _flow_completed(flow: object, flow_run: Any, state: State[Any]) -> None:
    run = watch().find(flow_run.id)
    if run is None or not run.cancelled:  # otherwise it did not complete
        _complete(str(flow_run.id), flow_run.run_count)
        forget_notes(flow_run.id)


def _script_ended() -> None:
    """Complete the campaigns of a script that ran to its last line; in doubt they stay open."""
    if came_to_its_end():
        _complete("", 0)


def _complete(run_id: str, attempt: int) -> None:
    """Mark a run's campaigns as completed, if all of its calls in them have succeeded."""
    mine = experiments.of(run_id)
    refused = mine.refused_in == (attempt or 1)
    transport = LocalTransport()
    by, seen = this_process(run_id), set()
    for folder in {opened.campaign.folder for opened in mine.campaigns.values()}:
        try:
            home = home_of(transport, folder)
            if home in seen:
                continue
            seen.add(home)
            if refused:
                note_failed(transport, f"{home}/00/refused", _marked_by(by))
            elif not any(unfinished(transport, home, _marked_by(by))):
                mark_completed(transport, home, by)
        except Exception as error:  # noqa: BLE001 - the run is over; the next one asks Prefect
            logger.warning("the campaign %s could not be marked as completed: %s", folder, error)


def note_finished(place: str) -> None:
    """Note that all members of an array have succeeded, also those that failed in an earlier run.

    Args:
        place: the call's folder.
    """
    try:
        note_succeeded(LocalTransport(), place)
    except HpcPrefectError as error:  # then a further run collects the results
        logger.warning("%s: %s", place, error)


def note_unfinished(place: os.PathLike[str] | str | None = None) -> None:
    """Note that a call did not succeed: until it has, the campaign is not complete. Never raises.

    Args:
        place: the call's folder; None when it was refused before it had one.
    """
    run_id = current_run()
    if place is None:
        _remember_refused(run_id)
        return
    try:
        note_failed(
            LocalTransport(),
            os.fspath(place),
            _marked_by(this_process(run_id, flow_process()).flow_process),
        )
    except HpcPrefectError as error:
        logger.warning("that %s did not succeed could not be noted on disk: %s", place, error)
        _remember_refused(run_id)  # a full disk: even so it must not count as complete


def _remember_refused(run_id: str) -> None:
    root = root_flow()
    attempt = root.flow_run.run_count if root is not None and root.flow_run is not None else 1
    experiments.of(run_id).refused_in = attempt


def _marked_by(claimant: Claimant) -> str:
    """The id in the mark: a flow run, or the process of a script."""
    return claimant.flow_run or f"{claimant.host} {claimant.process}"
