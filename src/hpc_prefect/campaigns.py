"""Where in which experiment a call is made: the Prefect edge of a job's identity.

A *campaign* is one experiment: named by the user, or by the flow and its parameters. The flow run
is only its present claimant: a run that starts after another one of the same campaign died or
failed continues it. A named campaign is one experiment for good; one without a name is complete
when its flow has completed and all of its calls have succeeded, and is then begun anew as its next
instance.

Inside the campaign a call has a place (`scope`, an enclosing task, a sub-flow) and a number among
its likes; see `hpc_prefect.job.identity`.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from prefect.client.schemas.objects import State
from prefect.context import FlowRunContext
from prefect.exceptions import MissingContextError
from prefect.logging import get_run_logger

from hpc_prefect.errors import ConfigurationError, HpcPrefectError, JobHeld
from hpc_prefect.executor import claim as claims
from hpc_prefect.executor.claim import Claim, Claimant, this_process
from hpc_prefect.executor.service import executor
from hpc_prefect.flow_runs.per_run import PerRun
from hpc_prefect.flow_runs.states import state_of, tell_taken_over
from hpc_prefect.flow_runs.watch import watch
from hpc_prefect.job.identity import digest, folder_name, job_key
from hpc_prefect.jobs import list_jobs
from hpc_prefect.jobs.campaign import Campaign, begin_campaign, instances
from hpc_prefect.jobs.completion import (
    is_marked,
    mark_completed,
    note_failed,
    unfinished,
    unmark,
)
from hpc_prefect.old_folders import refuse_older
from hpc_prefect.scopes import (
    Told,
    current_frame,
    current_run,
    parameters_of,
    root_flow,
    unknown_values,
    values_digest,
)
from hpc_prefect.traces import leave_trace, read_trace
from hpc_prefect.transports.local import LocalTransport
from hpc_prefect.workers import flow_process

logger = logging.getLogger("hpc_prefect.campaigns")


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """One call's place in the experiment; the same in every run of the campaign.

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


class _Choice(NamedTuple):
    """What `campaign` was told; `outside`: around the outermost flow, not in it."""

    name: str
    fresh: bool
    outside: bool


_DEFAULT = _Choice("", fresh=False, outside=False)
_choice: ContextVar[_Choice] = ContextVar("hpc_prefect_campaign", default=_DEFAULT)


@contextmanager
def campaign(name: str = "", *, fresh: bool = False) -> Iterator[None]:
    """Choose the campaign of the calls inside, instead of flow name and parameters.

    A named campaign is one experiment for good: what succeeded in it is not run again, in any later
    run that gives the same name (and work_dir).

    Args:
        name: the campaign's name; counts exactly as it is written.
        fresh: begin a new instance whatever an earlier run left, and take nothing over.
    """
    token = _choice.set(_Choice(name, fresh, outside=root_flow() is None))
    try:
        yield
    finally:
        _choice.reset(token)


def identity_problems(*, keyed: bool = False) -> list[str]:
    """Why a call made here could not be found again by a later run; empty when it can.

    Args:
        keyed: it has a job_key, which tells it from others.
    """
    problems = []
    if not keyed and (problem := current_frame().problem):
        problems.append(problem)
    if not _choice.get().name and (problem := _told_by_parameters().problem):
        problems.append(problem)
    return problems


def _told_by_parameters() -> Told:
    """What this run's flow and parameters tell of its experiment.

    Asked once a run: the flow may change what it was given.
    """
    mine, root = _experiments.of(current_run()), root_flow()
    if mine.told is None:
        if root is None or root.flow_run is None:
            mine.told = Told(digest(sys.argv[1:]), "")
        else:
            mine.told = _told_by_flow(parameters_of(root), _name_of(root))
    return mine.told


def _told_by_flow(parameters: Mapping[str, Any], name: str) -> Told:
    try:
        return Told(values_digest(parameters), "")
    except TypeError:
        which = ", ".join(unknown_values(parameters))
        return Told(
            "",
            f"parameter {which} of flow {name} cannot be told from another one in a later run, so"
            " that no run could find this experiment again. Name the experiment: with"
            " hpc_prefect.campaign('…'): …",
        )


def _name_of(root: FlowRunContext | None) -> str:
    """What an experiment without a name is called: as its flow, or its script."""
    if root is None or root.flow_run is None:
        return Path(sys.argv[0] or "script").name
    return root.flow.name if root.flow else root.flow_run.name


