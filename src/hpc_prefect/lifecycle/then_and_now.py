"""Compares a recorded run with the present: code, versions, blocks, programs, inputs.

A reproduction takes the configuration from the record; everything else is as it is today.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator, Mapping
from typing import Any

from prefect.client.orchestration import PrefectClient, get_client

from hpc_prefect.blocks.from_record import described, is_of_code, stored_block
from hpc_prefect.blocks.profiles import CommandBlock, ExecutionProfileBlock, HPCProfileBlock
from hpc_prefect.convergence.stop import parse_algorithm
from hpc_prefect.errors import ConfigurationError
from hpc_prefect.flow_runs.recording import recorded_form
from hpc_prefect.flow_runs.reproduction import of_record
from hpc_prefect.quantum.block import QuantumBackendBlock
from hpc_prefect.quantum.credentials import IBMQuantumCredentials
from hpc_prefect.quantum.options import options_of_variable
from hpc_prefect.records.compare.values import varied, words
from hpc_prefect.records.fold import DIFF, Record
from hpc_prefect.records.write.code import code_facts, environment_facts
from hpc_prefect.records.write.digests import file_facts

_KINDS = {
    kind.get_block_type_slug().removeprefix("hpc-prefect-"): kind
    for kind in (
        *(CommandBlock, ExecutionProfileBlock, HPCProfileBlock),
        *(QuantumBackendBlock, IBMQuantumCredentials),
    )
}
_VARIABLE = "-variable"
#: How many differences of a list are named.
_NAMED = 6


def lines(record: Record) -> Iterator[str]:
    """A line for each thing that has changed, and one for all that is the same.

    Reads files, and asks git and Prefect.
    """
    same: list[str] = []
    for what, changes in (
        ("code", list(_code(record))),
        ("versions", list(_versions(record))),
        ("blocks and Variables", asyncio.run(_configuration(record))),
        ("programs", list(_files(_programs(record), "program"))),
        ("inputs", list(_files(_inputs(record), "input"))),
    ):
        if changes:
            yield from changes
        else:
            same.append(what)
    yield from _devices(record)
    if same:
        yield f"unchanged, as far as is known: {', '.join(same)}"


def _code(record: Record) -> Iterator[str]:
    then = record.code
    if not then.get("sha256"):
        yield "code: not recorded"
        return
    now, _ = code_facts(str(then.get("file") or ""))
    if not now.get("sha256"):
        yield f"code: {then['file']} does not exist now"
    elif now["sha256"] != then["sha256"]:
        yield f"code: {then['file']} has changed"
    if (commit := then.get("commit")) != now.get("commit"):
        back = f"; `git checkout {_short(commit)}` brings it back" if commit else ""
        yield (
            f"code: the repository was at commit {_short(commit)}, and is at"
            f" {_short(now.get('commit'))} now{back}"
        )
    if then.get("diff_sha256") != now.get("diff_sha256"):
        kept = (
            f"; the recorded changes are in {record.folder}/{DIFF}" if then.get("diff_kept") else ""
        )
        yield f"code: the uncommitted changes are others now{kept}"


def _short(commit: object) -> str:
    return str(commit)[:12] if commit else "none"


def _versions(record: Record) -> Iterator[str]:
    now = environment_facts()
    then = record.environment
    sides = [{"python": each.get("python"), **(each.get("packages") or {})} for each in (then, now)]
    changed = [f"{name} {words(a)} → {words(b)}" for name, (a, b) in varied(sides).items()]
    if changed:
        yield f"versions: {_named(changed)}"
    known = isinstance(then.get("variables"), Mapping)
    variables = varied([then["variables"], now["variables"]]) if known else {}
    if variables:
        told = [f"{name} {words(a)} → {words(b)}" for name, (a, b) in variables.items()]
        yield f"environment variables: {_named(told)}; they may affect the last bits of results"
    if then.get("host") != now["host"]:
        yield f"host: it ran on {then.get('host')}, and this is {now['host']}"


def _named(changes: list[str]) -> str:
    more = f" and {len(changes) - _NAMED} more" if len(changes) > _NAMED else ""
    return ", ".join(changes[:_NAMED]) + more


async def _configuration(record: Record) -> list[str]:
    """The stored blocks and Variables that differ from the recorded ones, which are used."""
    found = []
    reproduced = of_record(record)
    async with get_client() as client:
        for (kind, name), then in reproduced.blocks.items():
            if is_of_code(name):
                continue
            now = await _stored(kind, name, client)
            what = f"Variable {name!r}" if kind.endswith(_VARIABLE) else f"{kind} block {name!r}"
            found += _change(what, then, now)
    return found


def _change(what: str, then: Mapping[str, Any], now: Mapping[str, Any] | None) -> list[str]:
    if now is None:
        return [f"{what} is not stored any more: the recorded one is used"]
    changed = [f"{path} {words(a)} → {words(b)}" for path, (a, b) in varied([then, now]).items()]
    return [f"{what} is stored with {_named(changed)}; the recorded one is used"] if changed else []


async def _stored(kind: str, name: str, client: PrefectClient) -> dict[str, Any] | None:
    if kind.endswith(_VARIABLE):
        variable = await client.read_variable_by_name(name)
        return None if variable is None else _read_for(kind, variable.value)
    block = await stored_block(_KINDS[kind], name, client) if kind in _KINDS else None
    return None if block is None else recorded_form(described(name, block))


def _read_for(kind: str, value: Any) -> dict[str, Any]:
    """The part of a Variable that is used, as records have it."""
    if kind != "loop-variable":
        return {"options": options_of_variable(value, kind.removesuffix(_VARIABLE))}
    try:
        rule, parameters = parse_algorithm(value, "the Variable")
    except ConfigurationError:  # its content is no longer valid
        return {"value": value}
    return {"stop": rule.as_dict(), **parameters}


_File = tuple[str, Mapping[str, Any]]


def _programs(record: Record) -> Iterator[_File]:
    for job in record.jobs.values():
        for file in (job.get("executable"), *(job.get("images") or ())):
            if isinstance(file, Mapping) and file.get("sha256"):
                yield str(file["path"]), file


def _inputs(record: Record) -> Iterator[_File]:
    for job in record.jobs.values():
        for path, file in (job.get("inputs") or {}).items():
            yield os.path.join(str(job.get("work_dir") or ""), os.path.expanduser(path)), file


def _files(files: Iterator[_File], what: str) -> Iterator[str]:
    """Each path once, with its last content."""
    changed = []
    for path, then in dict(files).items():
        now = file_facts(path, remember=True)
        if "sha256" not in now:
            changed.append(f"{path} does not exist now")
        elif now["sha256"] != then.get("sha256"):
            changed.append(f"{path} has changed")
    if changed:
        yield f"{what}s: {_named(changed)}"


def _devices(record: Record) -> Iterator[str]:
    """A line for each quantum computer, whose noise cannot be repeated."""
    bought = {
        str(job.get("device")): str(job.get("calibrated_at") or "")
        for job in record.jobs.values()
        if job.get("qpu_seconds") is not None
    }
    for device, calibrated in sorted(bought.items()):
        when = f", calibrated at {calibrated} then" if calibrated else ""
        yield f"device {device}{when}: a quantum computer gives other samples each time"
