"""The jobs of a run in its crate: their tools, steps, actions and files."""

from __future__ import annotations

import mimetypes
import os
from collections.abc import Iterable, Mapping
from typing import Any

from hpc_prefect.job import folder as names
from hpc_prefect.job.folder import read_starts
from hpc_prefect.ledger.quantum_folder import RESULT
from hpc_prefect.records.export.attempts import WANTED
from hpc_prefect.records.export.files import (
    BATCH_FILES,
    TAIL,
    JobFiles,
    chunks,
    name_within,
    own_path,
    quantum_files,
    why_not,
)
from hpc_prefect.records.export.graph import (
    ACTIVE,
    COMPLETED,
    FAILED,
    Graph,
    Ref,
    as_id,
    file_url,
    local_id,
)
from hpc_prefect.records.export.moments import moment
from hpc_prefect.records.export.redaction import Secrets
from hpc_prefect.records.export.target import Target
from hpc_prefect.records.fold import COSTS

_HOURS, _SECONDS = "https://qudt.org/vocab/unit/HR", "https://qudt.org/vocab/unit/SEC"
#: The meaning of each cost: no vocabulary has these quantities.
_QUANTITIES = {
    "queue_seconds": "seconds between a job's submission and its start",
    "run_seconds": "seconds that a job ran",
    "node_hours": "nodes that were asked for, times the hours that the job ran",
    "core_hours": "cores that were asked for, times the hours that the job ran",
    "gpu_hours": "GPUs that were asked for, times the hours that the job ran",
    "qpu_seconds": "seconds that a quantum computer was used, by its service",
    "wall_seconds": "seconds from the run's beginning to its end, or to the last entry of its"
    " record",
}
_JSON, _JSON_LINES = "application/json", "application/jsonl"
_ENCODINGS = {".json": _JSON, ".jsonl": _JSON_LINES, ".sh": "text/x-shellscript"}


