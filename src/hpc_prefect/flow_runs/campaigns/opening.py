"""Opens a campaign: chooses the instance that this run works on, claims it, and logs what it is."""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from prefect.exceptions import MissingContextError
from prefect.logging import get_logger, get_run_logger

from hpc_prefect.errors import HpcPrefectError, JobHeld
from hpc_prefect.flow_runs.campaigns import shared_numbers
from hpc_prefect.flow_runs.campaigns.end import see_to_its_end
from hpc_prefect.flow_runs.campaigns.experiments import (
    CampaignChoice,
    Opened,
    OpenedKey,
    chosen,
    experiments,
    name_of,
    run_parameters_digest,
)
from hpc_prefect.flow_runs.campaigns.old_folders import refuse_older
from hpc_prefect.flow_runs.recording import open_record
from hpc_prefect.flow_runs.reproduction import recorded
from hpc_prefect.flow_runs.run_labels import known_trace, leave_trace
from hpc_prefect.flow_runs.scopes import current_run, root_flow
from hpc_prefect.flow_runs.states import end_as_crashed, has_ended, state_of
from hpc_prefect.flow_runs.workers import flow_process
from hpc_prefect.job.identity import digest, folder_name
from hpc_prefect.ledger import claim as claims
from hpc_prefect.ledger.campaign_folder import Campaign, begin_campaign, instances, read_campaign
from hpc_prefect.ledger.campaign_parts import folders_of, has_lost_others, home_of, join
from hpc_prefect.ledger.claim import Claim, Claimant, this_process
from hpc_prefect.ledger.quantum_folder import RECORDS
from hpc_prefect.operations import list_jobs
from hpc_prefect.operations.completion import is_marked, unfinished, unmark
from hpc_prefect.transports.local import LocalTransport

_opening = threading.Lock()


def opened_key(work_dir: str) -> OpenedKey:
    root = root_flow()
    attempt = root.flow_run.run_count if root is not None and root.flow_run is not None else 0
    choice = chosen()._replace(outside=False)
    return OpenedKey(choice, os.getpid(), attempt, os.path.realpath(work_dir))


def open_campaign(work_dir: str) -> Opened:
    """Find the campaign's newest instance, or begin one, and claim it. Blocks: run in a thread."""
    opened, key = experiments.of(current_run()).campaigns, opened_key(work_dir)
    with _opening:
        if key not in opened:
            opened[key] = _find_and_claim(os.path.realpath(work_dir), chosen())
        return opened[key]


def _find_and_claim(work_dir: str, choice: CampaignChoice) -> Opened:
    transport, claimant = LocalTransport(), this_process(current_run(), flow_process())
    experiment = _experiment(choice)
    root = transport.root(work_dir)
    present = instances(transport, root, experiment.base)
    if not present:
        refuse_older(transport, root, experiment.name, named=bool(choice.name))
    opened = _opened(transport)
    sibling = opened or next(_begun(transport, choice, experiment), None)
    instance = _which(transport, present, choice, claimant, sibling)
    suffix = f".{instance}" if instance > 1 else ""
    found = begin_campaign(
        transport,
        f"{root}/{experiment.base}{suffix}",
        name=experiment.name,
        identity=experiment.identity,
        instance=instance,
    )
    if instance not in present and present and opened is None:
        _log_begun(found, choice)
    # First the home folder: if another run works on the campaign there, nothing is taken over here.
    home = home_of(transport, found.folder)
    for folder in dict.fromkeys((home, found.folder)):
        predecessor = _claim(transport, folder, claimant)
    if predecessor is not None and opened is None:
        about = f"{found.folder} of {predecessor.describe()}"
        _log(f"continuing campaign {about}: {_left_in(found.folder)}")
    if sibling is not None:
        home = join(transport, found.folder, sibling.folder)
    else:
        leave_trace(
            found.folder,
            chosen_outside=choice.name if choice.outside else "",
            for_others=shared_numbers.are_needed(),
        )
        # Another process of the run may have begun it at the same time: at least one of the two
        # sees it now.
        for other in _begun(transport, choice, experiment):
            home = join(transport, found.folder, other.folder)
    _claim(transport, home, claimant)
    for each in dict.fromkeys((home, found.folder)):
        unmark(transport, each)
    _miss_hook_once()
    see_to_its_end()
    open_record(found, work_dir, chosen_outside=bool(choice.name) and choice.outside)
    return Opened(found, claimant)


