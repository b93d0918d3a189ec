"""Where in which experiment a call is made: the Prefect edge of a job's identity.

A *campaign* is one experiment: named by the user, or by the flow, its parameters and the work_dir.
The flow run is only its present claimant: a run that starts after another one of the same campaign
died or failed continues it, and a campaign that was completed is begun anew as its next instance.

Inside the campaign a call has a scope (`scope`, an enclosing task, a sub-flow) and a number among
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
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State
from prefect.exceptions import MissingContextError, ObjectNotFound
from prefect.logging import get_run_logger

from hpc_prefect.errors import ConfigurationError, JobHeld
from hpc_prefect.executor import claim as claims
from hpc_prefect.executor.claim import Claimant, this_process
from hpc_prefect.executor.service import executor
from hpc_prefect.flow_runs.watch import watch
from hpc_prefect.job.identity import digest, job_key, slug
from hpc_prefect.jobs import list_jobs
from hpc_prefect.scopes import current_frame, root_flow, value_digest
from hpc_prefect.traces import leave_trace
from hpc_prefect.transports.local import LocalTransport
from hpc_prefect.workers import flow_process

logger = logging.getLogger("hpc_prefect.campaigns")

COMPLETED = "completed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """One call's place in the experiment; the same in every run of the campaign.

    Attributes:
        campaign: its folder's name, with the instance.
        scope: the names of the scopes around the call, outermost first.
        n: 0 for the first of identical calls in this scope, 1 for the second …
        folder: `<work_dir>/.hpc-prefect/<campaign>/<2 hex>/<key>`, not yet created.
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
    """Choose the campaign of the calls inside, instead of flow name, parameters and work_dir.

    Args:
        name: the campaign's name; runs that give the same one (and work_dir) continue each other.
        fresh: begin a new instance whatever an earlier run left, and take nothing over.
    """
    token = _choice.set(_Choice(name, fresh, outside=root_flow() is None))
    try:
        yield
    finally:
        _choice.reset(token)


async def locate(*, work_dir: str | os.PathLike[str], name: str, digest: str) -> Place:
    """This call's place in its campaign, which is opened (and claimed) by the first call.

    Args:
        work_dir: where the campaign's folder is or will be.
        name: what kind of work this is; part of its identity.
        digest: of what is to be done.

    Raises:
        JobHeld: another living run works on this campaign.
        TransportError: the folder cannot be written.
    """
    opened = _campaigns.get(_campaign_key(str(work_dir)))
    if opened is None:
        opened = await asyncio.to_thread(_open_campaign, str(work_dir))
    frame = current_frame()
    what = f"{name}:{digest}"
    n = frame.count(f"{opened.folder}:{what}")
    key = job_key(opened.name, frame.path, what, n)
    return Place(
        campaign=opened.name,
        scope=frame.path,
        digest=digest,
        n=n,
        key=key,
        folder=Path(opened.folder, f"{digest_prefix(key)}", key),
        claimant=opened.claimant,
    )


def campaign_folder(work_dir: str | os.PathLike[str]) -> str:
    """The folder of the campaign of this call below a work_dir; opens and claims it. Blocks.

    Raises:
        JobHeld: another living run works on this campaign.
        TransportError: the folder cannot be written.
    """
    return _open_campaign(absolute_work_dir(work_dir)).folder


def digest_prefix(key: str) -> str:
    """Two hexadecimal digits from a key, to spread thousands of folders."""
    return digest(key)[:2]


# --- campaigns: which experiment this is, and whether it is ours


@dataclass(frozen=True, slots=True)
class _Campaign:
    name: str
    folder: str
    claimant: Claimant


_campaigns: dict[tuple[str, _Choice, str, int], _Campaign] = {}
_campaigns_lock = threading.Lock()


def _root_id() -> str:
    flow = root_flow()
    return str(flow.flow_run.id) if flow and flow.flow_run else ""


def _campaign_key(work_dir: str) -> tuple[str, _Choice, str, int]:
    return _root_id(), _choice.get(), os.path.abspath(work_dir), os.getpid()


def _open_campaign(work_dir: str) -> _Campaign:
    """Find the campaign's newest instance, or begin one, and claim it. Blocks: run in a thread."""
    key = _campaign_key(work_dir)
    with _campaigns_lock:
        if key not in _campaigns:
            _campaigns[key] = _claim_campaign(os.path.abspath(work_dir), _choice.get())
        return _campaigns[key]


def _claim_campaign(work_dir: str, choice: _Choice) -> _Campaign:
    transport = LocalTransport()
    claimant = this_process(_root_id(), flow_process())
    base = slug(choice.name) if choice.name else _default_name(work_dir)
    root = transport.root(work_dir)
    instance = _newest_instance(transport.list(root), base)
    folder = _instance_folder(root, base, instance)
    holder = claims.holder_of(transport, folder) if instance else None
    same_run = holder is not None and holder.flow_run == claimant.flow_run != ""
    if instance == 0 or (
        not same_run and (choice.fresh or _is_completed(transport, folder, holder))
    ):
        instance += 1
        folder = _instance_folder(root, base, instance)
        same_run = False
    transport.make_folder(folder)
    # A run's own tasks may run in other processes: they share the claim of the first.
    if not (same_run and claims.is_held(transport, folder)):
        # In the name of the flow's process: a worker of its pool may end before it.
        claim, predecessor = _take(transport, folder, claimant.flow_process)
        executor().keep(claim)
        if predecessor is not None:
            _tell(f"continuing campaign {folder} of {predecessor.describe()}: {_left_in(folder)}")
    leave_trace(folder, chosen_outside=choice.name if choice.outside else "")
    _miss_hook_once()
    _mark_at_end(claimant.flow_run, folder)
    return _Campaign(os.path.basename(folder), folder, claimant)


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


