"""Asks schedulers about jobs of folders, each about all of its jobs in one command."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from hpc_prefect.errors import TransportError
from hpc_prefect.job.dialogue import Dialogue
from hpc_prefect.job.provider import Provider
from hpc_prefect.job.state import Observation
from hpc_prefect.operations.kinds import provider_of
from hpc_prefect.operations.snapshot import JobSnapshot
from hpc_prefect.schedulers.base import NoAnswer
from hpc_prefect.transports.base import Transport
from hpc_prefect.transports.host import host

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class SchedulerClient:
    """Asks the scheduler that some jobs were submitted to. Blocks."""

    scheduler: Provider
    options: Mapping[str, Any]
    transport: Transport

    def observe(
        self, ids: Sequence[str], deadline: float
    ) -> dict[str, Observation | NoAnswer | None]:
        """What it says of each job; None if it does not list the job."""
        found: dict[str, Observation | NoAnswer | None] = {}
        for chunk in self._chunks(ids):
            answer = self._converse(self.scheduler.observe(chunk, self.options), deadline)
            if isinstance(answer, NoAnswer):
                found |= dict.fromkeys(chunk, answer)
            else:
                found |= {each: answer.get(each) for each in chunk}
        return found

    def find(self, tags: Sequence[str], deadline: float) -> dict[str, list[str] | NoAnswer]:
        """The ids of the jobs of each name."""
        found: dict[str, list[str] | NoAnswer] = {}
        for chunk in self._chunks(tags):
            answer = self._converse(self.scheduler.find(chunk, self.options), deadline)
            for tag in chunk:
                said = answer if isinstance(answer, NoAnswer) else answer[tag]
                found[tag] = said if isinstance(said, NoAnswer) else list(said)
        return found

    def cancel(self, jobs: Mapping[str, str], deadline: float) -> NoAnswer | None:
        """Cancel jobs, given as names by ids."""
        return self._converse(self.scheduler.cancel(jobs, self.options), deadline)

    def _chunks(self, names: Sequence[str]) -> list[Sequence[str]]:
        size = self.scheduler.ids_per_question
        return [names[start : start + size] for start in range(0, len(names), size)]

    def _converse(self, dialogue: Dialogue[T], deadline: float) -> T | NoAnswer:
        """Run a dialogue's commands; one that hangs is killed at the deadline (monotonic)."""
        try:
            command = next(dialogue)
            while True:
                left = max(1.0, deadline - host().monotonic())
                limited = replace(command, timeout=min(command.timeout, left))
                command = dialogue.send(self.transport.run(limited))
        except StopIteration as stop:
            result: T = stop.value
            return result
        except TransportError as error:
            return NoAnswer(str(error))
        except Exception as error:  # noqa: BLE001 - one dialect that trips must not hide all jobs
            return NoAnswer(f"its answer could not be read: {error!r}")


def by_scheduler(jobs: Sequence[JobSnapshot]) -> list[tuple[SchedulerClient, list[JobSnapshot]]]:
    """The jobs with a known spec, by their scheduler.

    Jobs of schedulers that this version does not know are left out.
    """
    found: dict[str, tuple[SchedulerClient, list[JobSnapshot]]] = {}
    for job in jobs:
        if job.spec is None:
            continue
        site = job.spec.site
        key = json.dumps([site.scheduler, site.options], sort_keys=True, default=str)
        if key not in found:
            try:
                scheduler = provider_of(job)
            except KeyError:
                continue
            found[key] = (SchedulerClient(scheduler, site.options, job.folder.transport), [])
        found[key][1].append(job)
    return list(found.values())


def at_each_scheduler(
    work: Callable[[SchedulerClient, list[JobSnapshot]], R], jobs: Sequence[JobSnapshot]
) -> list[tuple[SchedulerClient, R]]:
    """Do something at all schedulers concurrently: one that hangs must not delay others."""
    desks = by_scheduler(jobs)
    if not desks:
        return []
    if len(desks) == 1:  # the usual case
        ((client, theirs),) = desks
        return [(client, work(client, theirs))]
    with ThreadPoolExecutor(len(desks)) as pool:
        done = [(client, pool.submit(work, client, theirs)) for client, theirs in desks]
        return [(client, future.result()) for client, future in done]


def ask(jobs: Sequence[JobSnapshot], *, wait: float = 60.0) -> list[JobSnapshot]:
    """The jobs, updated by what their schedulers say now if they have no verdict.

    Args:
        wait: seconds after which a scheduler that has not answered gives no answer.
    """
    deadline = host().monotonic() + wait

    def question(
        client: SchedulerClient, theirs: list[JobSnapshot]
    ) -> dict[str, Observation | NoAnswer | None]:
        said = client.observe([job.job_id for job in theirs], deadline)
        return {job.folder.path: said[job.job_id] for job in theirs}

    open_jobs = [job for job in jobs if job.job_id and not job.is_over]
    said = {
        path: each
        for _, one in at_each_scheduler(question, open_jobs)
        for path, each in one.items()
    }
    return [job.seen(said[path]) if (path := job.folder.path) in said else job for job in jobs]