def _opened(transport: LocalTransport) -> Campaign | None:
    """The same campaign, as this process opened it last in another work_dir that still exists."""
    here, mine = opened_key(""), experiments.of(current_run()).campaigns
    for key, opened in reversed(mine.items()):
        same = key._replace(work_dir=here.work_dir) == here
        if same and read_campaign(transport, opened.campaign.folder) is not None:
            return opened.campaign
    return None


def _begun(
    transport: LocalTransport, choice: CampaignChoice, experiment: _Experiment
) -> Iterator[Campaign]:
    """The same campaign, as other processes of this run began it."""
    for folder in () if choice.fresh else _traced():
        known = read_campaign(transport, folder)
        if known is not None and known.identity == experiment.identity:
            yield known


def _traced() -> tuple[str, ...]:
    """The folders of this run's campaigns in its labels, also those of its other processes."""
    root = root_flow()
    return () if root is None or root.flow_run is None else known_trace(root.flow_run).folders


class _Experiment(NamedTuple):
    """The identity of an experiment, without its instance."""

    name: str
    base: str
    identity: str


def _experiment(choice: CampaignChoice) -> _Experiment:
    if choice.name:
        name, exact = choice.name, ["named", choice.name]
    else:
        name, kind = name_of(root_flow()), "flow" if current_run() else "script"
        exact = [kind, name, run_parameters_digest().digest]
    if (reproduced := recorded()) is not None:
        # A reproduction must not find results of the original run, nor of another reproduction.
        exact += ["reproduces", reproduced.run_id, current_run()]
    return _Experiment(name, folder_name(name, *exact), digest(exact))


def _which(
    transport: LocalTransport,
    present: dict[int, str],
    choice: CampaignChoice,
    claimant: Claimant,
    sibling: Campaign | None,
) -> int:
    """The number of the instance to work on."""
    first = 1 if sibling is None else sibling.instance
    newest = max(present, default=0)
    if newest < first:  # this run works on that instance in another work_dir
        return first
    own = _own(transport, present)
    if own is not None:
        if by := completed_by(present[own], claimant.flow_run):
            raise JobHeld(
                f"{present[own]} was taken over and completed by {by}; start the flow anew"
            )
        return own
    holder = claims.holder_of(transport, home_of(transport, present[newest]))
    if holder is not None and holder.flow_run == claimant.flow_run != "":
        return newest  # the run was retried, or another process of it is meant
    if not choice.fresh and (choice.name or not _is_completed(transport, present[newest], holder)):
        return newest
    return newest + 1


def _own(transport: LocalTransport, present: dict[int, str]) -> int | None:
    """The instance that this flow run worked on before it was retried or resumed."""
    homes = {home_of(transport, folder) for folder in _traced()}
    mine = (number for number, folder in present.items() if home_of(transport, folder) in homes)
    return max(mine, default=None)


def completed_by(folder: str, flow_run: str) -> str:
    """The run that took a flow run's campaign over and completed it; empty for none. Blocks."""
    transport = LocalTransport()
    holder = claims.holder_of(transport, home_of(transport, folder))
    if holder is None or holder.flow_run == flow_run:
        return ""
    return holder.describe() if _is_completed(transport, folder, holder) else ""


def _is_completed(transport: LocalTransport, folder: str, holder: Claimant | None) -> bool:
    """Whether the instance's last run completed, and all of its calls succeeded."""
    if is_marked(transport, folder):
        return True
    if has_lost_others(transport, folder):
        return False  # its unfinished calls are noted elsewhere
    if holder is None or not holder.flow_run:
        return False
    # It was killed before it wrote the mark, or other processes than the flow's made the calls.
    state = state_of(holder.flow_run)
    return (
        state is not None
        and state.is_completed()
        and not any(unfinished(transport, folder, holder.flow_run))
    )


def _claim(transport: LocalTransport, folder: str, claimant: Claimant) -> Claimant | None:
    """Claim a folder, unless another process of this run has it; returns the former holder."""
    mine = experiments.of(claimant.flow_run)
    ours = mine.claims.get(folder)
    if ours is not None and ours.claimant == claimant.flow_process and _is_ours(ours):
        return None
    holder = claims.holder_of(transport, folder)
    same_run = holder is not None and holder.flow_run == claimant.flow_run != ""
    # Tasks of one run may run in several processes: these share the first one's claim.
    if same_run and holder != claimant and claims.is_held(transport, folder):
        return None
    # The flow's process holds it: a worker of its pool may end earlier.
    claim, predecessor = _take(transport, folder, claimant.flow_process)
    mine.hold(claim)
    if predecessor is not None:
        _end_predecessor(predecessor, claimant)
    if claim.generation > 1:
        before = {each.flow_run for each in claims.history(transport, folder).values()}
        mine.over |= dict.fromkeys(before - {claimant.flow_run, ""}, claim)
    return predecessor


