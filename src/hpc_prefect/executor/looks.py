"""How often a job's own records are looked at."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Looks:
    """The pause between two looks at a job's records, as a part of the time since something was new
    of it. Most short jobs end soon.

    Attributes:
        eager: that part, while so `few` jobs are watched or fewer.
        patient: that part, while more are watched.
        soonest: the shortest pause, in seconds.
        latest: the longest pause, in seconds.
    """

    eager: float = 0.02
    patient: float = 0.15
    few: int = 10
    soonest: float = 0.03
    latest: float = 1.0

    def pause(self, unchanged_for: float, watched: int) -> float:
        """Seconds until the next look, after so many without news, among so many jobs."""
        part = self.eager if watched <= self.few else self.patient
        return min(self.latest, max(self.soonest, part * unchanged_for))


#: For all but a simulation.
USUAL = Looks()
