"""What every scheduler that has arrays must keep, through the dialogues of its dialect alone."""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from hpc_prefect.blocks import HPCProfileBlock
from hpc_prefect.job.dialogue import Dialogue
from hpc_prefect.job.failure import Reason
from hpc_prefect.job.spec import Array, Executable, JobSpec, Resources, Site
from hpc_prefect.job.state import JobState, Observation
from hpc_prefect.schedulers import scheduler_for
from hpc_prefect.schedulers.base import Accepted, NoAnswer, Scheduler, Ticket
from hpc_prefect.transports.local import LocalTransport

from ..engines import SlurmCluster
from .places import Local, Place, Slurm

T = TypeVar("T")
PATIENCE_SECONDS = 240  # others' jobs may fill the queue

pytestmark = pytest.mark.timeout(600)


class Desk:
    """A scheduler at a place, to which arrays of small shell programs are submitted."""

    def __init__(self, place: Place, folder: Path) -> None:
        fields = place.with_variant("")
        name = fields["scheduler"]
        self.folder = folder
        self.scheduler: Scheduler = scheduler_for(name)
        options = getattr(HPCProfileBlock(**fields), name).model_dump(mode="json")
        self.site = Site(scheduler=name, queue=fields.get("queue_cpu", ""), options=options)
        self._transport = LocalTransport()

    def ask(self, dialogue: Dialogue[T]) -> T:
        """What comes of a dialogue with the real commands."""
        try:
            command = next(dialogue)
            while True:
                command = dialogue.send(self._transport.run(command))
        except StopIteration as stop:
            result: T = stop.value
            return result

    def submit(self, program: str, size: int, *, at_once: int = 0, tag: str = "harr") -> str:
        """The id of an array of this text: $id and $index are the element's, . is the folder."""
        spec = JobSpec(
            name="n",
            command_name="c",
            executable=Executable(path="/bin/true"),
            site=self.site,
            resources=Resources(walltime=900),
            work_dir=str(self.folder),
            array=Array(size=size, at_once=at_once),
        )
        script = self.folder / "script.sh"
        ticket = Ticket(
            tag=tag,
            folder=str(self.folder),
            script=str(script),
            scheduler_out=str(self.folder / "out"),
            scheduler_err=str(self.folder / "err"),
        )
        preamble = self.scheduler.preamble(spec, ticket)
        lines = [
            "#!/bin/bash",
            *preamble.directives,
            f"id={preamble.id_expression} index={preamble.index}",
            f"cd -- {shlex.quote(str(self.folder))} || exit",
            program,
        ]
        script.write_text("\n".join(lines) + "\n")
        accepted = self.ask(self.scheduler.submit(spec, ticket))
        assert isinstance(accepted, Accepted), accepted
        return accepted.id

    def elements(self, array_id: str, *indices: int) -> list[str]:
        return [self.scheduler.element_id(array_id, index) for index in indices]

    def see(self, *ids: str) -> dict[str, Observation]:
        """What a useful answer tells of these."""
        answer = self.ask(self.scheduler.observe(ids, self.site.options))
        assert not isinstance(answer, NoAnswer), answer
        assert not any(isinstance(one, NoAnswer) for one in answer.values()), answer
        return answer  # type: ignore[return-value]

    def until(self, predicate: Callable[[], Any], what: str) -> Any:
        """Wait for what must come true; how long it takes is not judged."""
        end = time.monotonic() + PATIENCE_SECONDS
        while not (value := predicate()):
            assert time.monotonic() < end, f"{what} did not come true"
            time.sleep(0.1)
        return value

    def ended(self, *ids: str) -> dict[str, Observation]:
        """These when all of them are told as ended."""

        def all_ended() -> dict[str, Observation]:
            seen = self.see(*ids)
            over = all(one.state is JobState.ENDED and one.final for one in seen.values())
            return seen if over and len(seen) == len(ids) else {}

        found: dict[str, Observation] = self.until(all_ended, f"the end of {ids}")
        return found

    def over(self, array_id: str) -> None:
        """Wait until nothing is left of it."""

        def gone() -> bool:
            seen = self.see(array_id).get(array_id)
            return seen is None or seen.state is JobState.ENDED

        self.until(gone, f"the end of {array_id}")

    def cancel(self, tag: str, *ids: str) -> None:
        said = self.ask(self.scheduler.cancel(dict.fromkeys(ids, tag), self.site.options))
        assert said is None

    def found(self, tag: str) -> dict[str, Observation]:
        answer = self.ask(self.scheduler.find([tag], self.site.options))
        assert not isinstance(answer, NoAnswer), answer
        told = answer[tag]
        assert not isinstance(told, NoAnswer), told
        return told

    def lines(self, name: str) -> list[str]:
        file = self.folder / name
        return file.read_text().splitlines() if file.exists() else []


WAIT_FOR_GATE = 'echo "$index" >> begun; until [ -e gate ]; do sleep 0.1; done'