async def locate(
    *, work_dir: str | os.PathLike[str], name: str, digest: str, keyed: bool = False
) -> Place:
    """This call's place in its campaign, which is opened (and claimed) by the first call.

    Args:
        work_dir: where the campaign's folder is or will be.
        name: what kind of work this is; part of its identity.
        digest: of what is to be done.
        keyed: the digest is of a key that the user gave for it.

    Raises:
        ConfigurationError: a later run could not find this call again.
        JobHeld: another living run works on this campaign.
        LedgerError: its folder makes no sense, or was made by an earlier version.
        TransportError: the folder cannot be written.
    """
    opened = _experiments.of(current_run()).campaigns.get(_key(str(work_dir)))
    if opened is None or current_frame().problem:
        if problems := identity_problems(keyed=keyed):
            raise ConfigurationError(f"{name}: {'; '.join(problems)}; nothing was submitted")
        opened = await asyncio.to_thread(_open, str(work_dir))
    frame = current_frame()
    what = f"{name}:{digest}"
    # Counted for each campaign: a call that is made in another one is no like of this.
    n = frame.draw(f"{opened.campaign.id}:{what}")
    key = job_key(opened.campaign.id, frame.path, what, n)
    return Place(
        campaign=os.path.basename(opened.campaign.folder),
        scope=frame.names,
        digest=digest,
        n=n,
        key=key,
        folder=Path(opened.campaign.folder, digest_prefix(key), key),
        claimant=opened.claimant,
    )


def campaign_id(work_dir: str | os.PathLike[str]) -> str:
    """The identifier of the campaign of this call below a work_dir; opens and claims it. Blocks.

    Raises:
        As `locate`.
    """
    if problems := identity_problems(keyed=True):
        raise ConfigurationError("; ".join(problems))
    return _open(absolute_work_dir(work_dir)).campaign.id


def digest_prefix(key: str) -> str:
    """Two hexadecimal digits from a key, to spread thousands of folders."""
    return digest(key)[:2]


# --- campaigns: which experiment this is, and whether it is ours


@dataclass(frozen=True, slots=True)
class _Opened:
    campaign: Campaign
    claimant: Claimant
    claim: Claim | None


@dataclass
class _Experiments:
    """What a flow run works on, as far as this process knows.

    Attributes:
        refused_in: the attempt in which a call was refused before it had a place.
        told: what its parameters tell of it, once that was asked.
        over: flow runs whose campaigns this one has taken over. None of them works on any.
    """

    campaigns: dict[tuple[_Choice, str, int], _Opened] = field(default_factory=dict)
    refused_in: int = 0
    told: Told | None = None
    over: set[str] = field(default_factory=set)

    def close(self) -> None:
        """The run has ended: its claims need no renewing."""
        for opened in self.campaigns.values():
            if opened.claim is not None:
                executor().release(opened.claim)


_experiments = PerRun(_Experiments, _Experiments.close)
_opening = threading.Lock()


def _key(work_dir: str) -> tuple[_Choice, str, int]:
    root = root_flow()
    attempt = root.flow_run.run_count if root is not None and root.flow_run is not None else 0
    return (
        _choice.get()._replace(outside=False),
        f"{os.getpid()}:{os.path.abspath(work_dir)}",
        attempt,
    )


def _open(work_dir: str) -> _Opened:
    """Find the campaign's newest instance, or begin one, and claim it. Blocks: run in a thread."""
    opened, key = _experiments.of(current_run()).campaigns, _key(work_dir)
    with _opening:
        if key not in opened:
            opened[key] = _find_and_claim(os.path.abspath(work_dir), _choice.get())
        return opened[key]


def _find_and_claim(work_dir: str, choice: _Choice) -> _Opened:
    transport, claimant = LocalTransport(), this_process(current_run(), flow_process())
    experiment = _experiment(choice)
    root = transport.root(work_dir)
    present = instances(transport, root, experiment.base)
    if not present:
        refuse_older(transport, root, experiment.name, named=bool(choice.name))
    instance = _which(transport, present, choice, claimant)
    suffix = f".{instance}" if instance > 1 else ""
    found = begin_campaign(
        transport,
        f"{root}/{experiment.base}{suffix}",
        name=experiment.name,
        identity=experiment.identity,
        instance=instance,
    )
    if instance not in present and present:
        _tell_begun(found, choice)
    claim = _claimed(transport, found.folder, claimant)
    leave_trace(found.folder, chosen_outside=choice.name if choice.outside else "")
    _miss_hook_once()
    _see_to_its_end()
    return _Opened(found, claimant, claim)


