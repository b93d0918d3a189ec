"""Runs a recorded run again, as a new flow run with the recorded configuration.

Parameters, blocks, Variables and seeds are the recorded ones; of what is stored only secrets are
used, which no record holds, and nothing is changed. No result of the first run is reused: all of
its jobs and samplings are run, and paid for, once more. The new run's own record is compared with
the first.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

from prefect.client.orchestration import get_client
from prefect.flows import Flow
from prefect.states import Pending

from hpc_prefect.errors import CannotReproduce
from hpc_prefect.flow_runs.campaigns import campaign
from hpc_prefect.flow_runs.flow_options import with_recorded
from hpc_prefect.flow_runs.reproduction import of_record, reproducing
from hpc_prefect.lifecycle import start, then_and_now
from hpc_prefect.records import index
from hpc_prefect.records.compare.results import SameResults, same_results
from hpc_prefect.records.compare.sweep import is_place
from hpc_prefect.records.compare.values import words
from hpc_prefect.records.fold import PARAMETERS, Record
from hpc_prefect.records.read import RUNNING, given_parameters, read_run, standing
from hpc_prefect.records.write import leaving
from hpc_prefect.records.write.code import numeric_variables
from hpc_prefect.records.write.plain import HIDDEN

logger = logging.getLogger("hpc_prefect.lifecycle.reproduce")

#: The costs that a plan shows.
_PAID = ("node_hours", "gpu_hours", "qpu_seconds")


@dataclass(frozen=True, kw_only=True)
class ReproductionPlan:
    """What a reproduction will do.

    Attributes:
        record: of the run that is reproduced.
        entrypoint: of its flow.
        cwd: the directory in which it will run.
        parameters: the arguments of its flow.
        changed: the names of the parameters that the caller chose.
    """

    record: Record
    entrypoint: str
    cwd: str
    parameters: Mapping[str, Any]
    changed: tuple[str, ...]

    def environment(self, environ: Mapping[str, str]) -> dict[str, str]:
        """An environment with the recorded values of the variables that affect the last bits of
        results.

        Libraries read them when they are loaded, so they must be set when a process starts.
        """
        then = self.record.environment.get("variables")
        if not isinstance(then, Mapping):  # not recorded
            return dict(environ)
        others = numeric_variables(environ)
        return {name: value for name, value in environ.items() if name not in others} | {
            str(name): str(value) for name, value in then.items()
        }

    def lines(self) -> Iterator[str]:
        """The plan in words. Reads files, and asks git and Prefect."""
        record = self.record
        yield f"run {record.name} ({record.id}) of {self.entrypoint}, which is {standing(record)}"
        yield f"  in {self.cwd}, with {_in_words(self.parameters) or 'no parameters'}"
        if self.changed:
            yield f"  not as recorded: {', '.join(self.changed)}"
        if new := [name for name in self.changed if name not in record.parameters]:
            yield f"  new parameter {_quoted(new)}, which the recorded run did not have"
        for line in then_and_now.lines(record):
            yield f"  {line}"
        if cost := _in_words({name: record.totals.costs.get(name) or None for name in _PAID}):
            yield f"  it cost {cost}"
        folders = {str(each.get("work_dir") or "") for each in record.campaigns.values()} - {""}
        if folders and not self._is_elsewhere():
            yield (
                "  its jobs write where those of the first run wrote: in"
                f" {', '.join(sorted(folders))}"
            )

    def _is_elsewhere(self) -> bool:
        """Whether the caller chose another directory, or another folder for the jobs."""
        then = self.record.parameters
        moved = any(is_place(then.get(name), self.record) for name in self.changed)
        return moved or self.cwd != self.record.environment.get("cwd")


@dataclass(frozen=True, kw_only=True)
class Reproduction:
    """A reproduction that was carried out.

    Attributes:
        first: its record.
        second: the new run's; None when that ended before its first job or sampling.
        flow_run_id: of the new run.
        results: of both runs, compared; None without a second record.
        value: what the flow returned.
        error: the exception that it raised instead.
    """

    first: Record
    second: Record | None
    flow_run_id: str
    results: SameResults | None
    value: Any = None
    error: Exception | None = None


def plan(
    run: str,
    *,
    entrypoint: str = "",
    parameters: Mapping[str, Any] | None = None,
    cwd: str = "",
) -> ReproductionPlan:
    """Find out whether and how a recorded run can be run again. Changes nothing.

    Args:
        run: its id or the beginning of it, its name, the folder of its record, or `latest`.
        entrypoint: `FILE:FLOW` or `MODULE:FLOW`, instead of the recorded one.
        parameters: these replace recorded ones, those that the record could not hold, and add ones
            that are new in the flow.
        cwd: the directory to run in, instead of the first run's.

    Raises:
        CannotReproduce: it cannot be run again; with all reasons.
        UnknownRun: no run, or several runs, match.
        LedgerError: its record cannot be read.
    """
    record = index.read_one(run)
    given, chosen = dict(given_parameters(record)), dict(parameters or {})
    where = os.path.abspath(os.path.expanduser(cwd)) if cwd else str(record.environment.get("cwd"))
    entry = start.seen_from_here(entrypoint) or str(record.run.get("entrypoint") or "")
    problems = [*_problems(record, entry, where), *_parameter_problems(record, given | chosen)]
    if problems:
        raise CannotReproduce(f"run {record.name} ({record.id})", problems)
    return ReproductionPlan(
        record=record,
        entrypoint=entry,
        cwd=where,
        parameters=given | chosen,
        changed=tuple(sorted(chosen)),
    )


def reproduce(
    run: str,
    *,
    entrypoint: str = "",
    parameters: Mapping[str, Any] | None = None,
    cwd: str = "",
) -> Reproduction:
    """Run a recorded run again, and compare the two. Call it from a plain script.

    Args:
        As `plan`.

    Raises:
        As `plan`; an exception of the flow is in the result.
    """
    return carry_out(plan(run, entrypoint=entrypoint, parameters=parameters, cwd=cwd))


def carry_out(planned: ReproductionPlan) -> Reproduction:
    """Carry out a plan."""
    first = planned.record
    value, failed = None, None
    with start.started_from(planned.cwd, planned.entrypoint):
        flow = start.load_flow(planned.entrypoint)
        if problems := _flow_problems(planned, flow):
            raise CannotReproduce(f"run {first.name} ({first.id})", problems)
        assert not isinstance(flow, str)
        options = first.run.get("options")  # records of earlier versions have none
        flow, told = with_recorded(flow, options if isinstance(options, Mapping) else {})
        for each in told:
            logger.warning("flow %s of run %s: %s", flow.name, first.id, each)
        with get_client(sync_client=True) as client:
            flow_run = client.create_flow_run(
                flow,
                name=f"{first.name}-again",
                parameters=dict(planned.parameters),
                # Not Scheduled: a process that serves its deployment would start it too.
                state=Pending(message=f"Reproduces flow run {first.id}."),
            )
        named = _campaign_around(first)
        with campaign(named) if named else nullcontext(), reproducing(first.folder):
            try:
                value = start.run(flow, flow_run, planned.parameters)
            except Exception as error:  # noqa: BLE001 - of the flow, whatever it is
                failed = error
    leaving.leave_all()
    second = _record_of(str(flow_run.id))
    results = None if second is None else same_results(first, second)
    return Reproduction(
        first=first,
        second=second,
        flow_run_id=str(flow_run.id),
        results=results,
        value=value,
        error=failed,
    )


def _record_of(flow_run_id: str) -> Record | None:
    known = index.entry(flow_run_id)
    return None if known is None else read_run(known["folder"])


def _campaign_around(record: Record) -> str:
    """The name of the campaign that was chosen around the flow, if one was."""
    return next(
        (str(each["name"]) for each in record.campaigns.values() if each.get("chosen_outside")), ""
    )


def _problems(record: Record, entrypoint: str, cwd: str) -> Iterator[str]:
    if record.run.get("kind") != "flow":
        words_of_it = " ".join(map(str, record.environment.get("argv") or ()))
        yield (
            "it was a script, not a flow, so it cannot be called again; run"
            f" `{words_of_it}` in {cwd}, and compare the two with `hpc-prefect runs compare`"
        )
        return
    if standing(record) == RUNNING:
        yield "it is still running, as far as is known"
    if not os.path.isdir(cwd):
        yield (
            f"its working directory {cwd} does not exist on {socket.gethostname()}; give another"
            " one as --cwd DIR"
        )
    yield from start.entrypoint_problems(entrypoint)
    for (kind, name), values in of_record(record).blocks.items():
        if kind.endswith("-variable") and HIDDEN in repr(values):
            yield f"Variable {name!r} had a secret in it, which no record holds"


def _flow_problems(planned: ReproductionPlan, flow: Flow[..., Any] | str) -> list[str]:
    if isinstance(flow, str):
        return [flow]
    misfits = start.misfits(flow, planned.parameters)
    had = ", ".join(planned.record.parameters) or "none"
    problems = [
        f"{misfits}; the first run had {had}. Give new ones with --param NAME=VALUE"
        if misfits
        else ""
    ]
    recorded = planned.record.run
    if planned.entrypoint == recorded.get("entrypoint") and flow.name != recorded.get("flow"):
        problems.append(
            f"it was flow {recorded.get('flow')!r}, and {planned.entrypoint} is flow"
            f" {flow.name!r}; give the right one as --entrypoint FILE:FLOW"
        )
    return [each for each in problems if each]


def _parameter_problems(record: Record, having: Mapping[str, Any]) -> Iterator[str]:
    if lost := [name for name in record.inexact if name not in having]:
        yield (
            f"the record does not have the value of its parameter {_quoted(lost)} (a secret, or"
            f" not possible in JSON); give it with --param NAME=VALUE"
        )
    if gone := [name for name in record.apart if name not in having]:
        yield (
            f"the file {record.folder}/{PARAMETERS} with its parameter {_quoted(gone)} is gone or"
            f" damaged; give it with --param NAME=VALUE"
        )


def _quoted(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names))


def _in_words(values: Mapping[str, Any]) -> str:
    told = {name: value for name, value in values.items() if value is not None}
    return ", ".join(f"{name}={words(value)}" for name, value in told.items())
