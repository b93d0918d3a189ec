"""Arrays at the rehearsed PBS and PJM: what dialect and scheduler make of one between them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest

from hpc_prefect.blocks import PBSOptions, PJMOptions
from hpc_prefect.executor.arrays.request import ArrayRequest
from hpc_prefect.executor.arrays.run import ArrayRun
from hpc_prefect.executor.connection import Connection
from hpc_prefect.job import folder as names
from hpc_prefect.job.failure import Reason
from hpc_prefect.job.members import MemberSpec
from hpc_prefect.job.result import JobResult
from hpc_prefect.job.spec import Array, Executable, JobSpec, Resources, Site
from hpc_prefect.job.state import JobState, Observation
from hpc_prefect.ledger.claim import this_process
from hpc_prefect.schedulers.base import Accepted, NoAnswer, Scheduler, Ticket
from hpc_prefect.schedulers.pbs.scheduler import PBSScheduler
from hpc_prefect.schedulers.pjm.scheduler import PJMScheduler
from hpc_prefect.transports.local import LocalTransport
from hpc_rehearsal.pjm import install as pjm

from .places import PBS, PJM, Place
from .test_array_runs import ArrayRuns

PATIENCE = 200.0
TAG = "hq7k2m9x1abcdef"
T = TypeVar("T")

#: Of each element, where not all of an array are to run at once: three or four of them fit.
LARGE = {"pbs": {"threads_per_rank": 64}, "pjm": {"num_nodes": 100}}

KINDS: dict[str, tuple[type[PBS] | type[PJM], type[Scheduler], dict[str, Any]]] = {
    "pbs": (PBS, PBSScheduler, {}),
    "pbs-text": (PBS, PBSScheduler, {"status_dialect": "text"}),
    "pjm": (PJM, PJMScheduler, {}),
}


@dataclass
class Arrays:
    """A place, its dialect, and the one array in it, whose script is written by hand."""

    place: Place
    scheduler: Scheduler
    options: Mapping[str, Any]
    folder: Path
    pool: ThreadPoolExecutor
    id: str = ""

    def connection(self) -> Connection:
        """One for each event loop."""
        return Connection(self.scheduler, LocalTransport(), dict(self.options), self.pool)

    @property
    def work(self) -> Path:
        return self.folder / "array"

    def spec(self, **changes: Any) -> JobSpec:
        given: dict[str, Any] = {
            "name": "array",
            "command_name": "array",
            "executable": Executable(path="/bin/sh"),
            "site": Site(scheduler=self.scheduler.name, options=dict(self.options)),
            "resources": Resources(),
            "work_dir": str(self.work),
        }
        return JobSpec(**given | changes)

    def submit(self, text: str, size: int = 4, at_once: int = 0, **shape: Any) -> None:
        """`text` is run by each element, `$index` being its number; each notes that it runs."""
        array, resources = Array(size=size, at_once=at_once), Resources(**shape)
        spec = self.spec(array=array, resources=resources)
        assert self.scheduler.problems(spec) == []
        script = self.work / "script.sh"
        files = (str(self.work / "scheduler.out"), str(self.work / "scheduler.err"))
        ticket = Ticket(
            tag=TAG,
            folder=str(self.work),
            script=str(script),
            scheduler_out=files[0],
            scheduler_err=files[1],
        )
        preamble = self.scheduler.preamble(spec, ticket)
        lines = [
            "#!/bin/bash",
            *preamble.directives,
            f"index={preamble.index} id={preamble.id_expression}",
            f'echo "$index $id" >> {self.folder}/runs',
            text,
        ]
        script.write_text("\n".join(lines) + "\n")
        accepted = self.connection().converse(self.scheduler.submit(spec, ticket))
        assert isinstance(accepted, Accepted), accepted
        self.id = accepted.id

    def wait_for(self, name: str) -> str:
        return f"until [ -e {self.folder}/{name} ]; do sleep 0.05; done"

    def mark(self, name: str) -> None:
        (self.folder / name).touch()

    def runs(self) -> list[str]:
        """The numbers and ids of the elements that have begun."""
        path = self.folder / "runs"
        return sorted(path.read_text().splitlines()) if path.exists() else []

    def element(self, index: int) -> str:
        return self.scheduler.element_id(self.id, index)

    def seen(self, *ids: str) -> dict[str, Observation]:
        """A useful answer about these. As text PBS is asked twice, and a job may change between."""
        answer = self.connection().converse(self.scheduler.observe(ids, self.options))
        assert not isinstance(answer, NoAnswer), answer
        return {job_id: each for job_id, each in answer.items() if isinstance(each, Observation)}

    def whole(self) -> Observation | None:
        return self.seen(self.id).get(self.id)

    def whole_is(self, state: JobState) -> Observation:
        def there() -> Observation | None:
            seen = self.whole()
            return seen if seen is not None and seen.state is state else None

        return until(there, f"the whole {state}")

    def ends(self, *indices: int) -> list[Observation]:
        """How these elements ended."""
        ids = [self.element(index) for index in indices]

        def there() -> list[Observation]:
            seen = self.seen(*ids)
            over = [each for each in seen.values() if each.state is JobState.ENDED]
            return [seen[job_id] for job_id in ids] if len(over) == len(ids) else []

        return until(there, "their ends")

    def found(self) -> list[str]:
        answer = self.connection().converse(self.scheduler.find([TAG], self.options))
        assert not isinstance(answer, NoAnswer), answer
        jobs = answer[TAG]
        assert not isinstance(jobs, NoAnswer), jobs
        return list(jobs)

    def cancel(self, job_id: str) -> None:
        said = self.connection().converse(self.scheduler.cancel({job_id: TAG}, self.options))
        assert said is None, said


def until(predicate: Callable[[], T | None], what: str) -> T:
    end = time.monotonic() + PATIENCE
    while not (value := predicate()):
        assert time.monotonic() < end, f"{what} did not come true"
        time.sleep(0.05)
    return value


@pytest.fixture(params=KINDS)
def arrays(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Arrays]:
    kind, scheduler, options = KINDS[request.param]
    place = kind.at(tmp_path, request.param)
    blocks = PBSOptions if kind is PBS else PJMOptions
    full = blocks(**options).model_dump(mode="json")
    (tmp_path / "array").mkdir()
    with place.entered(), ThreadPoolExecutor(8) as pool:
        try:
            yield Arrays(place, scheduler(), full, tmp_path, pool)
        finally:
            place.close()


def test_each_element_runs_once_and_ends_as_what_it_is(arrays: Arrays) -> None:
    ends = "case $index in 1) exit 3 ;; 2) kill -9 $$ ;; esac"
    arrays.submit(f"{arrays.wait_for('go')}\n{ends}")
    until(lambda: len(arrays.runs()) == 4, "all of them")
    assert arrays.runs() == [f"{index} {arrays.element(index)}" for index in range(4)]
    arrays.mark("go")
    whole = until(_over(arrays), "the end of the whole")
    assert (whole.cause, whole.exit_code, whole.left) == (None, None, ())
    seen = arrays.ends(0, 1, 2, 3)
    assert [each.cause for each in seen] == [
        Reason.SUCCEEDED,
        Reason.PROGRAM_FAILED,
        Reason.PROGRAM_FAILED,
        Reason.SUCCEEDED,
    ]
    assert [each.exit_code for each in seen[:2]] == [0, 3]
    assert seen[2].signal == "SIGKILL" or seen[2].exit_code == 137
    assert len(arrays.runs()) == 4
    assert {path.name for path in arrays.work.iterdir()} == {"script.sh"}


def test_the_whole_tells_which_elements_are_left(arrays: Arrays) -> None:
    """PBS tells of those that wait, PJM of those that run too."""
    arrays.submit(f"[ $index = 0 ] || {arrays.wait_for('go')}", size=3)
    seen = arrays.whole_is(JobState.RUNNING)
    until(lambda: arrays.ends(0), "the end of the first")
    until(lambda: len(arrays.runs()) == 3, "the others")
    whole = arrays.whole()
    assert whole is not None
    assert (whole.state, whole.tag in (TAG, "")) == (JobState.RUNNING, True)
    assert whole.left == ((1, 2),) if arrays.scheduler.name == "pjm" else whole.left == ()
    assert seen.cause is None
    both = arrays.seen(arrays.id, arrays.element(1), arrays.element(0))
    assert [both[arrays.element(n)].state for n in (0, 1)] == [JobState.ENDED, JobState.RUNNING]
    arrays.mark("go")
    until(_over(arrays), "the end of the whole")


def test_an_array_is_found_by_its_name_while_it_runs_and_after(arrays: Arrays) -> None:
    arrays.submit(arrays.wait_for("go"))
    until(lambda: len(arrays.runs()) == 4, "all of them")
    assert arrays.found() == [arrays.id]
    arrays.mark("go")
    until(_over(arrays), "the end of the whole")
    until(lambda: arrays.found() == [arrays.id], "the array in the history")


def test_an_element_is_cancelled_alone_and_then_the_whole(arrays: Arrays) -> None:
    arrays.submit(arrays.wait_for("never"))
    until(lambda: len(arrays.runs()) == 4, "all of them")
    arrays.cancel(arrays.element(2))
    (seen,) = arrays.ends(2)
    assert seen.cause is Reason.CANCELLED
    others = arrays.seen(*(arrays.element(index) for index in (0, 1, 3)))
    assert {each.state for each in others.values()} == {JobState.RUNNING}
    arrays.cancel(arrays.element(2))  # once more is no failure
    arrays.cancel(arrays.id)
    until(_over(arrays), "the end of the whole")
    assert {each.cause for each in arrays.ends(0, 1, 3)} == {Reason.CANCELLED}


def test_what_waits_is_cancelled_with_the_whole_and_has_never_run(arrays: Arrays) -> None:
    arrays.submit(arrays.wait_for("never"), size=6, **LARGE[arrays.scheduler.name])
    until(lambda: len(arrays.runs()) in (3, 4), "as many as there is room for")
    arrays.cancel(arrays.element(4))
    (alone,) = arrays.ends(4)
    assert alone.cause is Reason.CANCELLED
    arrays.cancel(arrays.id)
    until(_over(arrays), "the end of the whole")
    assert {each.cause for each in arrays.ends(*range(6))} == {Reason.CANCELLED}
    assert len(arrays.runs()) in (3, 4)


def test_no_more_run_at_once_than_are_allowed_where_that_can_be_told(arrays: Arrays) -> None:
    if arrays.scheduler.name == "pjm":
        (problem,) = arrays.scheduler.problems(arrays.spec(array=Array(size=4, at_once=2)))
        assert "max_array_size to 2" in problem
        return
    arrays.submit(arrays.wait_for("go"), at_once=2)
    until(lambda: len(arrays.runs()) == 2, "two of them")
    whole = arrays.whole_is(JobState.RUNNING)
    assert whole.left == ((2, 3),)
    arrays.mark("go")
    until(_over(arrays), "the end of the whole")
    assert len(arrays.runs()) == 4


def _over(arrays: Arrays) -> Callable[[], Observation | None]:
    def there() -> Observation | None:
        seen = arrays.whole()
        return seen if seen is not None and seen.state is JobState.ENDED else None

    return there


# --- with the executor


def request(arrays: Arrays, program: str, count: int, **changes: Any) -> ArrayRequest:
    spec = arrays.spec(executable=Executable(path=program))
    members = tuple(
        MemberSpec(key=f"m{n}", name=f"m{n}", arguments=(str(n),), work_dir=spec.work_dir)
        for n in range(count)
    )
    base = f"{spec.work_dir}/{names.ROOT}/campaign/ab/k"
    given = {"claimant": this_process(), "poll_interval": 0.5, "members": members}
    return ArrayRequest(spec=spec, base=base, key="k", **given | changes)


def program(arrays: Arrays, text: str) -> str:
    path = arrays.folder / "program"
    path.write_text(f'#!/bin/bash\necho "$1" >> {arrays.folder}/runs\n{text}\n')
    path.chmod(0o700)
    return str(path)


@pytest.mark.timeout(400)
def test_an_element_that_somebody_else_cancels_takes_no_other_with_it(arrays: Arrays) -> None:
    asked = request(arrays, program(arrays, arrays.wait_for("go")), 3)

    async def cancelled() -> tuple[JobResult, ...]:
        running = asyncio.ensure_future(ArrayRun(asked, arrays.connection()).carry_out())
        await asyncio.to_thread(until, lambda: len(arrays.runs()) == 3, "all of them")
        alone = lambda: found if len(found := arrays.place.active()) == 1 else None  # noqa: E731
        (whole,) = await asyncio.to_thread(until, alone, "the array, with nothing beside it")
        arrays.place.cancel(arrays.scheduler.element_id(whole, 1))
        arrays.id = whole
        await asyncio.to_thread(arrays.ends, 1)
        arrays.mark("go")
        return await asyncio.wait_for(running, 300)

    results = asyncio.run(cancelled())
    assert [each.succeeded for each in results] == [True, False, True]
    assert results[1].verdict.reason is Reason.CANCELLED_ELSEWHERE
    assert len(arrays.runs()) == 3


class TestPBS(ArrayRuns):
    @pytest.fixture
    def place(self, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
        place = PBS.at(tmp_path_factory.mktemp("pbs"), "pbs")
        yield place
        place.close()


class TestPJM(ArrayRuns):
    """Where two run at once because there are two nodes: PJM cannot be told so."""

    @pytest.fixture
    def place(self, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
        place = PJM.at(tmp_path_factory.mktemp("pjm"), "pjm")
        commands, home = place.state.with_name("bin"), str(place.state.parent)
        pjm.install(commands, place.state, nodes=2, rscgrps={"small": {}}, home=home)
        yield place
        place.close()