class Arrays:
    """What holds at every place; `place` is a fixture of the class."""

    @pytest.fixture
    def desk(self, place: Place, tmp_path: Path) -> Iterator[Desk]:
        before = dict(os.environ)
        os.environ.update(place.environ)
        yield Desk(place, tmp_path)
        os.environ.clear()
        os.environ.update(before)

    def test_each_element_runs_once_under_its_own_id_and_keeps_the_others_output(
        self, desk: Desk
    ) -> None:
        assert desk.scheduler.array_limit(desk.site.options) > 20
        array = desk.submit('echo "$index $id" >> runs; echo "said $index"', 20)
        desk.over(array)

        ids = desk.elements(array, *range(20))
        assert sorted(desk.lines("runs")) == sorted(f"{n} {each}" for n, each in enumerate(ids))
        assert sorted(desk.lines("out")) == sorted(f"said {n}" for n in range(20))

    def test_each_element_has_its_own_end_and_the_array_has_not_failed(self, desk: Desk) -> None:
        program = 'case $index in 1) exit 3 ;; 2) kill -9 $$ ;; esac; [ "$index" != 4 ] || exit 200'
        array = desk.submit(program, 5)
        desk.over(array)
        ids = desk.elements(array, 0, 1, 2, 3, 4)

        seen = desk.ended(*ids)
        whole = desk.ended(array)[array]

        assert all(seen[each].cause in (None, Reason.SUCCEEDED) for each in (ids[0], ids[3]))
        assert [seen[each].exit_code for each in (ids[0], ids[1], ids[3], ids[4])] == [0, 3, 0, 200]
        assert seen[ids[2]].signal == "SIGKILL"
        assert {one.tag for one in (*seen.values(), whole)} == {"harr"}
        assert (whole.cause, whole.exit_code, whole.left) == (None, None, ())

    def test_no_more_elements_run_at_once_than_was_said(self, desk: Desk) -> None:
        # The first one waits for the second: that two run at once is no matter of luck.
        program = """echo "+1" >> marks
            until [ "$(grep -c 1 marks)" -ge 2 ]; do sleep 0.05; done; sleep 0.3
            echo "-1" >> marks"""
        desk.over(desk.submit(program, 8, at_once=2))

        now = most = 0
        for mark in desk.lines("marks"):
            now += int(mark)
            most = max(most, now)
        assert (now, most) == (0, 2)

    def test_what_is_left_of_an_array_is_told(self, desk: Desk) -> None:
        array = desk.submit(f'[ "$index" = 0 ] || {{ {WAIT_FOR_GATE}; }}', 6, at_once=2)
        desk.until(lambda: len(desk.lines("begun")) == 2, "the start of two that wait")

        def without_the_first() -> Observation | None:
            seen = desk.see(array)[array]
            return seen if seen.left == ((1, 5),) else None

        whole: Observation = desk.until(without_the_first, "the end of the first")
        running, waiting, ended = desk.elements(array, 1, 4, 0)
        seen = desk.see(running, waiting, ended, array)
        (desk.folder / "gate").touch()
        desk.over(array)

        assert (whole.state, whole.tag) == (JobState.RUNNING, "harr")
        assert seen[running].state is JobState.RUNNING
        assert seen[waiting].state is JobState.QUEUED
        assert seen[ended].state is JobState.ENDED
        assert seen[array].left == ((1, 5),)

    def test_an_array_is_found_by_its_name_as_one_job(self, desk: Desk) -> None:
        array = desk.submit(WAIT_FOR_GATE, 3, tag="hfind")
        desk.until(lambda: desk.lines("begun"), "a start")
        while_it_runs = desk.found("hfind")
        (desk.folder / "gate").touch()
        desk.over(array)

        assert list(while_it_runs) == [array]
        assert while_it_runs[array].left
        assert list(desk.found("hfind")) == [array]
        assert desk.found("hnone") == {}

    def test_elements_are_cancelled_without_the_others(self, desk: Desk) -> None:
        array = desk.submit(WAIT_FOR_GATE, 7, at_once=2, tag="hsome")
        desk.until(lambda: len(desk.lines("begun")) == 2, "the start of two")
        running, waiting = desk.elements(array, 1, 5)

        desk.cancel("hsome", running, waiting)

        cancelled = desk.ended(running)[running]
        desk.until(lambda: len(desk.lines("begun")) == 3, "the start of the next")
        (desk.folder / "gate").touch()
        desk.over(array)
        others = desk.ended(*desk.elements(array, 0, 2, 3, 4, 6))
        assert cancelled.cause is Reason.CANCELLED
        assert {one.exit_code for one in others.values()} == {0}
        assert sorted(desk.lines("begun")) == ["0", "1", "2", "3", "4", "6"]

    def test_an_array_is_cancelled_with_all_that_waits(self, desk: Desk) -> None:
        array = desk.submit(WAIT_FOR_GATE, 30, at_once=2, tag="hall")
        desk.until(lambda: len(desk.lines("begun")) == 2, "the start of two")

        desk.cancel("hall", array)

        desk.over(array)
        seen = desk.ended(*desk.elements(array, *range(30)))
        assert {one.cause for one in seen.values()} == {Reason.CANCELLED}
        assert sorted(desk.lines("begun")) == ["0", "1"]


class TestSlurm(Arrays):
    @pytest.fixture
    def place(self, slurm: SlurmCluster) -> Place:
        return Slurm.of(slurm, "slurm", accounting=True)


class TestSlurmWithoutAccounting(Arrays):
    @pytest.fixture
    def place(self, slurm_without_accounting: SlurmCluster) -> Place:
        return Slurm.of(slurm_without_accounting, "slurm-light", accounting=False)


class TestLocal(Arrays):
    @pytest.fixture
    def place(self, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
        place = Local.at(tmp_path_factory.mktemp("local"))
        yield place
        place.close()
