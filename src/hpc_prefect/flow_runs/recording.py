"""Writes the run's record: joins calls and Prefect's runs with `hpc_prefect.records`.

The run's first call that opens a campaign begins the record, in that campaign's folder. Later calls
of the run, also in other processes, go on with it.
"""

from __future__ import annotations

import asyncio
import atexit
import inspect
import json
import os
import re
import sys
import threading
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prefect.client.schemas.objects import FlowRun, State
from prefect.context import FlowRunContext

from hpc_prefect.errors import FlowRunCancelled
from hpc_prefect.flow_runs.flow_options import options_of
from hpc_prefect.flow_runs.given import changed_in_flow
from hpc_prefect.flow_runs.hooks import hook_once
from hpc_prefect.flow_runs.parameters import parameters_of
from hpc_prefect.flow_runs.per_run import PerRun
from hpc_prefect.flow_runs.reproduction import recorded
from hpc_prefect.flow_runs.run_labels import (
    entrypoint_of,
    known_trace,
    lost_parameters,
    read_trace,
)
from hpc_prefect.flow_runs.run_page import RunPage
from hpc_prefect.flow_runs.scopes import current_run, root_flow
from hpc_prefect.flow_runs.script import came_to_its_end
from hpc_prefect.flow_runs.sent import send_along, sent
from hpc_prefect.flow_runs.session import is_interactive
from hpc_prefect.flow_runs.watch import watch
from hpc_prefect.flow_runs.workers import flow_process
from hpc_prefect.job.failure import Reason
from hpc_prefect.job.identity import digest
from hpc_prefect.ledger.campaign_folder import Campaign
from hpc_prefect.ledger.campaign_parts import folders_of
from hpc_prefect.records.fold import DIFF, FORMAT, PARAMETERS, RUNS
from hpc_prefect.records.write import leaving
from hpc_prefect.records.write.code import code_facts, environment_facts, process_facts
from hpc_prefect.records.write.plain import plain_arguments, plain_mapping
from hpc_prefect.records.write.writer import Event, RunWriter, logger
from hpc_prefect.transports.local import LocalTransport

#: The id of the work that this process does outside of any flow.
_SCRIPT = str(uuid.uuid4())
_MOST_DIGESTS = 100
_SENDER = "recorded-for"
_ENDS = ("completion", "failure", "cancellation", "crashed")
#: How many seconds a campaign's first call waits for the record to begin.
_AT_FIRST = 2.0


@dataclass
class _Recording:
    """The state of one run's record in this process.

    Attributes:
        writer: None until a campaign is opened.
        early: measures that were recorded before.
        told: the digest of the newest content in the record of each block, by kind and name.
        digests: of the descriptions of blocks, by object, since a flow's calls share them.
        began: the attempt of the run whose beginning this process has recorded; 0 for a run of
            another process.
        page: the run's artifact, in the process that began the run.
    """

    run_id: str = ""
    pid: int = field(default_factory=os.getpid)
    writer: RunWriter | None = None
    early: dict[str, Any] = field(default_factory=dict)
    told: dict[tuple[str, Any], str] = field(default_factory=dict)
    digests: dict[int, tuple[object, str]] = field(default_factory=dict)
    campaigns: set[str] = field(default_factory=set)
    experiments: set[tuple[str, str, int]] = field(default_factory=set)
    began: int = 0
    page: RunPage | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)

    def end(self, state: str, message: str = "") -> None:
        """Record how the run ended, unless that is recorded."""
        if self.writer is not None and self.began and self.pid == os.getpid():
            self.writer.note("ended", state=state, message=message)
            self.writer.close()
            self.began = 0

    def close(self) -> None:
        """The run is gone without an end: it was cancelled, or its process received SIGTERM."""
        if self.writer is None or self.pid != os.getpid():
            return
        known = watch().find(uuid.UUID(self.run_id)) if self.run_id else None
        if known is not None and known.cancelled:
            self.end("cancelled", "the flow run was cancelled")
        else:
            self.end("crashed", "the run ended, but Prefect called no hook for its end")
        self.writer.close()


_recordings: PerRun[_Recording] = PerRun(_Recording, _Recording.close)


def _recording() -> _Recording:
    run_id = current_run()
    found = _recordings.of(run_id)
    if found.pid != os.getpid():  # a forked child: the file belongs to its parent
        found.__init__()  # type: ignore[misc]
    found.run_id = run_id
    return found


