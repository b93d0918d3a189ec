"""An array as its scheduler has it: elements that are jobs, and the id of them all."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from simulation.cluster import BatchJob, Cluster
    from simulation.job_script import ScriptText


@dataclass
class BatchArray:
    """Attributes:
    at_once: elements that may run at the same time; 0: no limit.
    cancelled: somebody asked for its end as a whole.
    """

    number: int
    id: str
    tag: str
    at_once: int
    submitted_at: float
    elements: list[BatchJob] = field(default_factory=list)
    cancelled: bool = False

    @property
    def open(self) -> list[BatchJob]:
        """Elements that have not ended."""
        return [each for each in self.elements if each.open]

    @property
    def waiting(self) -> list[BatchJob]:
        """Elements that have never begun, and may."""
        return [each for each in self.open if not each.runs]

    def is_full(self) -> bool:
        """Whether as many run as may."""
        running = sum(bool(each.runs) and each.state != "pending" for each in self.open)
        return 0 < self.at_once <= running


def make_array(
    cluster: Cluster,
    number: int,
    array_id: str,
    element_id: Callable[[int], str],
    shape: tuple[int, int],
    tag: str,
    script: ScriptText,
    work_dir: str,
    walltime: float,
    *,
    requeues: bool = False,
) -> BatchArray:
    """An array that waits from now on; `shape`: how many elements, and how many at once."""
    size, at_once = shape
    array = BatchArray(number, array_id, tag, at_once, cluster.world.now)
    cluster.arrays[array_id] = array
    cluster.world.note("scheduler", f"has {array_id}, an array of {size} named {tag}")
    for index in range(size):
        job = cluster.new_job(
            number, element_id(index), tag, script, work_dir, walltime, requeues=requeues
        )
        job.array, job.index = array, index
        array.elements.append(job)
    cluster.enqueue(array.elements)
    return array


def wholes(jobs: Iterable[BatchJob]) -> list[str]:
    """The ids of these, an array being one."""
    return list(dict.fromkeys(job.array.id if job.array else job.id for job in jobs))


def ranges(indices: Iterable[int]) -> str:
    """`0-3,7`, as schedulers write it."""
    found: list[list[int]] = []
    for index in sorted(indices):
        if found and found[-1][1] + 1 == index:
            found[-1][1] = index
        else:
            found.append([index, index])
    return ",".join(f"{a}" if a == b else f"{a}-{b}" for a, b in found)