class JobEntities:
    """Adds jobs to the graph, and collects references for the workflow and the crate.

    Attributes:
        tools, steps, controls, actions: references to all of them.
        parts: references to the folders of the jobs.
        results: references to the outputs of all jobs.
    """

    def __init__(
        self, graph: Graph, target: Target, files: JobFiles, secrets: Secrets, *,
        agent: Ref, run: str, whole_up_to: int,
    ) -> None:  # fmt: skip
        self._graph, self._target, self._files, self._secrets = graph, target, files, secrets
        self._agent, self._run, self._most = agent, run, whole_up_to
        self._tools: dict[str, Ref] = {}
        self._steps: dict[str, Ref] = {}
        self._known: dict[tuple[str, str], Ref] = {}
        self.controls: list[Ref] = []
        self.actions: list[Ref] = []
        self.parts: list[Ref] = []
        self.results: list[Ref] = []

    @property
    def tools(self) -> list[Ref]:
        return list(self._tools.values())

    @property
    def steps(self) -> list[Ref]:
        return list(self._steps.values())

    def add(self, attempts: list[dict[str, Any]]) -> None:
        """A job with all of its attempts, the newest last."""
        done = [self._add_attempt(each) for each in attempts]
        newest = attempts[-1]
        tool = self._tool(newest)
        name = str(newest.get("name") or newest.get("key"))
        step_id = local_id("step", name, tool["@id"].lstrip("#"))
        self._steps.setdefault(
            step_id, self._graph.add(step_id, "HowToStep", name=name, workExample=tool)
        )
        key = newest.get("key")
        where = "/".join(map(str, newest.get("scope") or []))
        self.controls.append(
            self._graph.add(
                local_id("call", key), "ControlAction",
                name=f"call of {name}{f' in {where}' if where else ''}",
                instrument={"@id": step_id}, object=done, **_outcome(newest),
            )
        )  # fmt: skip

    def _add_attempt(self, attempt: dict[str, Any]) -> Ref:
        folder = self._files.folder(attempt)
        in_crate = f"jobs/{name_within(os.path.basename(folder) or str(attempt.get('key')))}"
        kept, data = self._add_folder(attempt, folder, in_crate)
        results = [*data, kept]
        self.results += data
        id = local_id("job", attempt.get("key"), attempt.get("attempt"), attempt.get("job_id", ""))
        action = self._graph.add(
            id, "CreateAction",
            name=f"{attempt.get('name') or attempt.get('key')}, attempt {attempt.get('attempt')}",
            description=self._description(attempt),
            instrument=self._tool(attempt), agent=self._agent,
            object=self._inputs(attempt), result=results,
            containerImage=[self._image(each) for each in attempt.get("images") or ()],
            resourceUsage=self.usage(id, {name: attempt.get(name) for name in COSTS}),
            **_times(attempt, self._files, folder), **_outcome(attempt),
        )  # fmt: skip
        self.actions.append(action)
        return action

    def _description(self, attempt: Mapping[str, Any]) -> str:
        told = []
        if command := (attempt.get("executable") or {}).get("path"):
            told.append(" ".join(map(str, [command, *(attempt.get("arguments") or ())])))
        if shots := attempt.get("shots"):
            told.append(f"{shots} shots on {attempt.get('device') or _backend(attempt)}")
        told += [
            f"{name} {attempt[field]}"
            for name, field in (("job", "job_id"), ("on", "host"), ("queue", "queue"))
            if attempt.get(field)
        ]
        if attempt.get("collected"):
            told.append(f"result of an earlier run ({attempt.get('made_by') or 'unknown'})")
        if attempt.get("state") == WANTED:
            told.append("no end of this job is recorded")
        else:
            told.append(str(attempt.get("summary") or attempt.get("state") or ""))
        return "; ".join(each for each in told if each)

    # --- tools

    def _tool(self, attempt: Mapping[str, Any]) -> Ref:
        """The program or device; one entity for each build of it."""
        batch = attempt.get("kind") == "batch"
        id, facts = _program(attempt) if batch else _device(attempt)
        reference = self._graph.add(id, "SoftwareApplication", **facts)
        self._tools.setdefault(id, reference)
        return reference

    def _image(self, image: Mapping[str, Any]) -> Ref:
        path = str(image.get("path") or "")
        return self._graph.add(
            local_id("image", str(image.get("sha256") or "unknown")[:16], os.path.basename(path)),
            "ContainerImage", name=os.path.basename(path), description=path,
            additionalType={"@id": "https://w3id.org/ro/terms/workflow-run#SIFImage"},
            sha256="" if image.get("sampled") else image.get("sha256"),
        )  # fmt: skip

    def usage(self, id: str, costs: Mapping[str, Any]) -> list[Ref]:
        """The known costs, as entities."""
        return [
            self._graph.add(
                f"{id}-{name}", "PropertyValue", name=name, propertyID=self._quantity(name),
                unitCode=_HOURS if name.endswith("hours") else _SECONDS, value=round(value, 9),
            )
            for name, value in costs.items()
            if isinstance(value, int | float)
        ]  # fmt: skip

    def _quantity(self, name: str) -> Ref:
        return self._graph.add(
            local_id("quantity", name), "DefinedTerm", name=name, description=_QUANTITIES[name]
        )

    # --- files

    def _add_folder(
        self, attempt: Mapping[str, Any], folder: str, name: str
    ) -> tuple[Ref, list[Ref]]:
        """A job's folder with the files that are kept of it; and its outputs, or its result."""
        id = as_id(f"{name}/")
        if id in self._graph:  # another attempt has the same folder
            return {"@id": id}, []
        self._target.add_folder(name)
        batch = attempt.get("kind") == "batch"
        own = BATCH_FILES if batch else quantum_files(str(attempt.get("kind")))
        parts = [
            self._own_file(own_path(attempt, folder, each), f"{name}/{each}", own[each])
            for each in own
        ]
        if batch:
            data = self._outputs(attempt, name)
        else:
            recorded = {"sha256": attempt.get("result_sha256"), "size": 0}
            data = [self._result(f"{folder}/{RESULT}", f"{name}/{RESULT}", recorded)]
        there, made = [each for each in parts if each], [each for each in data if each]
        reference = self._graph.add(
            id, "Dataset", name=f"folder {os.path.basename(name)} of a job",
            description=f"scripts, records and logs of {attempt.get('name') or 'a job'}, as"
            f" they were in {folder or 'no folder'}",
            hasPart=[*there, *made],
        )  # fmt: skip
        self.parts.append(reference)
        return reference, made

    def _own_file(self, path: str, name: str, about: str) -> Ref | None:
        """A script, record or log in the job's folder; None if it is empty or not there."""
        base = os.path.basename(path)
        found = self._files.read(path, max(self._most, TAIL))
        if found is None or not found.data:
            return None
        if base.endswith(".jsonl"):
            whole = found.data[: found.data.rfind(b"\n") + 1]
            given = whole.splitlines(keepends=True)
            content = b"".join(self._secrets.json_lines(given, named=True))
        elif base.endswith(".json"):
            content = self._secrets.json_data(found.data, named=True)
        else:
            content = self._secrets.log(found.data)
        if found.cut:
            about += f"; only the end of it, without the first {found.cut} bytes"
        return self._copied(name, [content], about, changed=content != found.data)

    def _copied(
        self, name: str, content: Iterable[bytes], about: str, *, changed: bool = False, **more: Any
    ) -> Ref:
        written = self._target.add(name, content)
        suffix = os.path.splitext(name)[1]
        guessed = _ENCODINGS.get(suffix) or mimetypes.guess_type(name)[0]
        is_text = "/outputs/" not in name and not name.endswith(RESULT)
        return self._graph.add(
            as_id(name), "File", name=os.path.basename(name),
            description=about + ("; secrets in it were replaced by asterisks" if changed else ""),
            encodingFormat=guessed or ("text/plain" if is_text else "application/octet-stream"),
            contentSize=str(written.size), sha256=written.sha256, **more,
        )  # fmt: skip

    def _outputs(self, attempt: Mapping[str, Any], name: str) -> list[Ref | None]:
        found: list[Ref | None] = []
        taken: set[str] = set()
        for output, recorded in (attempt.get("outputs") or {}).items():
            path = self._files.find(str(recorded.get("path") or ""), str(attempt.get("folder")))
            within = name_within(self._secrets.text(str(output)))
            while within in taken or any(each.startswith(f"{within}/") for each in taken):
                within += "-2"
            taken.add(within)
            reference = self._data(path, f"{name}/outputs/{within}", str(output), recorded)
            if digest := recorded.get("sha256"):
                self._known[str(recorded.get("path")), str(digest)] = reference
            found.append(reference)
        return found

    def _data(self, path: str, name: str, called: str, recorded: Mapping[str, Any]) -> Ref:
        """An output: its content, or what is known of it and why the content is left out."""
        why = why_not(path, recorded, self._most)
        if not why and self._secrets.are_in(chunks(path)):
            why = "it holds a secret of a job"
        if not why:
            return self._copied(name, chunks(path), "an output of the job", alternateName=called)
        sampled = bool(recorded.get("sampled"))
        digest = str(recorded.get("sha256") or "")
        known = f"; SHA-256 of 16 samples and its size: {digest}" if sampled else ""
        return self._graph.add(
            local_id(name), "Dataset" if os.path.isdir(path) else "File",
            name=os.path.basename(called.rstrip("/")), alternateName=called,
            description=f"an output of the job, not in this crate: {why}{known}",
            contentUrl=file_url(path), encodingFormat="application/octet-stream",
            contentSize=str(recorded["size"]) if "size" in recorded else "",
            sha256="" if sampled else digest,
        )  # fmt: skip

    def _result(self, path: str, name: str, recorded: Mapping[str, Any]) -> Ref | None:
        """A sampling's result, if the record has its digest."""
        if not recorded.get("sha256"):
            return None
        found = {"size": os.path.getsize(path)} if os.path.isfile(path) else {}
        return self._data(path, name, RESULT, {**recorded, **found})

    def _inputs(self, attempt: Mapping[str, Any]) -> list[Ref]:
        """The inputs. One with the digest of an output of this run is that entity."""
        return [
            self._input(str(path), str(facts.get("sha256") or ""), attempt)
            for path, facts in (attempt.get("inputs") or {}).items()
        ]

    def _input(self, path: str, digest: str, attempt: Mapping[str, Any]) -> Ref:
        whole = os.path.join(str(attempt.get("work_dir") or ""), path)
        if known := self._known.get((whole, digest)):
            return known
        return self._graph.add(
            local_id("input", digest[:16], path), "File",
            name=os.path.basename(path), alternateName=path,
            description="an input of jobs, not in this crate; its SHA-256 identifies it",
            contentUrl=file_url(whole), encodingFormat="application/octet-stream", sha256=digest,
        )  # fmt: skip


