"""QPU seconds of one experiment: what its jobs have cost or may cost, and what is left.

An experiment's runs share one budget: a run that continues another pays on from what that one
spent. What the journals of its folder say counts, whatever run wrote them.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hpc_prefect.errors import BudgetExceeded
from hpc_prefect.quantum.ibm.journal import JOURNAL, Journal

#: Seconds that a job takes beside its circuits, and between two shots where the device does not
#: say: IBM's documentation estimates with both.
OVERHEAD, REP_DELAY = 2.0, 250e-6


class Budget:
    """The QPU seconds of one campaign's folder."""

    def __init__(self, campaign: Path) -> None:
        self._seconds = {
            path.parent: sum(attempt.seconds for attempt in Journal(path.parent).attempts())
            for path in campaign.glob(f"*/*/{JOURNAL}")
        }
        self._lock = threading.Lock()

    def reserve(self, folder: Path, seconds: float, limit: float) -> float:
        """Promise seconds to the job of a folder; what is left for it, all that is not promised.

        Raises:
            BudgetExceeded: they are not there.
        """
        with self._lock:
            before = self._seconds.get(folder, 0.0)
            left = limit - sum(self._seconds.values()) if limit else 0.0
            if limit and seconds > left:
                raise BudgetExceeded(
                    f"this job is estimated at {seconds:.1f} QPU seconds, and {max(left, 0):.1f} of"
                    f" the {limit:g} that the block allows this experiment are left"
                    f" (max_qpu_seconds); nothing was bought. Allow more, or ask for fewer shots"
                )
            self._seconds[folder] = before + seconds
            return left

    def total(self) -> float:
        """What all of its jobs have cost or may cost."""
        with self._lock:
            return sum(self._seconds.values())

    def settle(self, folder: Path) -> None:
        """Count for a folder what its journal says now."""
        seconds = sum(attempt.seconds for attempt in Journal(folder).attempts())
        with self._lock:
            self._seconds[folder] = seconds


def check_usage(usage: Mapping[str, Any], seconds: float) -> None:
    """Whether the instance has so many seconds left, as far as the service says.

    Raises:
        BudgetExceeded: it has not.
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


_budgets: dict[Path, Budget] = {}
_budgets_lock = threading.Lock()


def budget_of(campaign: Path) -> Budget:
    """The process's budget of a campaign's folder. Reads its journals the first time."""
    with _budgets_lock:
        if campaign not in _budgets:
            _budgets[campaign] = Budget(campaign)
        return _budgets[campaign]
