"""Jobs in doubt are looked for together, in one question, with growing pauses."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools

from rig import until

from hpc_prefect.executor.coordination.search import Search
from hpc_prefect.job.state import JobState, Observation
from hpc_prefect.schedulers.base import NoAnswer, Unclear
from hpc_prefect.schedulers.local.scheduler import LocalScheduler

NONE = NoAnswer("down")


class SchedulerClient:
    """Answers the search's questions, and keeps them with their times on the loop's clock."""

    def __init__(self, *, hurry: float = 0.1, patience: float = 4.0) -> None:
        self.scheduler = LocalScheduler()
        self.scheduler.hurry = hurry
        self.scheduler.patience = dataclasses.replace(LocalScheduler.patience, find=patience)
        self.questions: list[list[str]] = []
        self.times: list[float] = []
        self.answer = lambda tag: {}
        self.search = Search(self.scheduler, self.ask)

    async def ask(self, tags):
        self.questions.append(sorted(tags))
        self.times.append(asyncio.get_running_loop().time())
        await asyncio.sleep(0)
        return {tag: self.answer(tag) for tag in tags}

    def pauses(self) -> list[float]:
        return [later - earlier for earlier, later in itertools.pairwise(self.times)]


async def look(desk: SchedulerClient, tag: str, times: int) -> list[object]:
    return [await desk.search.find(tag) for _ in range(times)]


async def test_what_is_looked_for_at_once_is_one_question():
    desk = SchedulerClient()
    await asyncio.gather(*(look(desk, tag, 3) for tag in "abcdef"))
    assert desk.questions == [list("abcdef")] * 3


async def test_a_job_that_was_found_is_asked_for_no_more():
    desk = SchedulerClient(hurry=0.01)
    job = {"1": Observation(id="1", state=JobState.QUEUED)}
    desk.answer = lambda tag: job if tag == "a" else {}
    found, none = await asyncio.gather(look(desk, "a", 1), look(desk, "b", 3))
    assert (found, none) == ([job], [{}, {}, {}])
    assert desk.questions == [["a", "b"], ["b"], ["b"]]


async def test_pauses_grow_up_to_a_part_of_the_patience():
    desk = SchedulerClient(hurry=0.02, patience=0.4)
    await look(desk, "a", 7)
    for pause, least in zip(desk.pauses(), [0.02, 0.04, 0.08, 0.1, 0.1, 0.1], strict=True):
        assert pause >= least - 0.005


async def test_a_new_name_need_not_wait_while_the_scheduler_answers():
    desk = SchedulerClient(hurry=600.0)
    await look(desk, "a", 1)
    waits = asyncio.ensure_future(look(desk, "a", 1))
    await asyncio.sleep(0)
    await look(desk, "b", 1)
    assert (await waits, desk.questions) == ([{}], [["a"], ["a", "b"]])


async def test_a_new_name_is_no_reason_to_press_a_scheduler_that_does_not_answer():
    desk = SchedulerClient(hurry=0.2)
    desk.answer = lambda tag: NONE
    await look(desk, "a", 1)
    await asyncio.gather(look(desk, "a", 1), look(desk, "b", 1))
    assert desk.questions == [["a"], ["a", "b"]]
    assert desk.pauses()[0] >= 0.195


class Cut(LocalScheduler):
    """Takes no submission in and answers no search, until it does; keeps what it was asked."""

    patience = dataclasses.replace(LocalScheduler.patience, find=0.4)

    def __init__(self) -> None:
        self.up = False
        self.searches: list[list[str]] = []

    def submit(self, spec, ticket):
        if self.up:
            return (yield from super().submit(spec, ticket))
        return Unclear("connection refused")

    def find(self, tags, options):
        self.searches.append(sorted(tags))
        if not self.up:
            return NONE
        return (yield from super().find(tags, options))


async def test_six_jobs_in_doubt_cost_one_search_and_run_once(rig):
    connection = rig.connection(scheduler := Cut())
    requests = [rig.request(rig.spec(name=f"job{n}"), f"k{n}") for n in range(6)]
    runs = [asyncio.ensure_future(rig.run(request, connection)) for request in requests]
    await until(lambda: len(scheduler.searches[-1:]) and len(scheduler.searches[-1]) == 6)
    down = len(scheduler.searches)
    scheduler.up = True
    for before, after in itertools.pairwise(scheduler.searches[:down]):
        assert {*before} <= {*after}  # the first ones came one by one; each asks about all so far
    assert all(result.succeeded for result in await asyncio.gather(*runs))
    assert len(rig.runs()) == 6
    assert max(map(len, scheduler.searches[down:])) == 6