def _program(attempt: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    found = attempt.get("executable") or {}
    path, digest = str(found.get("path") or ""), str(found.get("sha256") or "")
    name = os.path.basename(path) or str(attempt.get("command") or attempt.get("name") or "unknown")
    sampled = " (of samples)" if found.get("sampled") else ""
    return local_id("program", name, digest[:16] or "unknown"), {
        "name": name,
        "description": f"the program {path}" if path else "a program that is not recorded",
        "softwareVersion": f"sha256:{digest}{sampled}" if digest else "unknown",
        "url": file_url(path) if path else "",
        "sha256": "" if sampled else digest,
    }


def _device(attempt: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    name = str(attempt.get("device") or _backend(attempt))
    versions = attempt.get("versions") or {}
    told = ", ".join(f"{each} {version}" for each, version in sorted(versions.items()))
    calibrated = str(attempt.get("calibrated_at") or "")
    return local_id("device", name, calibrated), {
        "name": name,
        "description": f"quantum computer or simulator {name}"
        + (f", calibrated at {calibrated}" if calibrated else ""),
        "softwareVersion": told or "unknown",
    }


def _backend(attempt: Mapping[str, Any]) -> str:
    backend = attempt.get("backend") or {}
    for field in ("name", "device", "simulator", "backend_name"):
        if backend.get(field):
            return str(backend[field])
    return "unknown device"


def _outcome(attempt: Mapping[str, Any]) -> dict[str, str]:
    state = str(attempt.get("state") or "")
    if state == WANTED:
        return {"actionStatus": ACTIVE}
    if state == "succeeded":
        return {"actionStatus": COMPLETED}
    reason, summary = attempt.get("reason"), attempt.get("summary")
    told = ": ".join(str(each) for each in (state, reason, summary) if each)
    return {"actionStatus": FAILED, "error": told or "it did not succeed"}


def _times(attempt: Mapping[str, Any], files: JobFiles, folder: str) -> dict[str, str]:
    """Start and end: by the job's own records, else by when the end became known."""
    end = float(attempt.get("finished_at") or attempt.get("ended_at") or 0.0)
    seconds = attempt.get("run_seconds") or attempt.get("qpu_seconds") or 0.0
    begin = end - float(seconds) if end and seconds else 0.0
    if attempt.get("kind") == "batch" and folder:
        starts = read_starts(files.read_record(f"{folder}/{names.START}"))
        begin = starts[-1].time if starts else begin
        end = begin + float(seconds) if starts and seconds else end
    return {"startTime": moment(begin), "endTime": moment(end)}
