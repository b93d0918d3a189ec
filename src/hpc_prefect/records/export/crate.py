"""A run as an RO-Crate of the profile Provenance Run Crate 0.5.

    ro-crate-metadata.json   the description of all that is here: JSON-LD
    README.md                the run in short, for people
    workflow/                the flow's source, as it ran
    record/                  the run's record: run.json, events.jsonl, code.diff
    jobs/<key>-<attempt>/    of a job: scripts, records, logs, and its outputs in outputs/

The flow is the workflow, hpc-prefect the engine, programs and devices are the tools. Each attempt
of a job is a CreateAction of its tool, each call of a job a ControlAction of a step.
"""

from __future__ import annotations

import hashlib
import mimetypes
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hpc_prefect.records.export.attempts import attempts
from hpc_prefect.records.export.crate_jobs import JobEntities
from hpc_prefect.records.export.files import JobFiles, lines
from hpc_prefect.records.export.graph import (
    ACTIVE,
    COMPLETED,
    FAILED,
    Graph,
    Ref,
    as_id,
    file_url,
    local_id,
    values_of,
)
from hpc_prefect.records.export.job_secrets import secrets_of
from hpc_prefect.records.export.moments import moment
from hpc_prefect.records.export.readme import readme
from hpc_prefect.records.export.target import Target, new_target
from hpc_prefect.records.fold import DIFF, RUN, Record
from hpc_prefect.records.read import RUNNING, event_files, read_run, standing
from hpc_prefect.transports.local import reader

_STATUS = {"completed": COMPLETED, RUNNING: ACTIVE}
#: The most bytes of a flow's source.
_LARGEST_SOURCE = 16 << 20
_NO_LICENCE = (
    "No licence is named for the content of this crate. Ask its author before you use it for"
    " anything but reading."
)


def write_crate(
    folder: str, path: str | os.PathLike[str], *, whole_up_to: int, licence: str
) -> None:
    """Write the crate of the run whose record is in a folder; see `runs.export_crate`."""
    record = read_run(folder, with_jobs=False)
    with new_target(path) as target:
        _Crate(record, target, whole_up_to).write(licence)


