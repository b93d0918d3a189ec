"""An array's folder on disk, and each member's files in it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hpc_prefect.job import folder as names
from hpc_prefect.job import members as layout
from hpc_prefect.job.members import Asked, Ended
from hpc_prefect.job.script import ArrayScript
from hpc_prefect.ledger.job_folder import MOST, JobFolder

#: Start and exit of a member are in one file.
_ONE_RECORD = (names.START, names.EXIT)


@dataclass(frozen=True, slots=True)
class MemberFolder(JobFolder):
    """A member's files, by the names that a job's have; formats are in `hpc_prefect.job.members`.

    `note` writes into the array's journal, which has one writer; a member has none of its own.
    """

    index: int = 0

    def file(self, name: str) -> str:
        if name in (names.SCRIPT, names.PROGRAM, names.JOURNAL, names.CANCEL, names.RECORD):
            return f"{self.path}/{name}"
        own = layout.RECORD if name in _ONE_RECORD else name
        return f"{self.path}/{layout.prefix(self.index)}{own}"

    def cancel_request(self, offset: int = 0) -> str:
        data = self._written_by_others(names.CANCEL, offset, MOST)
        return names.read_cancel_request(data, self.index)

    def note(
        self, event: str, *, durable: bool = False, at: float | None = None, **facts: Any
    ) -> None:
        JobFolder.note(self, f"member_{event}", durable=durable, at=at, i=self.index, **facts)


@dataclass(frozen=True, slots=True)
class ArrayFolder(JobFolder):
    """The folder of one submission of an array."""

    def member(self, index: int) -> MemberFolder:
        return MemberFolder(self.transport, self.path, index)

    def prepare_array(
        self, script: ArrayScript, secrets: dict[str, str], asked: Sequence[Asked]
    ) -> None:
        """Write what the array needs before it is submitted; see `prepare`."""
        # Durable, as the intent is: without it the members of a submission are not known. On disk
        # before it takes the place of the one before, whose submission may be in doubt.
        self.transport.write_atomic(self.file(layout.ASKED), layout.asked_text(asked), durable=True)
        for number, text in enumerate(script.shards):
            first = number * layout.SHARD
            folder = f"{self.path}/{layout.shard(first)}"
            self.transport.make_folder(folder)
            encoded = text.encode("utf-8", "surrogateescape")
            self.transport.write_atomic(f"{folder}/{layout.MEMBERS}", encoded)
            for index in range(first, min(first + layout.SHARD, len(asked))):
                self.transport.append(self.member(index).file(names.START), b"")
        self.prepare(script, secrets)

    def asked(self) -> list[Asked]:
        """The members of this submission, in their order.

        Raises:
            KeyError, TypeError, ValueError: what is there is no such list.
        """
        return layout.read_asked(self.transport.read(self.file(layout.ASKED)))

    def began(self, shards: Iterable[int]) -> set[int]:
        """The members of these shards whose script has been at its start guard."""
        found = set()
        for number in shards:
            listed = self.transport.list(f"{self.path}/{layout.shard(number * layout.SHARD)}")
            found |= {
                int(name.removesuffix(_GUARD))
                for name in listed
                if name.endswith(_GUARD) and name.removesuffix(_GUARD).isdecimal()
            }
        return found

    def shard_modified(self, number: int) -> float:
        """When a member's file was last made in this shard, by the file server's clock (seconds
        since 1970); 0 if it is not known."""
        status = self.transport.status(f"{self.path}/{layout.shard(number * layout.SHARD)}")
        return status.modified if status else 0.0

    def turned_away(self, indices: Iterable[int]) -> set[str]:
        """Ids of elements that a start guard of these members turned away."""
        found: set[str] = set()
        for number in sorted({index // layout.SHARD for index in indices}):
            listed = self.transport.list(f"{self.path}/{layout.shard(number * layout.SHARD)}")
            for name in listed:
                stem = name.removesuffix(f".{names.DUPLICATES}")
                if stem != name and stem.isdecimal():
                    found |= set(self.member(int(stem)).duplicates())
        return found

    def note_ended(self, ended: Collection[Ended], *, durable: bool = False) -> None:
        """Add members that have ended to their list; `durable`: those of before are safe too."""
        text = b"".join(layout.ended_line(each) for each in ended)
        if text or durable:
            self._append(layout.ENDED, text, durable=durable)

    def note_reopened(self, holders: Mapping[int, str]) -> None:
        """Take members off the list again that another job is running, given by its ids."""
        lines = [layout.reopened_line(index, job_id) for index, job_id in holders.items()]
        self._append(layout.ENDED, b"".join(lines), durable=True)

    def forget_ended(self) -> None:
        """Remove the list of a refused submission, whose number the next one uses."""
        self.transport.remove(self.file(layout.ENDED))

    def ended_text(self) -> bytes:
        """What `note_ended` has written; see `members.read_ended`."""
        return self.transport.read(self.file(layout.ENDED)) or b""


_GUARD = f".{names.GUARD}"
