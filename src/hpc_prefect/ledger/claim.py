"""Claims: which process works on a job or campaign.

A claim is the file `claim-<generation>`, created exclusively; the highest generation counts. Taking
over from a dead claimant is creating the next one, which only one process can do. A claimant looks
for a higher generation before it submits or writes.

A flow may run its tasks in other processes, a pool's workers. Their claims hold as long as the
flow's own process lives, and not longer, even if the workers wait on for work.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from hpc_prefect.errors import JobHeld, LedgerError
from hpc_prefect.job import folder as names
from hpc_prefect.local_batch import process
from hpc_prefect.transports.base import Transport
from hpc_prefect.transports.host import host

#: A claim of another host that was not touched for so many seconds is dead; it is touched every 30
#: s.
STALE_AFTER = 300.0
TOUCH_EVERY = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Claimant:
    """A process and the flow run that it works for.

    Attributes:
        process: as `hpc_prefect.local_batch.process` writes it.
        worker_of: the flow's own process, of which this is a worker; empty when it is that itself.
    """

    flow_run: str
    host: str
    process: str
    worker_of: str = ""

    @property
    def pid(self) -> int:
        return process.pid_of(self.process)

    @property
    def flow_process(self) -> Claimant:
        """The claimant for which this one works; itself, if it is no worker."""
        return dataclasses.replace(self, process=self.worker_of or self.process, worker_of="")

    @property
    def is_dead(self) -> bool:
        """Whether it, or the process for which it works, has certainly ended; on its own host."""
        here = host()
        if not here.is_of_this_boot(self.process):
            return False
        return here.dead(self.process) or bool(self.worker_of and here.dead(self.worker_of))

    def as_dict(self) -> dict[str, str]:
        """JSON values only."""
        return {name: getattr(self, name) for name in _FIELDS}

    def describe(self) -> str:
        run = f"flow run {self.flow_run}" if self.flow_run else "a script"
        return f"{run} (pid {self.pid} on {self.host})"


_FIELDS = tuple(field.name for field in dataclasses.fields(Claimant))


def this_process(flow_run: str = "", worker_of: int = 0) -> Claimant:
    """The claimant of this process.

    Args:
        worker_of: the pid of the flow's own process, when we are a worker of it.

    Raises:
        JobHeld: that process has ended.
    """
    who, flow = host().identity(host().pid), ""
    assert who is not None  # we are alive
    if worker_of:
        flow = host().identity(worker_of) or ""
        if not flow:
            raise JobHeld(_ORPHAN)
    return Claimant(flow_run=flow_run, host=host().name, process=who, worker_of=flow)


_ORPHAN = (
    "the process of this worker's flow has ended, so the worker begins nothing and ends nothing"
)


def is_alive(
    holder: Claimant, idle_seconds: Callable[[], float], is_over: Callable[[str], bool]
) -> bool:
    """Whether a claimant is alive. On its own host its processes are looked up; for another host or
    PID namespace the run's state and the claim's age decide.

    Args:
        idle_seconds: since the claim was last touched, by the file server's clock.
        is_over: whether Prefect says that a flow run has ended (False when it cannot tell).
    """
    if holder.is_dead:
        return False
    # A living process may have finished that run and serve another one now.
    if holder.flow_run and is_over(holder.flow_run):
        return False
    if host().alive(holder.process):
        return True
    limit = STALE_AFTER
    if not host().is_of_this_boot(holder.process) and holder.host == host().name:
        # An earlier boot of this host, whose claims were touched before it; unless another machine
        # has the same name.
        limit = min(limit, host().seconds_since_boot())
    return idle_seconds() < limit


@dataclass(frozen=True, slots=True)
class Claim:
    """Our claim on one folder."""

    transport: Transport
    folder: str
    generation: int
    claimant: Claimant

    @property
    def path(self) -> str:
        return f"{self.folder}/{names.CLAIM}{self.generation}"

    def check(self) -> None:
        """Raise `JobHeld` if the claim was taken over, `LedgerError` if the folder was removed."""
        if self.claimant.is_dead:
            raise JobHeld(f"{self.folder}: {_ORPHAN}")
        newest = _newest(self.transport, self.folder)
        if not newest:
            raise LedgerError(
                f"{self.folder}, where this job's records are, was removed, or its claim was,"
                f" while this run worked on it. Nothing more is submitted or concluded; a"
                f" submitted job may still run: look at the scheduler"
            )
        holder = _read(self.transport, self.folder, newest)
        # Compare the content too: a user may have removed our claim, so that its number was reused.
        if newest != self.generation or holder != self.claimant:
            raise JobHeld(
                f"{self.folder} was taken over by {holder.describe() if holder else 'another run'};"
                " this run leaves it alone"
            )

    def check_anew(self) -> None:
        """The same, past what NFS remembers.

        For a minute a client may believe that a new claim is not there. When it has changed
        something in the folder itself, it asks the server.
        """
        self.transport.remove(_probe(self.transport, self.path))
        self.check()

    def touch(self) -> None:
        """Renew the claim for other hosts, if we still hold it."""
        if not self.claimant.is_dead:
            self.transport.touch(self.path)


def take(
    transport: Transport,
    folder: str,
    claimant: Claimant,
    is_over: Callable[[str], bool] = lambda flow_run: False,
) -> tuple[Claim, Claimant | None]:
    """Claim a folder, or take it over from a dead claimant; returns the claim and that claimant.

    Raises:
        JobHeld: a living run holds it; the message names it and the way to take over.
    """
    while True:
        generation = _newest(transport, folder)
        holder = _read(transport, folder, generation)
        if holder == claimant:
            return Claim(transport, folder, generation, claimant), None
        if holder is not None:
            path = f"{folder}/{names.CLAIM}{generation}"
            if is_alive(holder, lambda path=path: idle_seconds(transport, path), is_over):  # type: ignore[misc]
                raise JobHeld(
                    f"{folder} is held by {holder.describe()}, which still runs. Wait for it, or"
                    f" stop it; if you are sure that it is dead, remove {path} and start again"
                )
        content = json.dumps(claimant.as_dict()).encode() + b"\n"
        if transport.create(f"{folder}/{names.CLAIM}{generation + 1}", content):
            return Claim(transport, folder, generation + 1, claimant), holder


def history(transport: Transport, folder: str) -> dict[str, Claimant]:
    """All claimants of a folder, by the claim's name, the last one last."""
    found = {}
    for generation in range(1, _newest(transport, folder) + 1):
        claimant = _read(transport, folder, generation)
        if claimant is not None:
            found[f"{names.CLAIM}{generation}"] = claimant
    return found


