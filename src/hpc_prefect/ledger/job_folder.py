"""Reads and writes one job folder."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from hpc_prefect.errors import NotOurs, TransportError
from hpc_prefect.job import folder as names
from hpc_prefect.job.folder import Ledger
from hpc_prefect.job.outputs import Left, Stamp, Written, is_same, some, written
from hpc_prefect.job.program_script import secrets_text
from hpc_prefect.job.script import JobScript
from hpc_prefect.job.spec import JobSpec
from hpc_prefect.ledger import journal
from hpc_prefect.ledger.claim import idle_seconds
from hpc_prefect.schedulers.base import Ticket
from hpc_prefect.transports.base import Transport
from hpc_prefect.transports.host import host

logger = logging.getLogger("hpc_prefect.executor")

#: The target of the start guard when no job may start in this folder any more. Not a possible id.
CLOSED = "closed"
#: A file of records or cancel requests is never longer than this.
MOST = 1 << 20
#: So many files below an expected output are looked at before the job and, where that is needed,
#: after it; so many on the event loop; so many of those that it left are kept in the journal.
_MOST_BELOW = 100_000
_MOST_QUICK = 5000
_MOST_LEFT = 5000
#: Seconds between two looks for what a finished job has left.
_LOOK_AGAIN = 1.0


@dataclass(frozen=True, slots=True)
class JobFolder:
    """Typed access to `<key>-<attempt>/`; formats are in `hpc_prefect.job.folder`."""

    transport: Transport
    path: str

    def file(self, name: str) -> str:
        return f"{self.path}/{name}"

    def ticket(self, tag: str) -> Ticket:
        return Ticket(
            tag=tag,
            folder=self.path,
            script=self.file(names.SCRIPT),
            scheduler_out=self.file(names.SCHEDULER_OUT),
            scheduler_err=self.file(names.SCHEDULER_ERR),
        )

    def prepare(self, script: JobScript, secrets: dict[str, str]) -> None:
        """Write what the job needs before it is submitted.

        The files of records are made now, empty: NFS may hide a new name for a minute, but shows a
        growing file at once.
        """
        for name, text, mode in (
            (names.PROGRAM, script.inner, 0o600),
            (names.SCRIPT, script.outer, 0o700),
        ):
            encoded = text.encode("utf-8", "surrogateescape")
            self.transport.write_atomic(self.file(name), encoded, mode=mode)
        for name in (names.EXIT, names.START, names.CANCEL):
            self.transport.append(self.file(name), b"")
        if secrets:
            encoded = secrets_text(secrets).encode("utf-8", "surrogateescape")
            self.transport.write_atomic(self.file(names.SECRETS), encoded, mode=0o600)

    def note(
        self, event: str, *, durable: bool = False, at: float | None = None, **facts: Any
    ) -> None:
        """Append to the journal; `durable` for what must survive a crash of the machine.

        Args:
            at: when it happened (seconds since 1970, 0 for not known); None for now.
        """
        line = names.journal_line(host().time() if at is None else at, event, **facts)
        self._append(names.JOURNAL, line, durable=durable)

    def note_cancel_request(self, event: str = "cancel", **facts: Any) -> None:
        """Write a request to cancel the job (`by`) for its process; or note the job's end."""
        line = names.journal_line(host().time(), event, **facts)
        self._append(names.CANCEL, line, durable=True)

    def _append(self, name: str, line: bytes, *, durable: bool) -> None:
        journal.append(self.transport, self.file(name), line, durable=durable)

    def ledger(self) -> Ledger:
        """The content of the journal, and the requests to cancel from outside."""
        ledger = names.read_journal(self.transport.read(self.file(names.JOURNAL)))
        if ledger.intended and not ledger.cancel:
            return replace(ledger, cancel=self.cancel_request(ledger.cancel_offset))
        return ledger

    def cancel_request(self, offset: int = 0) -> str:
        """Who cancelled the job from outside, by the file from `offset` on; empty for nobody."""
        return names.read_cancel_request(self._written_by_others(names.CANCEL, offset, MOST))

    def ended_by_request(self) -> dict[str, Any]:
        """The resources of a job cancelled from outside, if its end was seen there; else empty."""
        found = names.read_entries(self._written_by_others(names.CANCEL, 0, MOST))
        used = [entry.get("used") for entry in found if entry.get("event") == "ended"]
        return used[-1] if used and isinstance(used[-1], dict) else {}

    def cancel_requests_size(self) -> int:
        """The size of the file of requests to cancel."""
        status = self.transport.status(self.file(names.CANCEL))
        return status.size if status else 0

    def guard(self) -> str:
        """The id that the script of this attempt runs, or ran, under; empty before any start.

        `CLOSED` when none may start any more: also where something that is no link is in its place.
        """
        link = self.transport.read_link(self.file(names.GUARD))
        return CLOSED if link == "" else link or ""

    def started_as(self) -> str:
        """The same, also after it was closed: whom it had let in has left a start record."""
        guard = self.guard()
        if guard != CLOSED:
            return guard
        starts = names.read_starts(self._written_by_others(names.START, 0, MOST))
        return starts[-1].id if starts else ""

    def close(self, job_id: str) -> str:
        """Let no job start in this folder from now on; returns the guard's target then.

        It is the id of another job when one was faster. Our own job has ended; its scheduler may
        still start it a second time by itself, so it is shut out too.
        """
        path = self.file(names.GUARD)
        if self.transport.link(path, CLOSED):
            return CLOSED
        # As in the script: NFS may report our own new link as an existing one, so it is read.
        holder = self.guard()
        if holder == CLOSED:
            return CLOSED
        if holder and holder == job_id:
            self.transport.relink(path, CLOSED)
            return CLOSED
        if holder:
            return holder
        raise TransportError(f"cannot tell what {path} points to")

    def close_unstarted(self) -> bool:
        """Close the folder; returns whether no job has started in it, so that none ever will."""
        # An existing link to CLOSED may be ours, of a request that NFS repeated.
        return self.transport.link(self.file(names.GUARD), CLOSED) or self.guard() == CLOSED

    def duplicates(self) -> list[str]:
        """Ids that the start guard turned away."""
        data = self._written_by_others(names.DUPLICATES, 0, MOST)
        return sorted(set(data.decode(errors="replace").split()))

    def loaded_modules(self) -> list[str]:
        """The modules that were loaded when the program began, in their order."""
        said = self._written_by_others(names.MODULES, 0, MOST).decode(errors="surrogateescape")
        return [module for module in said.split(":") if module]

    def tail(self, name: str, size: int = 4096) -> str:
        """The last bytes of a file as text, from the start of a line on."""
        status = self.transport.status(self.file(name))
        if status is None or status.size == 0:
            return ""
        offset = max(0, status.size - size)
        text = self._written_by_others(name, offset, size).decode(errors="replace")
        return (text.split("\n", 1)[-1] if offset else text).rstrip()

    def _written_by_others(self, name: str, offset: int, size: int) -> bytes:
        """Bytes of a file to which others write; empty if it is no regular file."""
        try:
            return self.transport.read(self.file(name), offset, size) or b""
        except NotOurs:
            return b""

    def scheduler_words(self, *, requeued: bool = False) -> str:
        """The ends of the files into which a scheduler or its launcher may write about a job's end.

        The program's stderr of a `requeued` job may tell of the end of its earlier start.
        """
        files = [names.SCHEDULER_OUT, names.SCHEDULER_ERR] + [names.STDERR] * (not requeued)
        words = [self.tail(name) for name in files]
        # Whole, because a site orders its hundreds of items as it likes.
        words.append(self.tail(names.SCHEDULER_STATISTICS, 256 * 1024))
        return "\n".join(words)

    def stamps(self, spec: JobSpec) -> dict[str, Stamp | None]:
        """The present state of each expected output."""
        return {
            output: self.transport.stamp(_output_path(spec, output), _MOST_BELOW)
            for output in spec.expected_outputs
        }

    def missing_outputs(self, spec: JobSpec, before: Mapping[str, Stamp | None]) -> tuple[str, ...]:
        """Expected outputs that the job did not write, each with what is seen instead.

        `before` is what was there when the job was handed over. What cannot be told, in a folder
        with more files than are looked at, was not written.
        """
        judged = self._judged(spec, before, _MOST_BELOW)
        return tuple(words for whether, words in judged if whether is not Written.YES)

    def missing_at_a_glance(
        self, spec: JobSpec, before: Mapping[str, Stamp | None]
    ) -> tuple[str, ...] | None:
        """The same, but None if more than a few thousand files would have to be looked at."""
        judged = self._judged(spec, before, _MOST_QUICK)
        if any(whether is Written.UNSEEN for whether, _ in judged):
            return None
        return tuple(words for whether, words in judged if whether is not Written.YES)

    def _judged(
        self, spec: JobSpec, before: Mapping[str, Stamp | None], most: int
    ) -> list[tuple[Written, str]]:
        found = []
        for output in spec.expected_outputs:
            now = self.transport.stamp(_output_path(spec, output), most)
            whether, seen = written(before.get(output), now)
            found.append((whether, f"{output} ({seen})"))
        return found

    def outputs(
        self, spec: JobSpec, before: Mapping[str, Stamp | None]
    ) -> dict[str, dict[str, Left]]:
        """The files that the job left in its expected outputs, to recognise changes later.

        Of a folder that is what changed since the hand-over: the rest is not the job's.
        """
        found = {}
        for output in spec.expected_outputs:
            was = before.get(output)
            since = was.newest if was is not None else -1
            files = self.transport.left(_output_path(spec, output), since, _MOST_LEFT)
            if files is not None:
                found[output] = files
        return found

    def lost_outputs(self, spec: JobSpec, left: Mapping[str, Mapping[str, Left]]) -> list[str]:
        """The files of the job that were removed since."""
        lost = []
        for output in spec.expected_outputs:
            path, files = _output_path(spec, output), left.get(output, {})
            if not files and self.transport.status(path) is None:
                lost.append(output)
            lost += [
                f"{output}/{name}" if name else output
                for name in files
                if self.transport.left_now(path, name) is None
            ]
        return lost

    def surely_lost_outputs(
        self,
        spec: JobSpec,
        left: Mapping[str, Mapping[str, Left]],
        patience: float,
        *,
        judged_in: str = "",
    ) -> list[str]:
        """The same, once the verdict is `patience` seconds old. Blocks until then.

        A look before the job, on this host, found no such name, which NFS may remember so long.

        Args:
            judged_in: the folder whose journal has the verdict; this one if it is not given.
            patience: 0 where the verdict is known to be old enough. Otherwise a file is written to
                learn its age by the file server's clock.
        """
        until, told, enough = host().monotonic() + patience, False, patience <= 0
        while lost := self.lost_outputs(spec, left):
            if enough:
                return lost
            age = idle_seconds(self.transport, f"{judged_in or self.path}/{names.JOURNAL}")
            soon = min(patience - age, until - host().monotonic())
            if soon <= 0:  # look once more: this process may have been stopped since it looked
                enough = True
                continue
            if not told:
                logger.warning(
                    "job %s already ran (%s), but %s is not seen: it is looked for %.0f s more",
                    *(spec.name, self.path, some(lost), soon),
                )
            told = True
            host().sleep(min(soon, _LOOK_AGAIN))
        return []

    def altered_outputs(self, spec: JobSpec, left: Mapping[str, Mapping[str, Left]]) -> list[str]:
        """The files of the job whose content has changed since."""
        altered = []
        for output, files in left.items():
            path = _output_path(spec, output)
            for name, was in files.items():
                now = self.transport.left_now(path, name)
                if now is None or not is_same(was, now, partial(self.transport.digest, path, name)):
                    altered.append(f"{output}/{name}" if name else output)
        return altered

    def write_verdict(
        self,
        spec: JobSpec,
        record: dict[str, Any],
        before: Mapping[str, Stamp | None],
        facts: Mapping[str, Any],
    ) -> None:
        """Write the run record and then, durably, the verdict, so that a reader of that finds both.

        What the program has put in the place of the record keeps nobody from the verdict.

        Args:
            record: with the `result`, which the verdict repeats.
            before: what was in the place of the expected outputs when the job was handed over.
            facts: as in `Ledger.facts`.
        """
        result = record["result"]
        try:
            self.transport.write_atomic(self.file(names.RECORD), names.record_text(record))
        except TransportError as error:
            self.note("unrecorded", said=str(error))
            logger.warning("job %s has its verdict, but no run record: %s", spec.name, error)
        outputs = self.outputs(spec, before) if result["state"] == "succeeded" else {}
        self.note("verdict", durable=True, result=result, outputs=outputs, facts=dict(facts))
        self.transport.remove(self.file(names.SECRETS))


def _output_path(spec: JobSpec, output: str) -> str:
    return os.path.join(spec.work_dir, os.path.expanduser(output))