class _Experiment(NamedTuple):
    """Which experiment this is, but for its instance."""

    name: str
    base: str
    identity: str


def _experiment(choice: _Choice) -> _Experiment:
    if choice.name:
        name, exact = choice.name, ["named", choice.name]
    else:
        name, kind = _name_of(root_flow()), "flow" if current_run() else "script"
        exact = [kind, name, _told_by_parameters().digest]
    return _Experiment(name, folder_name(name, *exact), digest(exact))


def _which(
    transport: LocalTransport, present: dict[int, str], choice: _Choice, claimant: Claimant
) -> int:
    """The number of the instance that this run works on."""
    if not present:
        return 1
    newest = max(present)
    own = _own(present)
    if own is not None:
        if by := completed_by(present[own], claimant.flow_run):
            raise JobHeld(
                f"{present[own]} was taken over and completed by {by}; start the flow anew"
            )
        return own
    holder = claims.holder_of(transport, present[newest])
    if holder is not None and holder.flow_run == claimant.flow_run != "":
        return newest  # a retry, or another process of this run
    if choice.fresh:
        return newest + 1
    if choice.name or not _is_completed(transport, present[newest], holder):
        return newest
    return newest + 1


def _own(present: dict[int, str]) -> int | None:
    """The instance that this flow run worked on before: it is retried or resumed."""
    root = root_flow()
    if root is None or root.flow_run is None:
        return None
    mine = read_trace(root.flow_run).folders
    return max((number for number, folder in present.items() if folder in mine), default=None)


def completed_by(folder: str, flow_run: str) -> str:
    """Who took a campaign over from a flow run and completed it; empty for nobody. Blocks."""
    transport = LocalTransport()
    holder = claims.holder_of(transport, folder)
    if holder is None or holder.flow_run == flow_run:
        return ""
    return holder.describe() if _is_completed(transport, folder, holder) else ""


def _is_completed(transport: LocalTransport, folder: str, holder: Claimant | None) -> bool:
    """Whether the instance's last run came to its end, and all of its calls succeeded."""
    if is_marked(transport, folder):
        return True
    if holder is None or not holder.flow_run:
        return False
    # Killed before it could mark it, or the calls were made by other processes than the flow.
    state = state_of(holder.flow_run)
    return (
        state is not None
        and state.is_completed()
        and not any(unfinished(transport, folder, holder.flow_run))
    )


def _claimed(transport: LocalTransport, folder: str, claimant: Claimant) -> Claim | None:
    """Our claim on a campaign; None when another process of this run has it."""
    mine = _experiments.of(claimant.flow_run)
    holder = claims.holder_of(transport, folder)
    same_run = holder is not None and holder.flow_run == claimant.flow_run != ""
    claim = None
    # A run's own tasks may run in other processes: they share the claim of the first.
    if not (same_run and holder != claimant and claims.is_held(transport, folder)):
        # In the name of the flow's process: a worker of its pool may end before it.
        claim, predecessor = _take(transport, folder, claimant.flow_process)
        executor().keep(claim)
        if predecessor is not None:
            _tell(f"continuing campaign {folder} of {predecessor.describe()}: {_left_in(folder)}")
            unmark(transport, folder)
            _tell_its_end(predecessor, claimant)
    everybody = claims.history(transport, folder).values()
    mine.over |= {each.flow_run for each in everybody} - {claimant.flow_run, ""}
    return claim


def _tell_its_end(predecessor: Claimant, claimant: Claimant) -> None:
    """Prefect has a run whose process was killed as running for ever."""
    if predecessor.is_dead and predecessor.flow_run not in ("", claimant.flow_run):
        tell_taken_over(predecessor.flow_run, claimant.describe())


def is_over(flow_run_id: str) -> bool:
    """Whether a flow run has ended; False when nobody knows. Blocks, and mostly asks nobody."""
    if any(flow_run_id in each.over for each in _experiments.values()):
        return True
    state = state_of(flow_run_id)
    return state is not None and state.is_final()


def _take(
    transport: LocalTransport, folder: str, claimant: Claimant
) -> tuple[Claim, Claimant | None]:
    try:
        return claims.take(transport, folder, claimant, is_over)
    except JobHeld as held:
        raise JobHeld(
            f"{held}. To run the same experiment a second time beside it, give the run a name of"
            " its own: with hpc_prefect.campaign('replica-2'): …"
        ) from None