def holder_of(transport: Transport, folder: str) -> Claimant | None:
    """The last claimant of a folder; None if there is none."""
    return _read(transport, folder, _newest(transport, folder))


def is_held(transport: Transport, folder: str) -> bool:
    """Whether the last claimant of a folder is alive, as far as is known here."""
    generation = _newest(transport, folder)
    holder = _read(transport, folder, generation)
    path = f"{folder}/{names.CLAIM}{generation}"
    return holder is not None and is_alive(
        holder, lambda: idle_seconds(transport, path), lambda _: False
    )


def _newest(transport: Transport, folder: str) -> int:
    numbers = [
        name.removeprefix(names.CLAIM)
        for name in transport.list(folder)
        if name.startswith(names.CLAIM)
    ]
    return max((int(number) for number in numbers if number.isdecimal()), default=0)


def _read(transport: Transport, folder: str, generation: int) -> Claimant | None:
    if not generation:
        return None
    return _parsed(transport.read(f"{folder}/{names.CLAIM}{generation}"))


@lru_cache(maxsize=4096)  # each is read again at each heartbeat
def _parsed(data: bytes | None) -> Claimant | None:
    try:
        claimant = Claimant(**json.loads(data or b""))
        # Of an older version it has no PID namespace, and then counts until its claim is old.
        return claimant if len(claimant.process.split()) in (3, 4) and claimant.pid else None
    except (ValueError, TypeError, AttributeError):
        return None


def idle_seconds(transport: Transport, path: str) -> float:
    """Seconds since a file was touched, or written to, both times by the file server's clock."""
    probe = _probe(transport, path)
    now, then = transport.status(probe), transport.status(path)
    transport.remove(probe)
    return now.modified - then.modified if now and then else 0.0


def _probe(transport: Transport, path: str) -> str:
    """An empty new file beside another one, to be removed."""
    probe = f"{path}.{host().token(4)}"
    transport.write_atomic(probe, b"")
    return probe
