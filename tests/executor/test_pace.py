"""How often the scheduler is asked, on a clock that does not wait."""

from __future__ import annotations

import asyncio
import concurrent.futures
import itertools
import selectors

import pytest

from hpc_prefect.executor.connection import Connection
from hpc_prefect.job.dialogue import Command, Reply
from hpc_prefect.schedulers.base import NoAnswer

HURRY = 1.0
#: The connection brings a little disorder into its questions, and is a little late at times.
DISORDER = 0.12 * HURRY


class Skipping(selectors.SelectSelector):
    """Does not wait: the time that it was to wait has passed at once."""

    now = 0.0

    def select(self, timeout=None):
        self.now += timeout or 0.0
        return super().select(0)


class SkippingLoop(asyncio.SelectorEventLoop):
    def __init__(self):
        self.skipping = Skipping()
        super().__init__(self.skipping)

    def time(self):
        return self.skipping.now


class Inline(concurrent.futures.Executor):
    """Does the work at once, so that no time passes meanwhile."""

    def submit(self, work, /, *arguments):
        future = concurrent.futures.Future()
        future.set_result(work(*arguments))
        return future


class Asked:
    """A scheduler and its transport, which keeps when it was asked."""

    name, hurry, ids_per_question = "asked", HURRY, 100

    def __init__(self):
        self.times, self.silent = [], False
        self.was_asked = asyncio.Event()

    def observe(self, ids, options):
        yield Command(("ask", *ids))
        return NoAnswer("the controller hangs") if self.silent else {}

    def run(self, command):
        self.times.append(asyncio.get_running_loop().time())
        self.was_asked.set()
        return Reply(0, "", "")

    async def until(self, count):
        while len(self.times) < count:
            self.was_asked.clear()
            await self.was_asked.wait()

    def pauses(self):
        return [later - earlier for earlier, later in itertools.pairwise([0.0, *self.times])]


class Waiting:
    """A job about which no answer tells what it wants to know."""

    next_look, tag = float("inf"), ""

    def __init__(self, job_id, *, poll_interval=1000.0, wants_answer=True):
        self.job_id, self.poll_interval = job_id, poll_interval
        self.wants_answer = wants_answer

    def answered(self, now, seen, asked):
        pass

    def heartbeat(self):
        pass


def play(story):
    """Run `story(asked, connection)`."""

    async def played():
        asked = Asked()
        await story(asked, Connection(asked, asked, {}, Inline()))

    with asyncio.Runner(loop_factory=SkippingLoop) as runner:
        runner.run(played())


@pytest.mark.parametrize(("poll_interval", "longest"), [(1000.0, 20 * HURRY), (5.0, 5.0)])
def test_a_job_whose_end_takes_long_is_asked_about_ever_less_often(poll_interval, longest):
    async def story(asked, connection):
        connection.watch(Waiting("1", poll_interval=poll_interval))
        await asked.until(14)
        expected = [min(HURRY * 1.5**n, longest) for n in range(14)]
        assert asked.pauses()[:14] == pytest.approx(expected, abs=DISORDER)

    play(story)


@pytest.mark.parametrize("joins", [True, False], ids=["a new job", "a job that was watched"])
def test_a_job_that_newly_wants_an_answer_is_asked_about_soon(joins):
    async def story(asked, connection):
        connection.watch(Waiting("1"))
        second = Waiting("2", wants_answer=False)
        if not joins:
            connection.watch(second)
        await asked.until(12)
        wanted_at = asyncio.get_running_loop().time()
        second.wants_answer = True
        if joins:
            connection.watch(second)
        else:
            connection.hurry(second)
        await asked.until(15)
        assert asked.times[12] - wanted_at <= HURRY + DISORDER
        grown = [HURRY * 1.5, HURRY * 1.5**2]
        assert asked.pauses()[13:15] == pytest.approx(grown, abs=DISORDER)

    play(story)


def test_a_scheduler_that_fails_is_not_pressed_by_a_job_that_newly_wants_an_answer():
    async def story(asked, connection):
        asked.silent = True
        connection.watch(Waiting("1"))
        await asked.until(12)
        connection.watch(Waiting("2"))
        await asked.until(13)
        assert asked.pauses()[12] == pytest.approx(20 * HURRY, abs=DISORDER)

    play(story)


def test_jobs_that_want_no_answer_are_asked_about_at_their_interval_and_then_less_often():
    async def story(asked, connection):
        connection.watch(Waiting("1", poll_interval=100.0, wants_answer=False))
        await asked.until(30)
        pauses = asked.pauses()
        late = 0.1 * 100.0 + DISORDER
        assert 100.0 - DISORDER <= pauses[0] <= 100.0 + late
        assert 300.0 - DISORDER <= pauses[-1] <= 300.0 + late
        assert len({round(pause, 6) for pause in pauses[-5:]}) > 1, "flows would ask in step"

    play(story)