# --- what is told


def _tell_begun(found: Campaign, choice: _Choice) -> None:
    before = found.instance - 1
    advice = (
        ""
        if choice.name
        else f", which is complete; name the experiment (with hpc_prefect.campaign('{found.name}'):"
        " …) to have what succeeded never run again"
    )
    _tell(f"instance {found.instance} of {found.name}: reuses nothing of {before}{advice}")


_missed: set[str] = set()


def _miss_hook_once() -> None:
    """A served flow without the hook leaves its jobs running when its process is killed."""
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
    """In words, what earlier runs left in a campaign."""
    jobs = list_jobs(folder)
    counts = Counter(job.standing.state for job in jobs)
    words = [f"{count} job{'s' * (count > 1)} {state}" for state, count in sorted(counts.items())]
    under_way = [job for job in jobs if job.ids and not job.ended_surely]
    if under_way:
        names_of = [
            f"{job.name} ({job.job_id}, {_when(job.standing.known_at)})" for job in under_way
        ]
        words.append(f"not ended as far as is known: {', '.join(names_of[:10])}")
        if len(names_of) > 10:
            words.append(f"and {len(names_of) - 10} more")
    samplings = len(list(Path(folder).glob("*/*/sampling.json")))
    words += [f"{samplings} samplings"] * bool(samplings)
    return "; ".join(words) or "nothing was begun in it"


def _when(time: float) -> str:
    return f"last seen {datetime.fromtimestamp(time).astimezone():%Y-%m-%d %H:%M:%S}"


def _tell(text: str) -> None:
    """Into the run's log where there is a run."""
    try:
        get_run_logger().info("%s", text)
    except MissingContextError:
        logger.info("%s", text)


# --- the end of a campaign's run


def _see_to_its_end() -> None:
    """See to it that the campaigns are marked as completed when their run completes."""
    root = root_flow()
    if root is not None and root.flow is not None:
        if _flow_completed not in root.flow.on_completion_hooks:
            root.flow.on_completion(_flow_completed)
    else:
        atexit.unregister(_script_ended)
        atexit.register(_script_ended)


def _flow_completed(flow: object, flow_run: Any, state: State[Any]) -> None:
    run = watch().find(flow_run.id)
    if run is None or not run.cancelled:  # otherwise it did not complete, whatever it returned
        _complete(str(flow_run.id), flow_run.run_count)


def _script_ended() -> None:
    """A script that came to its end without an exception has completed its campaigns."""
    if not hasattr(sys, "last_type"):
        _complete("", 0)


def _complete(run_id: str, attempt: int) -> None:
    """Mark a run's campaigns as completed, if all that it called in them has succeeded."""
    mine = _experiments.of(run_id)
    refused = mine.refused_in == (attempt or 1)
    transport = LocalTransport()
    for folder in {opened.campaign.folder for opened in mine.campaigns.values()}:
        by = this_process(run_id)
        try:
            if refused:
                note_failed(transport, f"{folder}/00/refused", _marked_by(by))
            elif not any(unfinished(transport, folder, _marked_by(by))):
                mark_completed(transport, folder, by)
        except Exception as error:  # noqa: BLE001 - the run is over; the next one asks Prefect
            logger.warning("marking %s as completed: %s", folder, error)


def note_unfinished(place: os.PathLike[str] | str | None = None) -> None:
    """A call did not succeed: the campaign is not complete before it has. Never raises.

    Args:
        place: the call's folder; None when it was refused before it had one.
    """
    run_id = current_run()
    root = root_flow()
    if place is None:
        attempt = root.flow_run.run_count if root is not None and root.flow_run is not None else 1
        _experiments.of(run_id).refused_in = attempt
        return
    try:
        note_failed(LocalTransport(), os.fspath(place), _marked_by(this_process(run_id)))
    except HpcPrefectError as error:
        logger.warning("noting that %s did not succeed: %s", place, error)


def _marked_by(claimant: Claimant) -> str:
    """A flow run, in whatever process; or the process of a script."""
    return claimant.flow_run or f"{claimant.host} {claimant.process}"


def absolute_work_dir(work_dir: str | os.PathLike[str]) -> str:
    """The work_dir as it is at the call: `~` expanded, absolute.

    Raises:
        ConfigurationError: it is empty.
    """
    text = os.fspath(work_dir)
    if not text:
        raise ConfigurationError("work_dir is empty; give the folder in which the program runs")
    return os.path.abspath(os.path.expanduser(text))