def _take(
    transport: LocalTransport, folder: str, claimant: Claimant
) -> tuple[claims.Claim, Claimant | None]:
    try:
        return claims.take(transport, folder, claimant, is_over)
    except JobHeld as held:
        raise JobHeld(
            f"{held}. To run the same experiment a second time beside it, give the run a name of"
            " its own: with hpc_prefect.campaign('replica-2'): …"
        ) from None


def _default_name(work_dir: str) -> str:
    flow = root_flow()
    if flow is not None and flow.flow_run is not None:
        name = flow.flow.name if flow.flow else flow.flow_run.name
        parameters = value_digest([name, flow.flow_run.parameters, work_dir])
    else:
        name = Path(sys.argv[0] or "script").stem
        parameters = value_digest([name, sys.argv[1:], work_dir])
    return f"{slug(name, 24)}-{parameters}"


def _instance_folder(root: str, base: str, instance: int) -> str:
    return f"{root}/{base}" if instance <= 1 else f"{root}/{base}.{instance}"


def _newest_instance(present: list[str], base: str) -> int:
    numbers = [1] if base in present else []
    for name in present:
        stem, _, number = name.rpartition(".")
        if stem == base and number.isdecimal():
            numbers.append(int(number))
    return max(numbers, default=0)


def _is_completed(transport: LocalTransport, folder: str, holder: Claimant | None) -> bool:
    """Whether the instance's last run came to its end."""
    if holder is None:
        return False
    if transport.status(f"{folder}/{COMPLETED}") is not None:
        return True
    state = _state_of(holder.flow_run) if holder.flow_run else None
    return state is not None and state.is_completed()


def is_over(flow_run_id: str) -> bool:
    """Whether Prefect says that a flow run has ended; False when it does not know. Blocks."""
    state = _state_of(flow_run_id)
    return state is not None and state.is_final()


def is_cancelled(flow_run_id: str) -> bool:
    """Whether Prefect says that a flow run is, or is being, cancelled. Blocks."""
    state = _state_of(flow_run_id)
    return state is not None and (state.is_cancelled() or state.is_cancelling())


def _state_of(flow_run_id: str) -> State[Any] | None:
    try:
        with get_client(sync_client=True) as client:
            return client.read_flow_run(flow_run_id).state  # type: ignore[arg-type]
    except ObjectNotFound:
        return None
    except Exception as error:  # noqa: BLE001 - any trouble with the API means: not known
        logger.warning("asking Prefect about flow run %s: %s", flow_run_id, error)
        return None


# --- the end of a campaign's run

_folders_of: dict[str, set[str]] = {}


def _mark_at_end(flow_run_id: str, folder: str) -> None:
    """See to it that the campaign is marked as completed when its run completes."""
    _folders_of.setdefault(flow_run_id, set()).add(folder)
    root = root_flow()
    if root is not None and root.flow is not None:
        if _flow_completed not in root.flow.on_completion_hooks:
            root.flow.on_completion(_flow_completed)
    elif len(_folders_of[flow_run_id]) == 1:
        atexit.register(_script_ended)


def _flow_completed(flow: object, flow_run: Any, state: State[Any]) -> None:
    run = watch().find(flow_run.id)
    if run is not None and run.cancelled:  # it does not complete, whatever its flow returned
        return
    for folder in _folders_of.pop(str(flow_run.id), ()):
        _mark(folder)


def _script_ended() -> None:
    """A script that came to its end without an exception has completed its campaigns."""
    if not hasattr(sys, "last_type") and not unfinished():
        for folder in _folders_of.pop("", ()):
            _mark(folder)


def _mark(folder: str) -> None:
    try:
        LocalTransport().write_atomic(f"{folder}/{COMPLETED}", b"")
    except Exception as error:  # noqa: BLE001 - the run is over; the next one asks Prefect instead
        logger.warning("marking %s as completed: %s", folder, error)


#: Jobs of this process that did not succeed, of scripts without a flow; a script that ends with
#: one of them is continued by its next start.
_failed: set[str] = set()


def unfinished() -> bool:
    return bool(_failed)


def note_outcome(key: str, *, succeeded: bool) -> None:
    """Remember whether a call of this process succeeded."""
    (_failed.discard if succeeded else _failed.add)(key)


def absolute_work_dir(work_dir: str | os.PathLike[str]) -> str:
    """The work_dir as it is at the call: `~` expanded, absolute.

    Raises:
        ConfigurationError: it is empty.
    """
    text = os.fspath(work_dir)
    if not text:
        raise ConfigurationError("work_dir is empty; give the folder in which the program runs")
    return os.path.abspath(os.path.expanduser(text))
