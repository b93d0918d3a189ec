"""A flow that wants an array, what its user and other processes do with it, and what must hold."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from hpc_prefect.errors import HpcPrefectError
from hpc_prefect.executor.arrays.request import ArrayRequest
from hpc_prefect.executor.arrays.run import ArrayRun
from hpc_prefect.executor.attempt import numbers
from hpc_prefect.executor.request import Silence
from hpc_prefect.job import members as layout
from hpc_prefect.job.failure import Reason
from hpc_prefect.job.folder import read_entries
from hpc_prefect.job.members import MemberSpec
from hpc_prefect.job.result import JobResult
from hpc_prefect.operations.attach import what_to_follow
from hpc_prefect.operations.cancel import Cancellation, cancelled
from hpc_prefect.operations.cancel_member import cancelled_member
from hpc_prefect.operations.members import read_members
from hpc_prefect.operations.snapshot import read_job
from simulation.file_server import File
from simulation.life import Life, Wanted
from simulation.members import keys_of, work_of
from simulation.oracles import Judgements

if TYPE_CHECKING:
    from simulation.cluster import BatchJob, Cluster
    from simulation.place import Place
    from simulation.process import Process
    from simulation.world import World


@dataclass(frozen=True)
class Shape:
    """How an array is handed over: see `ArrayRequest`."""

    per_element: int
    at_once: int
    retries: int


class ArrayLife(Life):
    """A flow whose one call is an array.

    Attributes:
        members: those that it wants, in their order.
        told: the last result of each, by its key.
    """

    def __init__(
        self,
        place: Place,
        number: int,
        wanted: Wanted,
        members: Sequence[MemberSpec],
        shape: Shape,
        starts: int,
    ) -> None:
        super().__init__(place, number, [wanted], starts)
        self._want(members, shape)

    def _want(self, members: Sequence[MemberSpec], shape: Shape) -> None:
        self.members = tuple(members)
        self.array_shape = shape
        self.told: dict[str, JobResult] = {}
        self._judgements = MemberJudgements(self.place.world, self.place.cluster)

    @property
    def _array(self) -> Wanted:
        return self.wanted[0]

    def _work_base(self, key: str) -> str:
        return f"{self._array.base}/m/{key}"

    def _wish(self, job: Wanted) -> None:
        """Somebody may ask for the end of all of it."""
        wishes = self.place.programs.wishes
        wishes.add(job.base)
        wishes.update(self._work_base(member.key) for member in self.members)

    # --- a call

    def _request(self, job: Wanted, process: Process, run: str) -> ArrayRequest:
        request = super()._request(job, process, run)
        if request.timeout is not None:
            self._wish(job)
        given = {each.name: getattr(request, each.name) for each in dataclasses.fields(request)}
        return ArrayRequest(
            **given,
            members=self.members,
            per_element=self.array_shape.per_element,
            at_once=self.array_shape.at_once,
            retries=self.array_shape.retries,
        )

    def hand_over(self, job: Wanted, process: Process, run: str) -> Any:
        return process.executor.start(self._request(job, process, run), ArrayRun)

    def _judge(self, job: Wanted, result: Any) -> JobResult | _Whole:
        """What a call came to: each result is that of its member, in their order."""
        results: tuple[JobResult, ...] = result
        keys = [member.key for member in self.members]
        found = [each.key for each in results]
        in_order = [key for key in keys if key in set(found)]
        if found != in_order:
            self.world.fail("false", f"{job.base}: the results are those of {found}, not {keys}")
        for each in results:
            self.world.note(
                self._name, f"is told of {each.key}: {each.verdict.reason} ({each.verdict.summary})"
            )
            self._judgements.member(each, self._work_base(each.key))
            self.told[each.key] = each
        states = {self.told[key].state if key in self.told else "lost" for key in keys}
        state = "succeeded" if states == {"succeeded"} else "failed"
        return _Whole("lost" if "lost" in states else state)

    def _cancel(self, process: Process, job: Wanted, handle: Any) -> None:
        if not (process.dead or handle.result.done()):
            self._wish(job)
        super()._cancel(process, job, handle)

    # --- other processes

    async def _command(self, process: Process, job: Wanted) -> None:
        """`jobs cancel`, of all or of one member; `jobs show --members`; `jobs attach`."""
        chance = self.world.chance
        what = chance.one_of("what is done to an array", ("cancel", "cancel one", "show", "attach"))
        try:
            found = await asyncio.to_thread(numbers, process.mount, job.base)
            if found:
                folder = f"{job.base}-{max(found)}"
                if what == "cancel":
                    await self._all(process, folder)
                elif what == "cancel one":
                    await self._one(process, folder)
                else:
                    act = {"show": self._show, "attach": self._attach}[what]
                    await asyncio.to_thread(act, process, folder)
                return
        except HpcPrefectError as error:
            self.world.note("jobs", f"{what} fails: {type(error).__name__}")
        except (KeyError, TypeError, ValueError):  # as `jobs` tells of a list that cannot be read
            self.world.note("jobs", f"{what} fails: no list of its members")
        process.die("at its end")

    def _attach(self, process: Process, folder: str) -> None:
        """Another process follows it to its end, if nobody who lives does."""
        snapshot = read_job(folder, process.mount)
        if snapshot.is_over:
            process.die("at its end")
            return
        request = what_to_follow(snapshot, Silence())
        assert isinstance(request, ArrayRequest)
        process.doom(60)
        future = process.executor.start(request, ArrayRun).result
        future.add_done_callback(partial(self._followed, process))

    def _followed(self, process: Process, future: Future[tuple[JobResult, ...]]) -> None:
        if process.dead or future.cancelled():
            return
        error = future.exception()
        said = "to its end" if error is None else type(error).__name__
        self.world.note("jobs attach", f"has followed it: {said}")
        if error is None:
            self.world.coverage.sometimes("another process follows an array to its end")
            for each in future.result():
                self._judgements.member(each, self._work_base(each.key))
        elif not isinstance(error, HpcPrefectError):
            self.world.fail("bug", f"{self._array.base}: {error!r}")
        self.world.later(0.0, partial(self._end, process))

    async def _all(self, process: Process, folder: str) -> None:
        self._wish(self._array)
        snapshot = await asyncio.to_thread(read_job, folder, process.mount)
        (done,) = await cancelled([snapshot])
        self._told(done)
        process.die("at its end")

    async def _one(self, process: Process, folder: str) -> None:
        snapshot = await asyncio.to_thread(read_job, folder, process.mount)
        members = await asyncio.to_thread(read_members, snapshot.folder)
        chosen = members[self.world.chance.below("which member", len(members))]
        keys = keys_of(self.place.files.entry(f"{folder}/{layout.ASKED}"))
        work = work_of(folder, keys[chosen.index])
        wishes = self.place.programs.wishes
        wishes.add(work.rpartition("-")[0])
        wishes.update(job.id for job in self._jobs(folder) if job.index == chosen.index)
        done, words = await cancelled_member(snapshot, chosen, wait=30.0)
        self.world.note("jobs cancel", f"says of {chosen.name} {done}: {words}")
        said = "confirmed" if done else "unconfirmed"
        self.world.coverage.sometimes(f"cancelling a member is told as {said}")
        forgotten = any(len(each.runs) > 1 for each in self._jobs(folder))
        if done and self.place.programs.running(work) and not forgotten:
            self.world.fail("false", f"{work} is told as gone ({words}), but its program runs")
        process.die("at its end")

    def _show(self, process: Process, folder: str) -> None:
        """What a list says of members that have ended has happened."""
        for member in read_members(read_job(folder, process.mount).folder):
            self.world.note("jobs show", f"says {member.name} {member.state}")
        self.world.coverage.sometimes("the members of an array are listed")
        process.die("at its end")

    def _jobs(self, folder: str) -> list[BatchJob]:
        return [each for each in self.place.cluster.every_job if each.script.folder == folder]

    def _told(self, done: Cancellation) -> None:
        super()._told(done)
        folder = done.job.folder.path
        running = self.place.programs.running
        keys = keys_of(self.place.files.entry(f"{folder}/{layout.ASKED}"))
        forgotten = any(len(each.runs) > 1 for each in self._jobs(folder))
        left = [key for key in keys if running(work_of(folder, key))]
        if done.confirmed and left and not forgotten:
            self.world.fail("false", f"{folder} is told as gone ({done.words}), but {left} runs")


@dataclass(frozen=True)
class _Whole:
    """All members of an array, as one."""

    state: str


class MemberJudgements(Judgements):
    """What was told of each member of an array: it must be what happened to that one."""

    def __init__(self, world: World, cluster: Cluster) -> None:
        super().__init__(world, cluster)
        self._succeeded: set[str] = set()

    def member(self, result: JobResult, base: str) -> None:
        """A member's result was handed over; `base` names its work without the submission."""
        self._array = result.folder
        work = work_of(result.folder, result.key)
        named = dataclasses.replace(result, folder=work)
        self._world.coverage.sometimes(f"a member's end is: {result.verdict.reason}")
        super().result(named, base)
        if result.succeeded:
            self._succeeded.add(base)
        elif base in self._succeeded and self.is_written(named):  # else it is told as no end
            self.false(named, "it was told as succeeded before")
        if wrong := self._others_end(named):
            self.false(named, wrong)

    def _others_end(self, result: JobResult) -> str:
        """Whether it was told what became of another one."""
        if result.verdict.reason is not Reason.PROGRAM_FAILED:
            return ""
        work = result.folder
        if work not in self._cluster.begun_members:
            return "it has never begun"
        runs = self._programs.runs.get(work, [])
        own = runs[-1].code if runs else None
        told = result.verdict.exit_code
        if own is not None and told not in (None, own):
            return f"its program ended with {own}"
        return ""

    def is_written(self, result: JobResult) -> bool:
        keys = keys_of(self._cluster.files.entry(f"{self._array}/{layout.ASKED}"))
        entry = self._cluster.files.entry(f"{self._array}/{layout.ENDED}")
        if not isinstance(entry, File):
            return super().is_written(dataclasses.replace(result, folder=self._array))
        written = {
            (keys[each["i"]], each.get("reason"))
            for each in read_entries(entry.data)
            if isinstance(each.get("i"), int) and each["i"] < len(keys)
        }
        if (result.key, result.verdict.reason.value) in written:
            return True
        return super().is_written(dataclasses.replace(result, folder=self._array))

    def _jobs_of(self, work: str) -> list[BatchJob]:
        keys = keys_of(self._cluster.files.entry(f"{self._array}/{layout.ASKED}"))
        key = work.rpartition("/")[2].rpartition("-")[0]
        if key not in keys:
            return []  # the list is that of a later submission in this folder
        index = keys.index(key)
        return [
            each
            for each in self._cluster.every_job
            if each.script.folder == self._array
            and each.index == index // max(1, each.script.per_element)
        ]
