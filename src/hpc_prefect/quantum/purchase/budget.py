"""QPU seconds of one experiment: what its jobs have cost or may cost, and what is left.

All runs of an experiment, and all processes of a run, share one budget. What counts is in the
journals of its folders, whichever run or process wrote them; nothing is kept in memory.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hpc_prefect.errors import BudgetExceeded, LedgerError
from hpc_prefect.job import folder as names
from hpc_prefect.ledger.campaign_parts import folders_of, home_of
from hpc_prefect.ledger.job_folder import JobFolder
from hpc_prefect.ledger.journal import append
from hpc_prefect.ledger.quantum_folder import qpu_seconds, refuse_old
from hpc_prefect.transports.base import Transport
from hpc_prefect.transports.host import host
from hpc_prefect.transports.local import LocalTransport

#: Seconds that a job takes besides its circuits, and between two shots if the device does not say;
#: both are from IBM's documentation.
OVERHEAD, REP_DELAY = 2.0, 250e-6

#: Below a campaign's folder: the folders of its jobs.
_PREFIX = re.compile(r"[0-9a-f]{2}")
#: In the home of a campaign; held while QPU seconds are promised. It names the jobs they were
#: promised to: NFS may hide a job's folder, or its journal, from another host for a minute, but
#: shows a file that is locked and read as it is.
LOCK = "budget.lock"
#: Seconds to wait for another process to write one line; it may hang or be stopped.
_PATIENCE = 60.0


@dataclass(frozen=True)
class Budget:
    """The QPU seconds of one campaign, in all of its folders; `campaign` is any of them."""

    campaign: Path
    transport: Transport = field(default_factory=LocalTransport)

    def total(self) -> float:
        """What all of its jobs have cost or may cost. Reads their journals.

        Raises:
            LedgerError: some were written by an earlier version and cannot be read.
        """
        return self._total(promised=self._promised())

    def _total(self, promised: dict[str, float]) -> float:
        """`promised`: QPU seconds by folders, of jobs whose journals may not be seen here yet."""
        transport, total = self.transport, 0.0
        folders = folders_of(transport, str(self.campaign))
        listed = [path for folder in folders for path in _jobs_in(transport, folder)]
        for path in dict.fromkeys([*listed, *promised]):
            job = JobFolder(transport, path)
            ledger = job.ledger()
            known = bool(ledger.intent) or path not in promised
            total += qpu_seconds(ledger, job.ended_by_request()) if known else promised[path]
        return total

    @property
    def _lock(self) -> str:
        return f"{home_of(self.transport, str(self.campaign))}/{LOCK}"

    def _promised(self) -> dict[str, float]:
        """What was promised, by the jobs' folders."""
        return {
            str(entry.get("folder")): float(entry.get("seconds") or 0.0)
            for entry in names.read_entries(self.transport.read(self._lock))
            if entry.get("event") == "promise"
        }

    @contextlib.contextmanager
    def reserved(self, seconds: float, limit: float, folder: str) -> Iterator[float]:
        """What is left for one more job, while no other job can reserve any of it. Blocks.

        Write the job's intent inside: from then on it counts for all.

        Args:
            seconds: what the job will cost.
            limit: of all jobs together; 0 for no limit, which yields 0.
            folder: of the job. A promise to a process that was killed before it wrote the intent
                counts until the job is started again.

        Raises:
            BudgetExceeded: not enough is left.
            LedgerError: another process held the lock for too long.
        """
        if not limit:
            yield 0.0
            return
        path = self._lock
        with self.transport.turn(path, patience=_PATIENCE) as mine:
            if not mine:
                raise LedgerError(
                    f"{path} was held by another process of this experiment for {_PATIENCE:.0f} s;"
                    " nothing was bought. End that process, or start this one again"
                )
            left = limit - self._total(
                {other: cost for other, cost in self._promised().items() if other != folder}
            )
            if seconds > left:
                raise BudgetExceeded(
                    f"this job is estimated at {seconds:.1f} QPU seconds, and {max(left, 0):.1f} of"
                    f" the {limit:g} that the block allows this experiment are left"
                    f" (max_qpu_seconds); nothing was bought. Allow more, or ask for fewer shots"
                )
            line = names.journal_line(host().time(), "promise", folder=folder, seconds=seconds)
            append(self.transport, path, line, durable=True)
            yield left


def _jobs_in(transport: Transport, campaign: str) -> Iterator[str]:
    """The folders of the quantum jobs in one folder of a campaign.

    Raises:
        LedgerError: some were written by an earlier version and cannot be read.
    """
    for above in filter(_PREFIX.fullmatch, transport.list(campaign)):
        for name in transport.list(f"{campaign}/{above}"):
            path = f"{campaign}/{above}/{name}"
            if "-" not in name:
                refuse_old(transport, path)
            # A folder with a script is a batch job's: the journals of thousands of those are
            # skipped.
            elif transport.status(f"{path}/{names.SCRIPT}") is None:
                yield path


def check_usage(usage: Mapping[str, Any], seconds: float) -> None:
    """Check that the instance has so many seconds left, as far as the service says.

    Raises:
        BudgetExceeded: it has not enough.
    """
    left = usage.get("usage_remaining_seconds")
    if usage.get("usage_limit_reached"):
        raise BudgetExceeded(
            "the service says that this instance has used up its QPU time"
            f" ({usage.get('usage_consumed_seconds')} seconds); nothing was bought"
        )
    if left is not None and seconds > float(left):
        raise BudgetExceeded(
            f"this job is estimated at {seconds:.1f} QPU seconds, and the service says that the"
            f" instance has {float(left):.1f} left; nothing was bought"
        )


def estimate(pubs: list[Any], shots: list[int], device: Any) -> float:
    """About how many QPU seconds a job will take; the service's own figure comes with the job.

    Args:
        pubs: transpiled for the device.
        shots: of each PUB at all of its points.
    """
    between = _rep_delay(device)
    return round(
        OVERHEAD
        + sum(
            count * (between + _duration(pub.circuit, device))
            for pub, count in zip(pubs, shots, strict=True)
        ),
        1,
    )


def _rep_delay(device: Any) -> float:
    try:
        delay = float(device.default_rep_delay)
    except (AttributeError, TypeError):
        return REP_DELAY
    # In seconds by the client's documentation; snapshots have microseconds.
    return delay * 1e-6 if delay > 1 else delay


def _duration(circuit: Any, device: Any) -> float:
    from qiskit.exceptions import QiskitError

    try:
        return float(circuit.estimate_duration(device.target, unit="s"))
    except (QiskitError, TypeError, ValueError, AttributeError):
        return float(circuit.depth()) * 100e-9  # an instruction without a duration
