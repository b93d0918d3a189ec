"""The events about a job in a run's record, made from its call and the job's own record."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from hpc_prefect.job.identity import digest
from hpc_prefect.records.write.plain import plain, plain_arguments

if TYPE_CHECKING:  # a comparison of runs need not load what runs jobs
    from hpc_prefect.executor.request import JobRequest
    from hpc_prefect.job.members import MemberSpec
    from hpc_prefect.job.result import JobResult
    from hpc_prefect.operations.snapshot import JobSnapshot

#: The values that are taken from a batch job's result, and from its verdict.
_RESULT = (
    *("job_id", "attempt", "state", "host", "queue_seconds", "run_seconds", "resources_used"),
    *("collected", "folder", "name", "key"),
)
_VERDICT = ("reason", "summary", "exit_code", "signal")
#: The values about the members of an array; see `members_given`.
_OF_MEMBERS = ("member_arguments", "member_inputs")
#: So many members' arguments are in a record as they are; a digest covers all members.
_LISTED = 100
#: The scheduler's name begins with it if a job ran in a held allocation.
ALLOCATION = "allocation-"
#: The values that a quantum job's service told.
_QUANTUM = ("device", "calibrated_at", "qpu_seconds", "qpu_seconds_are", "attempt", "tag")
#: The digest (of parameters, too) after the name of a campaign, loop or task in a scope.
_SCOPE_DIGEST = re.compile(r"-[0-9a-f]{8,64}(?=$|-\d+$)")


def place_names(scope: object) -> tuple[str, ...]:
    """The names in a call's scope, without digests: the same in every run."""
    names = scope if isinstance(scope, list | tuple) else ()
    return tuple(_SCOPE_DIGEST.sub("", str(each)) for each in names)


def batch_wanted(request: JobRequest, blocks: Sequence[str] = ()) -> dict[str, Any]:
    """The event that a call asks for a batch job; `blocks` are the digests of its blocks."""
    made = request.provenance
    return {
        "key": request.key,
        "kind": "batch",
        "name": request.spec.name,
        "folder": request.base,
        "scope": made.get("scope") or [],
        "n": made.get("n"),
        "blocks": list(blocks),
        **{name: made[name] for name in _OF_MEMBERS if name in made},
    }


def members_given(
    members: Sequence[MemberSpec], inputs: Sequence[Mapping[str, str]], work_dir: str
) -> dict[str, Any]:
    """What identifies the members of an array, without secrets, and short.

    Args:
        inputs: for each member, the SHA-256 of its inputs by their names.
        work_dir: of the call; paths in it are made relative, so that they are the same in every
            work_dir.
    """
    arguments = [
        [_from_here(word, work_dir) for word in plain_arguments(member.arguments)]
        for member in members
    ]
    settings = [plain(member.environment) for member in members]
    given: dict[str, Any] = {
        "member_arguments": {
            "count": len(members),
            "sha256": digest([arguments, settings]),
            "first": arguments[:_LISTED],
        }
    }
    if any(inputs):
        files = [{_from_here(name, work_dir): one[name] for name in one} for one in inputs]
        given["member_inputs"] = {"sha256": digest(files)}
    return given


def _from_here(word: str, work_dir: str) -> str:
    return f".{word[len(work_dir) :]}" if f"{word}/".startswith(f"{work_dir}/") else word


def batch_job(result: JobResult, record: Mapping[str, Any]) -> dict[str, Any]:
    """The event that a batch job ended.

    Args:
        result: as the call got it.
        record: the content of record.json in the job's folder; empty if there is none, as for a job
            that was refused.
    """
    spec = record.get("job") or {}
    asked, site = spec.get("resources") or {}, spec.get("site") or {}
    nodes = int(asked.get("num_nodes") or result.num_nodes or 0)
    cores = nodes * int(asked.get("ranks_per_node") or 0) * int(asked.get("threads_per_rank") or 0)
    gpus = nodes * int(asked.get("gpus_per_node") or 0)
    hours = _hours(result.run_seconds)
    # A job in a held allocation costs nothing: the allocation's own job has the cost.
    free = str(site.get("scheduler") or "").startswith(ALLOCATION)
    return {
        "kind": "batch",
        **{name: getattr(result, name) for name in _RESULT},
        **{name: getattr(result.verdict, name) for name in _VERDICT},
        "node_hours": 0.0 if free else _times(nodes, hours),
        "core_hours": 0.0 if free else _times(cores, hours),
        **({"gpu_hours": 0.0 if free else _times(gpus, hours)} if gpus else {}),
        **({"in_allocation": True} if free else {}),
        "asked": {
            "nodes": nodes,
            "ranks_per_node": asked.get("ranks_per_node"),
            "threads_per_rank": asked.get("threads_per_rank"),
            "cores": cores,
            "gpus": gpus,
            "memory_per_node": asked.get("memory_per_node"),
            "walltime": asked.get("walltime"),
        },
        "scheduler": site.get("scheduler"),
        "queue": site.get("queue"),
        "loaded_modules": record.get("loaded_modules") or [],
        "modules": [*(site.get("modules") or ()), *_executable_modules(spec)],
        "command": spec.get("command_name"),
        "arguments": plain_arguments(spec.get("arguments") or ()),
        "script_sha256": record.get("script_sha256"),
        "executable": record.get("program") or _executable_path(spec),
        "images": record.get("images") or [],
        "inputs": _inputs(record),
        "work_dir": spec.get("work_dir"),
        "expected_outputs": spec.get("expected_outputs") or [],
        "made_by": record.get("run") or (record.get("flow_run") or {}).get("id"),
        **{name: record[name] for name in ("members", "ends") if name in record},
    }


