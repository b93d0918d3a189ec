"""Follows a job's output."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from hpc_prefect.job import folder as names
from hpc_prefect.operations.snapshot import JobSnapshot, read_job
from hpc_prefect.transports.host import host

#: The files of each stream, in the order in which they are shown.
STREAMS = {
    "stdout": (names.STDOUT,),
    "stderr": (names.STDERR,),
    "scheduler": (names.SCHEDULER_OUT, names.SCHEDULER_ERR, names.SCHEDULER_STATISTICS),
}
#: How many bytes are read at once, so that a file of gigabytes need not fit into memory.
_CHUNK = 1 << 20
#: Seconds between two looks, and between two looks for the job's end.
_PAUSE, _ENDED_EVERY = 0.25, 1.0


@dataclass(frozen=True, slots=True)
class Piece:
    """Some bytes of one of a job's streams."""

    stream: str
    data: bytes


def follow(
    job: JobSnapshot, streams: tuple[str, ...] = ("stdout", "stderr"), *, wait: bool = True
) -> Iterator[Piece]:
    """A job's output so far, and with `wait` also further output until it has ended.

    Its end is its verdict or its own exit record, which are files, so this works on any host that
    sees the folder. Files are opened each time, since NFS shows their present state only then.
    """
    offsets = {(stream, name): 0 for stream in streams for name in STREAMS[stream]}
    clock, look_at, ended = host().monotonic, float("-inf"), False
    while True:
        if wait and not ended and clock() >= look_at:
            ended = has_ended(read_job(job.folder.path, job.folder.transport))
            look_at = clock() + _ENDED_EVERY
        for (stream, name), offset in offsets.items():
            for data in _news(job, name, offset):
                offsets[stream, name] += len(data)
                yield Piece(stream, data)
        if not wait or ended:  # checked before the last look, so that nothing is missed
            return
        host().sleep(_PAUSE)


def has_ended(job: JobSnapshot) -> bool:
    """Whether its program has ended, by the folder."""
    return job.is_over or job.exit is not None or job.ended_surely


def _news(job: JobSnapshot, name: str, offset: int) -> Iterator[bytes]:
    path = job.folder.file(name)
    while data := job.folder.transport.read(path, offset, _CHUNK):
        offset += len(data)
        yield data