class _Crate:
    def __init__(self, record: Record, target: Target, whole_up_to: int) -> None:
        self._record = record
        self._target = target
        self._graph = Graph()
        self._files = JobFiles(record.folder)
        self._secrets = secrets_of(record, self._files)
        self._state = standing(record)
        self._parts: list[Ref] = []
        environment = record.environment
        name = str(environment.get("user") or "unknown")
        self._agent = self._graph.add(
            local_id("person", name), "Person", name=name,
            description=f"the user {name} of {environment.get('host') or 'an unknown host'}",
        )  # fmt: skip
        self._jobs = JobEntities(
            self._graph, target, self._files, self._secrets,
            agent=self._agent, run=record.id, whole_up_to=whole_up_to,
        )  # fmt: skip

    def write(self, licence: str) -> None:
        records = self._add_record()
        source = self._add_source()
        for job in attempts(self._record):
            self._jobs.add(job)
        run = self._add_run(records, self._add_workflow(source))
        has_jobs = bool(self._jobs.steps)
        if has_jobs:
            self._add_engine(run)
        about = {"@id": "./"}
        text = readme(self._record, self._state, len(self._jobs.controls))
        data = iter([self._secrets.text(text).encode(errors="replace")])
        self._add_file("README.md", data, "the run in short", encoding="text/markdown", about=about)
        self._describe(licence, has_jobs, [run, *self._jobs.actions])
        self._target.add(self._graph.file_name, self._graph.chunks(self._secrets))

    # --- the run's own files

    def _add_file(
        self, name: str, chunks: Iterator[bytes], text: str, *, encoding: str = "", **more: Any
    ) -> Ref:
        written = self._target.add(name, chunks)
        reference = self._graph.add(
            as_id(name), more.pop("type", "File"), name=os.path.basename(name), description=text,
            encodingFormat=encoding or mimetypes.guess_type(name)[0] or "text/plain",
            contentSize=str(written.size), sha256=written.sha256, **more,
        )  # fmt: skip
        self._parts.append(reference)
        return reference

    def _add_record(self) -> list[Ref]:
        """run.json, all events, and the diff."""
        folder = self._record.folder
        transport = reader(folder)
        added = []
        if text := self._files.read_record(f"{folder}/{RUN}"):
            about = "the run's record, without its jobs"
            data = iter([self._secrets.json_data(text)])
            added.append(self._add_file(f"record/{RUN}", data, about, encoding="application/json"))
        for name in event_files(transport, folder):
            hidden = self._secrets.json_lines(lines(transport, f"{folder}/{name}"))
            about = "everything that the run has recorded, one event on each line"
            added.append(
                self._add_file(f"record/{name}", hidden, about, encoding="application/jsonl")
            )
        if text := self._files.read_record(f"{folder}/{DIFF}"):
            kept = self._secrets.source_data(text)
            about = "what was changed in git and not committed when the run began"
            about += _changed(text, kept)
            self._add_file(f"record/{DIFF}", iter([kept]), about, encoding="text/x-diff")
        return added

    # --- the workflow

    def _add_source(self) -> tuple[str, bytes, str]:
        """The name in the crate, the content and a description of the flow's source.

        If the file has changed since, it is not the workflow: a text that says so replaces it.
        """
        code = self._record.code
        path, digest = str(code.get("file") or ""), str(code.get("sha256") or "")
        known = f"{path or 'the source'}, SHA-256 {digest or 'not recorded'}"
        try:
            data = Path(path).read_bytes() if os.path.isfile(path) else b""
            gone = not data
        except OSError:
            data, gone = b"", True
        if digest and hashlib.sha256(data).hexdigest() == digest and len(data) <= _LARGEST_SOURCE:
            kept = self._secrets.source_data(data)
            about = f"the flow's source, as it ran ({known}){_changed(data, kept)}"
            return f"workflow/{os.path.basename(path)}", kept, about
        why = "could no longer be read" if gone else "had already changed"
        about = (
            f"NOT the flow's source, which {why} when this crate was made; only this is known of"
            f" it: {known}; entry point {self._record.run.get('entrypoint') or 'unknown'};"
            f" git commit {code.get('commit') or 'unknown'}"
        )
        return "workflow/source-not-included.txt", f"{about}\n".encode(), about

    def _add_workflow(self, source: tuple[str, bytes, str]) -> Ref:
        name, data, about = source
        record, code = self._record, self._record.code
        environment = record.environment
        python = str(environment.get("python") or "unknown")
        _, inputs = values_of(
            self._graph, record.parameters, beginning="parameter", parameters=True
        )
        _, outputs = values_of(self._graph, record.measures, beginning="measure", parameters=True)
        language = self._graph.add(
            "https://www.python.org/", "ComputerLanguage", name="Python", version=python,
            identifier={"@id": "https://www.python.org/"}, url={"@id": "https://www.python.org/"},
        )  # fmt: skip
        digest = code.get("sha256")
        return self._add_file(
            name, iter([data]), about,
            type=["File", "SoftwareSourceCode", "ComputationalWorkflow", "HowTo"],
            encoding="text/x-python" if name.endswith(".py") else "text/plain",
            alternateName=record.flow,
            version=code.get("commit") or (f"sha256:{digest}" if digest else "unknown"),
            url=file_url(str(code.get("file") or "unknown")),
            codeRepository=code.get("remote"),
            conformsTo={"@id": "https://bioschemas.org/profiles/ComputationalWorkflow/1.0-RELEASE"},
            programmingLanguage=language,
            runtimePlatform=f"Python {python} on {environment.get('platform') or 'unknown'}",
            softwareRequirements=self._packages(),
            input=inputs, output=outputs,
            hasPart=self._jobs.tools, step=self._jobs.steps,
        )  # fmt: skip

    def _packages(self) -> list[Ref]:
        packages = self._record.environment.get("packages") or {}
        return [
            self._graph.add(
                f"https://pypi.org/project/{name}/{version}/", "SoftwareApplication",
                name=name, version=str(version), url=f"https://pypi.org/project/{name}/{version}/",
            )
            for name, version in packages.items()
        ]  # fmt: skip

    # --- what happened

    def _add_run(self, records: list[Ref], workflow: Ref) -> Ref:
        record = self._record
        given, _ = values_of(self._graph, record.parameters, beginning="parameter", parameters=True)
        found, _ = values_of(self._graph, record.measures, beginning="measure", parameters=True)
        costs = record.totals.as_dict()["costs"] | {"wall_seconds": round(record.wall_seconds, 3)}
        return self._graph.add(
            local_id("run", record.id), "CreateAction",
            name=f"run {record.name} of {record.flow}",
            description=f"{record.run.get('kind', 'run')} {record.flow}, run {record.name}"
            f" ({record.id}), on {record.environment.get('host') or 'an unknown host'};"
            f" state {self._state}",
            instrument=workflow, agent=self._agent, object=given,
            result=[*found, *self._jobs.results, *records],
            resourceUsage=self._jobs.usage(local_id("run", record.id), costs),
            **self._when(),
        )  # fmt: skip

    def _when(self) -> dict[str, str]:
        """Start, end, status and, if the run did not complete, the error."""
        record = self._record
        found = {
            "startTime": moment(record.started),
            "endTime": moment(record.ended),
            "actionStatus": _STATUS.get(self._state, FAILED),
        }
        if found["actionStatus"] == FAILED:
            found["error"] = record.message or (
                "its process ended without recording an end; the record was last written at"
                f" {moment(record.updated) or 'an unknown time'}"
                if self._state == "died"
                else self._state
            )
        return found

    def _add_engine(self, run: Ref) -> None:
        packages = self._record.environment.get("packages") or {}
        engine = self._graph.add(
            local_id("hpc-prefect"), "SoftwareApplication", name="hpc-prefect",
            softwareVersion=str(packages.get("hpc-prefect") or "unknown"),
            url="https://pypi.org/project/hpc-prefect/",
        )  # fmt: skip
        self._graph.add(
            local_id("engine", self._record.id), "OrganizeAction",
            name=f"hpc-prefect runs {self._record.flow}", instrument=engine, agent=self._agent,
            object=self._jobs.controls, result=run, **self._when(),
        )  # fmt: skip

    def _describe(self, licence: str, has_jobs: bool, actions: list[Ref]) -> None:
        record = self._record
        profiles = ["process", "workflow", *(["provenance"] if has_jobs else [])]
        main = next(each for each in self._parts if each["@id"].startswith("workflow/"))
        self._graph.describe_root(
            name=f"Run {record.name} of {record.flow}",
            description=f"The run {record.name} ({record.id}) of the {record.run.get('kind', '')}"
            f" {record.flow}: its source, its record, its {len(self._jobs.controls)} jobs with"
            f" scripts, logs and outputs. State: {self._state}.",
            datePublished=moment(time.time()),
            license=_licence(self._graph, licence),
            author=self._agent,
            conformsTo=self._graph.conform(profiles),
            mainEntity=main,
            hasPart=[*self._parts, *self._jobs.parts],
            mentions=actions,
        )


def _changed(before: bytes, after: bytes) -> str:
    return "" if before == after else "; secrets in it were replaced by asterisks"


def _licence(graph: Graph, licence: str) -> Ref:
    """A licence as an entity: an address, an SPDX identifier, or words."""
    if licence.startswith(("http://", "https://")):
        return graph.add(licence, "CreativeWork", name=licence, description=licence)
    if licence and licence.replace("-", "").replace(".", "").isalnum():
        address = f"https://spdx.org/licenses/{licence}"
        return graph.add(address, "CreativeWork", name=licence, description=f"SPDX: {licence}")
    name = licence or "no licence named"
    return graph.add(
        local_id("license"), "CreativeWork", name=name, description=licence or _NO_LICENCE
    )