def _inputs(record: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    sizes = record.get("inputs_size") or {}
    return {
        path: ({"size": sizes[path]} if path in sizes else {}) | {"sha256": digest}
        for path, digest in (record.get("inputs_sha256") or {}).items()
    }


def _executable_modules(spec: Mapping[str, Any]) -> list[str]:
    return list((spec.get("executable") or {}).get("modules") or ())


def _executable_path(spec: Mapping[str, Any]) -> dict[str, Any]:
    return {"path": (spec.get("executable") or {}).get("path", "")}


def _hours(seconds: object) -> float | None:
    return float(seconds) / 3600 if isinstance(seconds, int | float) else None


def _times(count: int, hours: float | None) -> float | None:
    return None if hours is None or not count else count * hours


def quantum_job(
    record: Mapping[str, Any], *, kind: str, folder: str, key: str, name: str, asked_after: float
) -> dict[str, Any]:
    """The event that a sampling or estimation ended, on a quantum computer or simulated.

    Args:
        record: the content of its record (sampling.json).
        asked_after: when the call was made, in seconds since 1970: work that finished before was
            done by an earlier run.
    """
    job = record.get("job") or {}
    options = record.get("options") or {}
    finished = _seconds_of(record.get("finished_at"))
    bought = "qpu_seconds" in job
    return {
        "kind": kind,
        "key": key,
        "name": name,
        "folder": folder,
        "job_id": job.get("id", ""),
        "state": "succeeded" if record.get("state") == "finished" else "failed",
        "collected": 0 < finished < asked_after,
        "finished_at": finished,
        **{each: job[each] for each in _QUANTUM if each in job},
        **({} if bought else {"run_seconds": record.get("seconds")}),
        "backend": record.get("backend") or {},
        "shots": record.get("shots"),
        "options": options,
        "seed": options.get("seed"),
        "digest": record.get("digest"),
        "circuits": job.get("transpiled") or record.get("pubs") or [],
        "result_sha256": (record.get("result") or {}).get("sha256"),
        "data_sha256": (record.get("result") or {}).get("data_sha256"),
        "versions": record.get("versions") or {},
        "made_by": record.get("made_by"),
    }


def failed_quantum_job(
    job: JobSnapshot, *, kind: str, folder: str, key: str, name: str
) -> dict[str, Any]:
    """The event for a quantum job that left no result here; it may have cost something."""
    result, asked = job.result, job.ledger.job
    assert result is not None
    actual = result.resources_used.get("qpu_seconds")
    cost = {"qpu_seconds": actual, "qpu_seconds_are": "actual"} if job.job_id else {}
    return {
        "kind": kind,
        "key": key,
        "name": name,
        "folder": folder,
        "attempt": job.attempt,
        "job_id": job.job_id,
        "tag": job.tag,
        "state": result.state,
        "reason": result.verdict.reason.value,
        "summary": result.verdict.summary,
        "collected": False,
        "finished_at": job.status.known_at,
        "device": result.host,
        "calibrated_at": asked.get("calibrated_at"),
        **cost,
        "shots": asked.get("shots"),
        "digest": asked.get("digest"),
        "circuits": asked.get("transpiled") or [],
    }


def _seconds_of(iso: object) -> float:
    try:
        return datetime.fromisoformat(str(iso)).timestamp()
    except ValueError:
        return 0.0


def output_paths(job: Mapping[str, Any]) -> dict[str, str]:
    """The paths of a batch job's expected outputs, by their names."""
    folder = str(job.get("work_dir") or "")
    paths = job.get("expected_outputs") or ()
    return {str(path): os.path.join(folder, os.path.expanduser(str(path))) for path in paths}
