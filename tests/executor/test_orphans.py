"""A job that a dead process left in a queue is watched until it has left it."""

from __future__ import annotations

import asyncio
import dataclasses
import threading

from rig import Rig, until

from hpc_prefect.executor.coordination.orphans import Orphan, await_end
from hpc_prefect.schedulers.local.scheduler import LocalScheduler

#: Waits while there is a file `hold`.
HOLD = "while [ -e hold ]; do sleep 0.02; done"


class Late(LocalScheduler):
    """Does not list the job twice; the second of these answers is read much later."""

    #: Longer than a busy machine takes between two questions.
    patience = dataclasses.replace(LocalScheduler.patience, absent=5.0)
    answers = 0

    def observe(self, ids, options):
        said = yield from super().observe(ids, options)
        self.answers += 1
        if self.answers == 2:  # as by a process that is stopped meanwhile
            threading.Event().wait(1.2 * self.patience.absent)
        return said if self.answers > 2 else {}


class ShownLate(LocalScheduler):
    """Its lists do not have the job twice; the second of these is read much later."""

    patience = dataclasses.replace(LocalScheduler.patience, find=5.0)
    answers = 0

    def find(self, tags, options):
        found = yield from super().find(tags, options)
        self.answers += 1
        if self.answers == 2:
            threading.Event().wait(1.2 * self.patience.find)
        return found if self.answers > 2 else {tag: {} for tag in found}


class Forgetful(LocalScheduler):
    """Has no job, and keeps no list of those that have ended."""

    patience = dataclasses.replace(LocalScheduler.patience, absent=0.3)
    answers = 0

    def observe(self, ids, options):
        yield from super().observe(ids, options)
        self.answers += 1
        return {}


async def orphan(rig: Rig) -> Orphan:
    """A job that runs; the process that had submitted it is dead."""
    (rig.work / "hold").touch()
    await rig.abandon(rig.request(rig.spec(HOLD)))
    (intent,) = [entry for entry in rig.journal() if entry["event"] == "intent"]
    return Orphan(intent["tag"], str(rig.attempt()), poll_interval=0.05)


async def test_an_answer_that_is_read_late_ends_no_watch(rig):
    """Between the two answers it was absent for a moment only."""
    job, gone = await orphan(rig), threading.Event()
    connection = rig.connection(scheduler := Late())
    task = asyncio.ensure_future(await_end(job, connection, gone.set))
    await until(lambda: scheduler.answers > 3 or task.done(), "an answer after the late one")
    assert not gone.is_set()
    (rig.work / "hold").unlink()
    await task
    assert gone.is_set()


async def test_a_job_that_no_answer_lists_any_more_is_gone_after_a_while(rig):
    job, gone = await orphan(rig), threading.Event()
    connection = rig.connection(scheduler := Forgetful())
    await await_end(job, connection, gone.set)
    assert gone.is_set()
    assert scheduler.answers > 1


async def test_a_list_that_is_read_late_does_not_tell_that_nothing_was_submitted(rig):
    job, gone = await orphan(rig), threading.Event()
    journal = rig.attempt() / "journal.jsonl"
    kept = [line for line in journal.read_text().splitlines() if '"intent"' in line]
    journal.write_text("\n".join(kept) + "\n")  # the reply to its submission was lost
    connection = rig.connection(scheduler := ShownLate())
    task = asyncio.ensure_future(await_end(job, connection, gone.set))
    await until(lambda: scheduler.answers > 2 or task.done(), "an answer after the late one")
    assert not gone.is_set()
    (rig.work / "hold").unlink()
    await task
    assert gone.is_set()