def _end_predecessor(predecessor: Claimant, claimant: Claimant) -> None:
    """For Prefect a run whose process was killed is running for ever: end it there."""
    if predecessor.is_dead and predecessor.flow_run not in ("", claimant.flow_run):
        end_as_crashed(predecessor.flow_run, claimant.describe())


def is_over(flow_run_id: str) -> bool:
    """Whether a flow run has ended, or lost its campaign to this process. Blocks.

    While we hold a campaign, no former holder works on it, so Prefect is not asked.
    """
    for each in experiments.values():
        if flow_run_id in each.over and _is_ours(each.over[flow_run_id]):
            return True
    return has_ended(flow_run_id)


def _is_ours(claim: Claim) -> bool:
    try:
        claim.check()
    except HpcPrefectError:
        return False
    return True


def _take(
    transport: LocalTransport, folder: str, claimant: Claimant
) -> tuple[Claim, Claimant | None]:
    try:
        return claims.take(transport, folder, claimant, has_ended)
    except JobHeld as held:
        raise JobHeld(
            f"{held}. To run the same experiment a second time beside it, name the second one:"
            f" with hpc_prefect.campaign('replica-2'): …"
        ) from None


# --- what is told


def _log_begun(found: Campaign, choice: CampaignChoice) -> None:
    anew = f"{found.name} begins anew (number {found.instance})"
    if choice.name:
        _log(f"{anew}, as was asked for: it uses nothing of number {found.instance - 1}")
        return
    _log(
        f"{anew}, because number {found.instance - 1} is complete. Nothing is wrong. To have a"
        " further start collect what succeeded, and not run it again, name the experiment:"
        f" with hpc_prefect.campaign('{found.name}'): …"
    )


_missed: set[str] = set()


def _miss_hook_once() -> None:
    """Warn once of a served flow without the hook: its jobs run on when its process is killed."""
    root = root_flow()
    if root is None or root.flow is None or "PREFECT__FLOW_RUN_ID" not in os.environ:
        return
    hooks = {getattr(hook, "__name__", "") for hook in root.flow.on_cancellation_hooks}
    if "cancel_jobs" not in hooks and root.flow.name not in _missed:
        _missed.add(root.flow.name)
        get_run_logger(root).warning(
            "flow %s has no hook that cancels its jobs when its run is cancelled and its process"
            " is killed; add @flow(on_cancellation=[hpc_prefect.cancel_jobs])",
            root.flow.name,
        )


def _left_in(folder: str) -> str:
    """What earlier runs left in a campaign, in words."""
    folders = folders_of(LocalTransport(), folder)
    try:
        jobs = list_jobs(*folders)
    except HpcPrefectError as error:
        return f"what it left cannot be listed ({error})"
    counts = Counter(job.status.state for job in jobs)
    words = [f"{count} job{'s' * (count > 1)} {state}" for state, count in sorted(counts.items())]
    under_way = [job for job in jobs if job.ids and not job.ended_surely]
    if under_way:
        names_of = [f"{job.name} ({job.job_id}, {_when(job.status.known_at)})" for job in under_way]
        words.append(f"not known to have ended: {', '.join(names_of[:10])}")
        if len(names_of) > 10:
            words.append(f"and {len(names_of) - 10} more")
    samplings = sum(1 for each in folders for _ in Path(each).glob(f"*/*/{RECORDS['sampler']}"))
    words += [f"{samplings} samplings"] * bool(samplings)
    words += [f"in {len(folders)} work_dirs"] * (len(folders) > 1)
    return "; ".join(words) or "nothing was begun in it"


def _when(time: float) -> str:
    return f"last seen {datetime.fromtimestamp(time).astimezone():%Y-%m-%d %H:%M:%S}"


def _log(text: str) -> None:
    """Log to the run, if there is one; else to a logger that Prefect shows in a script."""
    try:
        get_run_logger().info("%s", text)
    except MissingContextError:
        get_logger("hpc_prefect.campaign").info("%s", text)
