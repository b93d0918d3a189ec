"""The identity of a call: its experiment, and its place and number in that.

A *campaign* is one experiment: named by the user, or by the flow and its parameters. The flow run
is only its present claimant: a run that starts after another one of the same campaign died or
failed continues it. A named campaign is one experiment for ever; one without a name is complete
when its flow has completed and all of its calls have succeeded, and the next run begins its next
instance.

Inside the campaign a call has a place (`scope`, an enclosing task, a sub-flow) and a number among
identical calls; see `hpc_prefect.job.identity`.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from hpc_prefect.errors import ConfigurationError
from hpc_prefect.flow_runs.campaigns import shared_numbers
from hpc_prefect.flow_runs.campaigns.experiments import (
    CampaignChoice,
    chosen,
    chosen_as,
    experiments,
    run_parameters_digest,
)
from hpc_prefect.flow_runs.campaigns.opening import open_campaign, opened_key
from hpc_prefect.flow_runs.lost import lost_here
from hpc_prefect.flow_runs.scopes import (
    current_frame,
    current_run,
    exact_name,
    lost_in_sub_flow,
    numbered_in_cell,
    root_flow,
)
from hpc_prefect.job.identity import job_key, spread
from hpc_prefect.ledger.claim import Claimant


class _NoName(str):
    """The default for a campaign's name; an empty name that was given is a mistake."""


_FLOWS = _NoName()


@dataclass(frozen=True, slots=True, kw_only=True)
class CallIdentity:
    """One call's identity in the experiment; the same in every run of the campaign.

    Attributes:
        campaign: its folder's name, with the instance.
        scope: the names of the scopes, tasks and sub-flows around the call, outermost first.
        n: 0 for the first of identical calls in this scope, 1 for the second …
        folder: `<campaign's folder>/<2 hex>/<key>`, not yet created.
        claimant: this process and the flow run that it works for.
    """

    campaign: str
    scope: tuple[str, ...]
    digest: str
    n: int
    key: str
    folder: Path
    claimant: Claimant


@contextmanager
def campaign(name: str = _FLOWS, *, fresh: bool = False) -> Iterator[None]:
    """Name the campaign of the calls inside; without it flow name and parameters identify it.

    A named campaign is one experiment for ever: what succeeded in it is not run again by any later
    run that gives the same name (and work_dir).

    Args:
        name: the campaign's name, compared exactly. Without it flow name and parameters identify
            the campaign.
        fresh: begin a new instance, and use nothing of earlier runs.

    Raises:
        ConfigurationError: the name is empty or not a text.
    """
    if name is _FLOWS:
        name = ""
    else:
        exact_name(name, "campaign")
    choice = CampaignChoice(name, fresh, outside=root_flow() is None)
    with chosen_as(choice), numbered_in_cell(name):
        yield


def identity_problems(*, keyed: bool = False) -> list[str]:
    """Why a call made here could not be found again by a later run; empty when it can.

    Args:
        keyed: it has a job_key, which identifies it.
    """
    named = bool(chosen().name)
    if lost := lost_here(named=named) or lost_in_sub_flow():
        return [lost]
    problems = []
    if not keyed and (problem := current_frame().problem):
        problems.append(problem)
    if not named and (problem := run_parameters_digest().problem):
        problems.append(problem)
    return problems


async def locate(
    *, work_dir: str | os.PathLike[str], name: str, digest: str, keyed: bool = False
) -> CallIdentity:
    """This call's identity in its campaign, which the first call opens (and claims).

    Args:
        work_dir: where the campaign's folder is or will be.
        name: the kind of work; part of the identity.
        digest: of what is to be done.
        keyed: the digest is of a key that the user gave for it.

    Raises:
        ConfigurationError: a later run could not find this call again.
        JobHeld: another living run works on this campaign.
        LedgerError: its folder makes no sense, or was made by an earlier version.
        TransportError: the folder cannot be written.
    """
    if problems := identity_problems(keyed=keyed):
        raise ConfigurationError(f"{name}: {'; '.join(problems)}; nothing was submitted")
    opened = experiments.of(current_run()).campaigns.get(opened_key(str(work_dir)))
    if opened is None:
        opened = await asyncio.to_thread(open_campaign, str(work_dir))
    frame = current_frame()
    what = f"{name}:{digest}"
    # Counted for each folder: calls with other folders are not identical to this one.
    n = frame.next_number(f"{opened.campaign.folder}:{what}")
    if shared_numbers.are_needed():
        n = await asyncio.to_thread(
            shared_numbers.shared_number, opened.campaign.folder, frame.path, what, n
        )
    key = job_key(opened.campaign.id, frame.path, what, n)
    return CallIdentity(
        campaign=os.path.basename(opened.campaign.folder),
        scope=frame.names,
        digest=digest,
        n=n,
        key=key,
        folder=Path(opened.campaign.folder, spread(key), key),
        claimant=opened.claimant,
    )


def campaign_id(work_dir: str | os.PathLike[str]) -> str:
    """The identifier of the campaign of this call below a work_dir; opens and claims it. Blocks.

    Raises:
        As `locate`.
    """
    if problems := identity_problems(keyed=True):
        raise ConfigurationError("; ".join(problems))
    return open_campaign(absolute_work_dir(work_dir)).campaign.id


def absolute_work_dir(work_dir: str | os.PathLike[str]) -> str:
    """The work_dir as it is at the call: `~` expanded, absolute.

    Raises:
        ConfigurationError: it is empty.
    """
    text = os.fspath(work_dir)
    if not text:
        raise ConfigurationError("work_dir is empty; give the folder in which the program runs")
    return os.path.abspath(os.path.expanduser(text))
