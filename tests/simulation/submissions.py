"""What may become of a submission, in any scheduler's language."""

from __future__ import annotations

from collections.abc import Callable

from hpc_prefect.job.dialogue import Reply
from simulation.cluster import Cluster

#: What a submission can come to, and how likely each is: made and the reply lost, not made and no
#: reply, made and answered with an error, not made and answered with the same error, made twice,
#: refused, refused because too many wait.
_FATES = (
    ("the reply to a submission is lost", 0.06),
    ("a submission is lost", 0.04),
    ("a submission is made and answered with an error", 0.05),
    ("a submission is answered with an error and not made", 0.03),
    ("a submission is made twice", 0.02),
    ("a submission is refused", 0.02),
    ("the queue is full", 0.03),
    ("the scheduler goes down with a submission", 0.03),
)


def submit(
    cluster: Cluster,
    make: Callable[[], str],
    *,
    accepted: Callable[[str], Reply],
    refused: Reply,
    full: Reply,
    error: Reply,
) -> Reply:
    """Make a job, or not, and say so, or not."""
    world, chance = cluster.world, cluster.world.chance
    fates = [chance.fault(name, likely) for name, likely in _FATES]
    for (name, _), there in zip(_FATES, fates, strict=True):
        if there:
            world.coverage.sometimes(name)
    lost, never, answered, failed, twice, no, too_many, down = fates
    if down:
        lost = True
        cluster.weather["down"] = world.now + chance.number("down with it", 20.0, 400.0)
    if no and not down:
        return refused
    if too_many and not down:
        return full
    if never:
        return Reply(None)
    if failed:
        return error
    job_id = make()
    if twice:
        make()
    if lost:
        return Reply(None)
    return error if answered else accepted(job_id)