def open_record(campaign: Campaign, work_dir: str, *, chosen_outside: bool) -> None:
    """Begin the run's record with this campaign, or add the campaign to it. Blocks; never raises.

    Args:
        chosen_outside: the campaign was named around the flow, and not in it.
    """
    try:
        _open_record(_recording(), campaign, work_dir, chosen_outside)
    except Exception as error:  # noqa: BLE001 - also of a parameter that cannot be shown
        logger.warning("this run has no record, or not all of one: %s", error)


def _open_record(mine: _Recording, campaign: Campaign, work_dir: str, chosen_outside: bool) -> None:
    with mine.lock:
        if mine.writer is None:
            mine.writer = RunWriter(_folder_of(campaign))
        writer, early, mine.early = mine.writer, mine.early, {}
        if _attempt() != mine.began and flow_process() == 0:
            mine.page = mine.page or RunPage.of(writer, root_flow())
            _begin(writer, root_flow())
            _see_to_the_end(root_flow())
            mine.began = _attempt()
        elif (sender := _sender_of_this()) and not _has_begun(writer):
            _begin(writer, root_flow(), sender)
        new = campaign.folder not in mine.campaigns
        experiment = (campaign.name, campaign.identity, campaign.instance)
        new_experiment = experiment not in mine.experiments
        mine.experiments.add(experiment)
        mine.campaigns.add(campaign.folder)
    if new:
        facts = {name: getattr(campaign, name) for name in Campaign.__slots__}
        writer.note("campaign", work_dir=work_dir, chosen_outside=chosen_outside, **facts)
    if early:
        writer.note("measures", values=early)
    # Written before any job is submitted: so the record of a killed run says where its jobs are.
    # The folders of one campaign refer to each other.
    if new_experiment:
        writer.settle(_AT_FIRST)


def _attempt() -> int:
    root = root_flow()
    return root.flow_run.run_count or 1 if root is not None and root.flow_run is not None else 1


def _folder_of(campaign: Campaign) -> str:
    """The folder of this run's record, which may not exist yet."""
    transport, root = LocalTransport(), root_flow()
    run_id = recorded_run()
    here = f"{campaign.folder}/{RUNS}/{run_id}"
    if root is None or root.flow_run is None:
        return here
    known = known_trace(root.flow_run).folders
    for folder in (*known, *folders_of(transport, campaign.folder)):
        if os.path.isdir(f"{folder}/{RUNS}/{run_id}"):
            return f"{folder}/{RUNS}/{run_id}"
    return here


def _sender() -> dict[str, Any] | None:
    """What the flow's process sends along with a task: who it is, and what only it knows of the
    run.

    The flow itself may make no call: then the other process begins the record for this one.
    """
    root = root_flow()
    if (before := sent(_SENDER)) is not None or root is None or root.flow is None:
        return before  # type: ignore[no-any-return]
    facts = _senders.of(current_run())
    if not facts:
        _, inexact = _given_again(root)
        facts |= {"process": process_facts(), "inexact": inexact}
        hook_once(root.flow, _run_ended, *_ENDS)
    return facts


def _before_fork() -> None:
    """Keep what `_sender` would send for a process that is forked in a flow."""
    try:
        _sender()
    except Exception as error:  # noqa: BLE001 - nobody's fork is to fail for a record
        logger.warning("a record that a forked process begins will be incomplete: %s", error)


def _sender_of_this() -> dict[str, Any]:
    """What the flow's own process has sent to this one; empty in the flow's own process."""
    told = sent(_SENDER) or (_senders.of(current_run()) if flow_process() else None)
    return dict(told or {})


_senders: PerRun[dict[str, Any]] = PerRun(dict)
send_along(_SENDER, _sender)
os.register_at_fork(before=_before_fork)


def _has_begun(writer: RunWriter) -> bool:
    """Whether another process of the run has recorded the run's facts."""
    with writer.folding:
        writer.read_others()
        return bool(writer.record.id)


def _begin(
    writer: RunWriter, root: FlowRunContext | None, sender: Mapping[str, Any] | None = None
) -> None:
    """Record the run's facts.

    Args:
        sender: from the flow's own process, for which this one does it.
    """
    run, parameters, file = _run_facts(root)
    given, inexact = _given_again(root) if sender is None else _given_by(sender, root, parameters)
    if reproduced := recorded():
        run["reproduces"] = reproduced.run_id

    def code() -> Iterable[Event]:
        facts, changes = code_facts(file)
        if changes:
            writer.keep(DIFF, changes)
        yield "code", {"code": facts}

    apart = [name for name, value in given.items() if parameters.get(name) != value]
    if apart:
        writer.keep(PARAMETERS, json.dumps(given, indent=1).encode() + b"\n")
    told = {
        "format": FORMAT,
        "run": run,
        "parameters": parameters,
        "inexact": inexact,
        "apart": apart,
    }
    process = {} if sender is None else sender["process"]
    writer.note("began", **told, environment=environment_facts() | process)
    if file:
        writer.aside(code)


def _see_to_the_end(root: FlowRunContext | None) -> None:
    if root is not None and root.flow is not None:
        hook_once(root.flow, _run_ended, *_ENDS)
    atexit.unregister(_process_ends)
    atexit.register(_process_ends)


def _run_facts(root: FlowRunContext | None) -> tuple[dict[str, Any], dict[str, Any], str]:
    """The run's facts, its parameters, and the file of its flow."""
    if root is None or root.flow_run is None:
        script = os.path.abspath(sys.argv[0]) if sys.argv[0] and not is_interactive() else ""
        name = Path(script).name or "interactive session"
        told = {"name": name, "kind": "script", "flow": name, "entrypoint": script}
        arguments = {"argv": plain_arguments(sys.argv[1:])} if script else {}
        run = {"id": _SCRIPT, "attempt": 1, **told}
        return run, arguments, script if os.path.isfile(script) else ""
    flow_run, flow = root.flow_run, root.flow
    facts = {
        "id": str(flow_run.id),
        "name": flow_run.name,
        "kind": "flow",
        "flow": flow.name if flow else flow_run.name,
        "entrypoint": entrypoint_of(flow),
        "options": options_of(flow) if flow else {},
        "attempt": _attempt(),
        "deployment": str(flow_run.deployment_id) if flow_run.deployment_id else None,
        "tags": list(flow_run.tags or ()),
    }
    return facts, plain_mapping(parameters_of(root)), _file_of(flow)


def _given_again(root: FlowRunContext | None) -> tuple[dict[str, Any], list[str]]:
    """The parameters as JSON values from which the run can be repeated; and the names of the
    others.

    The others are secrets, and values that the flow would not restore from JSON.
    """
    if root is None or root.flow_run is None:
        return {}, []
    given = _given(root)
    lost, shown = lost_parameters(root, given), plain_mapping(given, whole=True)
    exact = {
        name: value for name, value in given.items() if name not in lost and shown[name] == value
    }
    return exact, [name for name in parameters_of(root) if name not in exact]


def _given_by(
    sender: Mapping[str, Any], root: FlowRunContext | None, shown: Iterable[str]
) -> tuple[dict[str, Any], list[str]]:
    """The same in another process, from what the flow's own process has sent."""
    stored = (root.flow_run.parameters if root is not None and root.flow_run else None) or {}
    given = {name: value for name, value in stored.items() if name not in sender["inexact"]}
    return given, [name for name in shown if name not in given]


def _given(root: FlowRunContext) -> dict[str, Any]:
    """The parameters as Prefect stored them, with the defaults, which it may not store.

    A default's present value is taken, unless the flow's body may have changed it.
    """
    stored = dict((root.flow_run.parameters if root.flow_run else None) or {})
    if root.flow is None:
        return stored
    changed = changed_in_flow(root)
    defaults = {
        name: value
        for name, value in parameters_of(root).items()
        if name not in stored and name not in changed
    }
    return stored | (root.flow.serialize_parameters(defaults) if defaults else {})


def _file_of(flow: Any) -> str:
    try:
        return os.path.abspath(inspect.getfile(flow.fn))
    except (AttributeError, TypeError, OSError):
        return ""


def _run_ended(flow: object, flow_run: FlowRun, state: State[Any]) -> None:
    """A hook of the flow: records how its run ended."""
    mine = _recordings.known(str(flow_run.id))
    known = watch().find(flow_run.id)
    cancelled = (known is not None and known.cancelled) or "CANCEL" in state.type.value
    how = "cancelled" if cancelled else state.type.value.lower()
    if mine is not None and mine.writer is not None:
        mine.end(how, first_line(state.message))
    elif _senders.known(str(flow_run.id)) and (folder := _written_by_others(flow_run)):
        writer = RunWriter(folder)
        if mine is not None and mine.early:
            writer.note("measures", values=mine.early)
        writer.note("ended", state=how, message=first_line(state.message))
        writer.close()


def _written_by_others(flow_run: FlowRun) -> str:
    """The folder of a record that a pool's processes began; the flow itself made no call."""
    found = (f"{folder}/{RUNS}/{flow_run.id}" for folder in read_trace(flow_run).folders)
    return next(filter(os.path.isdir, found), "")


def first_line(message: str | None) -> str:
    return (message or "").partition("\n")[0][:500]


def _process_ends() -> None:
    """Record the ends at the process's end: a script that ran to its last line has completed."""
    if (script := _recordings.known("")) is not None:
        script.end("completed" if came_to_its_end() else "crashed")
    for each in _recordings.values():
        each.close()
    leaving.leave_all()


# --- what calls tell


def note_event(event: str, **facts: Any) -> None:
    """Write an event into the record of the run around. Never raises, never waits."""
    writer = _recording().writer
    if writer is not None:
        writer.note(event, **facts)


def noting() -> Callable[[Callable[[], Iterable[Event]]], None]:
    """A function that writes events into the record of the run around this call, from any thread.

    It takes a function that makes the events, which the writing thread calls. It never raises and
    never waits; without a record it does nothing.
    """
    writer = _recording().writer
    return (lambda make: None) if writer is None else writer.later


def recorded_run() -> str:
    """The id of the run whose record has the calls made here."""
    return current_run() or _SCRIPT


def end_by(error: BaseException) -> dict[str, Any]:
    """The end of a call without a job, by the error that it raised."""
    if isinstance(error, FlowRunCancelled | asyncio.CancelledError | KeyboardInterrupt):
        return {"state": "cancelled", "reason": Reason.CANCELLED.value, "summary": _text_of(error)}
    code = re.sub(r"(?<!^)(?=[A-Z])", "_", type(error).__name__).lower()
    return {"state": "failed", "reason": code, "summary": _text_of(error)}


def _text_of(error: BaseException) -> str:
    return first_line(str(error) or type(error).__name__)


def note_blocks(described: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Write blocks and Variables; returns their digests, for the jobs that use them.

    Each is written at first use and at each change, also when it changes back.

    Args:
        described: by their kind, each with its `name` and its fields, secrets hidden.
    """
    mine, digests = _recording(), []
    for kind, fields in described.items():
        known = mine.digests.get(id(fields))
        if known is None or known[0] is not fields:
            known = mine.digests[id(fields)] = (fields, digest([kind, _own(fields)])[:16])
        digests.append(known[1])
        if mine.told.get((kind, name := fields["name"])) != known[1]:
            mine.told[kind, name] = known[1]
            values = recorded_form(fields)
            note_event("block", digest=known[1], kind=kind, name=name, values=values)
    while len(mine.digests) > _MOST_DIGESTS:
        mine.digests.pop(next(iter(mine.digests)), None)
    return digests


def recorded_form(described: Mapping[str, Any]) -> dict[str, Any]:
    """A block as a record has it: all of its fields."""
    values = plain_mapping(_own(described), whole=True)
    del values["name"]
    return values


def note_on_page(run_id: str, name: str, sentence: str) -> None:
    """Show a sentence on the run's page; it replaces an earlier one of the same name."""
    mine = _recordings.known(run_id)
    if mine is not None and mine.page is not None:
        mine.page.note(name, sentence)


def _own(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Drops the fields that Prefect adds, such as the document's id on this server."""
    return {name: value for name, value in fields.items() if not name.startswith("_")}


def record_measures(**values: Any) -> None:
    """Record results of the run around, such as an energy, for lists and comparisons.

        record_measures(energy=-109.07, error_mha=0.63)

    A loop's measures are recorded automatically. The newest value of a name counts. Numbers, texts
    and truth values are kept as they are, also NumPy's; long values are cut. Values that are
    recorded before the run's first job or sampling are written with that, since the record is in
    its work_dir.
    """
    kept = plain_mapping(values)
    mine = _recording()
    if mine.writer is None:
        mine.early |= kept
    else:
        mine.writer.note("measures", values=kept)
