"""A held allocation through the dialogues of its dialect, with a real agent in a process.

The scheduler inside is the laptop's engine, or a stand-in that says what a test has it say.
"""

from __future__ import annotations

import dataclasses
import itertools
import os
import resource
import signal
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pytest

from hpc_prefect.job.dialogue import Dialogue
from hpc_prefect.job.failure import Reason
from hpc_prefect.job.script import GUARD_CODE
from hpc_prefect.job.spec import Executable, JobSpec, Resources, Site
from hpc_prefect.job.state import JobState, Observation
from hpc_prefect.schedulers.allocation import spool as spools
from hpc_prefect.schedulers.allocation.scheduler import AllocationScheduler
from hpc_prefect.schedulers.allocation.share import Held
from hpc_prefect.schedulers.base import Accepted, Answer, NoAnswer, Refused, Ticket
from hpc_prefect.schedulers.local.scheduler import LocalScheduler
from hpc_prefect.transports.local import LocalTransport

T = TypeVar("T")
PATIENCE_SECONDS = 200
OWN_ID = "4711"


class Inside(LocalScheduler):
    """A scheduler that says of the allocation's own job what the test has it say."""

    def __init__(self) -> None:
        self.asked: list[Sequence[str]] = []
        self.says: Answer | NoAnswer = {OWN_ID: Observation(id=OWN_ID, state=JobState.QUEUED)}

    def observe(
        self, ids: Sequence[str], options: Mapping[str, object]
    ) -> Dialogue[Answer | NoAnswer]:
        self.asked.append(ids)
        return self.says
        yield  # it is a dialogue without a command


class Allocation:
    """A spool, its agent while there is one, and the jobs that are handed over."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        # A name of its own, which marks the processes of its jobs: an agent ends all with its mark.
        self.spool = folder / f"{uuid.uuid4().hex[:16]}.spool"
        for name in spools.FOLDERS:
            (self.spool / name).mkdir(parents=True)
        for name in (spools.BELL, spools.LOG):
            (self.spool / name).touch()
        (self.spool / spools.JOB).write_text(OWN_ID + "\n")
        (self.spool / spools.AGENT).write_text(spools.agent_text())
        self.inside = Inside()
        self.scheduler = AllocationScheduler(self.inside)
        self.agent: subprocess.Popen[bytes] | None = None
        self._transport = LocalTransport()
        self.held = Held(
            scheduler="local",
            options={},
            num_nodes=2,
            cores_per_node=2,
            memory_per_node=1024**3,
            gpus_per_node=0,
            walltime=600,
        )

    def start(self, *, walltime: int = 600, idle: int = 600, orphan: int = 600) -> None:
        numbers = (2, 2, 1024, 0, walltime, self.held.margin, idle, orphan, 1)
        self.agent = subprocess.Popen(
            ["/bin/bash", self.spool / spools.AGENT, self.spool, "local", *map(str, numbers)],
            env={**os.environ, "HPC_LOCAL_JOBID": OWN_ID},
            cwd=self.folder,
        )

    def end(self) -> int:
        assert self.agent is not None
        return self.agent.wait(PATIENCE_SECONDS)

    def spec(self, **resources: Any) -> JobSpec:
        spec = JobSpec(
            name="n",
            command_name="c",
            executable=Executable(path="/bin/true"),
            site=Site(scheduler="local"),
            resources=Resources(**{"walltime": 60} | resources),
            work_dir=str(self.folder),
        )
        site = self.held.site(spec, str(self.spool))
        return dataclasses.replace(spec, site=site)

    def ask(self, dialogue: Dialogue[T]) -> T:
        try:
            command = next(dialogue)
            while True:
                command = dialogue.send(self._transport.run(command))
        except StopIteration as stop:
            result: T = stop.value
            return result

    def submit(self, tag: str, program: str, **resources: Any) -> str:
        """The id of a job of this shell text, which finds its own as $id."""
        spec = self.spec(**resources)
        script = self.folder / f"{tag}.sh"
        ticket = Ticket(
            tag=tag,
            folder=str(self.folder),
            script=str(script),
            scheduler_out=str(self.folder / f"{tag}.out"),
            scheduler_err=str(self.folder / f"{tag}.err"),
        )
        if not script.exists():
            preamble = self.scheduler.preamble(spec, ticket)
            script.write_text(f"id={preamble.id_expression}\n{program}\n")
        said = self.ask(self.scheduler.submit(spec, ticket))
        assert isinstance(said, Accepted), said
        return said.id

    @property
    def options(self) -> dict[str, Any]:
        return self.held.as_options(str(self.spool))

    def see(self, job_id: str) -> Observation | NoAnswer | None:
        said = self.ask(self.scheduler.observe([job_id], self.options))
        assert not isinstance(said, NoAnswer), said
        return said.get(job_id)

    def until(self, predicate: Callable[[], Any], what: str = "it") -> Any:
        end = time.monotonic() + PATIENCE_SECONDS
        while not (value := predicate()):
            assert time.monotonic() < end, (what, (self.spool / "log").read_text())
            time.sleep(0.02)
        return value

    def ended(self, job_id: str) -> Observation:
        def over() -> Observation | None:
            seen = self.see(job_id)
            over = isinstance(seen, Observation) and seen.state is JobState.ENDED
            return seen if over else None  # type: ignore[return-value]

        found: Observation = self.until(over, f"the end of {job_id}")
        return found

    def begun(self, job_id: str) -> Observation:
        def runs() -> Observation | None:
            seen = self.see(job_id)
            runs = isinstance(seen, Observation) and seen.state is JobState.RUNNING
            return seen if runs else None  # type: ignore[return-value]

        found: Observation = self.until(runs, f"the start of {job_id}")
        return found

    def cancel(self, job_id: str) -> None:
        said = self.ask(self.scheduler.cancel({job_id: ""}, self.options))
        assert said is None, said

    def written(self, name: str) -> str:
        path = self.folder / name
        return path.read_text() if path.exists() else ""

    def close(self) -> None:
        if self.agent is not None and self.agent.poll() is None:
            (self.spool / "inbox" / spools.CLOSE_NOW).touch()
            (self.spool / spools.BELL).write_text("the test is over\n")
            self.end()


@pytest.fixture
def allocation(tmp_path: Path) -> Iterator[Allocation]:
    allocation = Allocation(tmp_path)
    yield allocation
    allocation.close()


def test_a_job_that_is_handed_over_runs_under_the_id_that_was_told(allocation: Allocation) -> None:
    allocation.start()
    job_id = allocation.submit("hjob", "echo $id")
    seen = allocation.ended(job_id)
    assert (seen.tag, seen.exit_code, seen.cause) == ("hjob", 0, None)
    assert allocation.written("hjob.out") == f"{job_id}\n"


@pytest.mark.parametrize(
    ("program", "code", "signal_name"), [("exit 3", 3, ""), ("kill -SEGV $$", None, "SIGSEGV")]
)
def test_an_end_is_told_as_the_shell_tells_it(
    allocation: Allocation, program: str, code: int | None, signal_name: str
) -> None:
    allocation.start()
    seen = allocation.ended(allocation.submit("hjob", program))
    assert (seen.exit_code, seen.signal, seen.cause) == (code, signal_name, None)


def test_jobs_that_fit_run_beside_each_other_and_the_next_waits_for_room(
    allocation: Allocation,
) -> None:
    allocation.start()
    hold = "until [ -e go ]; do sleep 0.05; done"
    both = [allocation.submit(tag, hold, ranks_per_node=2) for tag in ("hone", "htwo")]
    third = allocation.submit("hthree", "true", ranks_per_node=2)
    for each in both:
        allocation.begun(each)
    waits = allocation.see(third)
    assert isinstance(waits, Observation)
    assert waits.state is JobState.QUEUED
    (allocation.folder / "go").touch()
    assert allocation.ended(third).exit_code == 0


def test_memory_is_shared_out(allocation: Allocation) -> None:
    allocation.start()
    hold = "until [ -e go ]; do sleep 0.05; done"
    gib = 1024**3
    both = [allocation.submit(tag, hold, memory_per_node=gib) for tag in ("hone", "htwo")]
    for each in both:
        allocation.begun(each)
    third = allocation.submit("hthree", "true", memory_per_node=gib)
    small = allocation.submit("hfour", "true", memory_per_node=1)
    waits = allocation.see(third)
    assert isinstance(waits, Observation)
    assert waits.state is JobState.QUEUED
    (allocation.folder / "go").touch()
    for each in (third, small):
        assert allocation.ended(each).exit_code == 0


def test_a_job_that_is_handed_over_again_runs_once(allocation: Allocation) -> None:
    allocation.start()
    first = allocation.submit("hjob", "echo once >> runs")
    assert allocation.submit("hjob", "echo once >> runs") == first
    allocation.ended(first)
    assert allocation.submit("hjob", "echo once >> runs") == first
    after = allocation.submit("hafter", "true")
    allocation.ended(after)
    assert allocation.written("runs") == "once\n"


def test_a_search_finds_exactly_what_was_handed_over(allocation: Allocation) -> None:
    job_id = allocation.submit("hjob", "true")
    found = allocation.ask(allocation.scheduler.find(["hjob", "hother"], allocation.options))
    assert isinstance(found, dict)
    (there,) = found["hjob"].values()  # type: ignore[union-attr]
    assert (there.id, there.state) == (job_id, JobState.QUEUED)
    assert found["hother"] == {}


def test_a_job_of_which_the_agent_was_not_told_is_told_by_the_search(
    allocation: Allocation,
) -> None:
    allocation.start()
    allocation.ended(allocation.submit("hfirst", "true"))
    job_id = allocation.submit("hjob", "true")
    (allocation.spool / "inbox" / "hjob").unlink(missing_ok=True)  # as if it was killed before
    allocation.ask(allocation.scheduler.find(["hjob"], allocation.options))
    assert allocation.ended(job_id).exit_code == 0


def test_over_its_walltime_a_job_is_ended_with_what_it_started(allocation: Allocation) -> None:
    allocation.start()
    program = "trap '' TERM; setsid sleep 1000 & echo $! > child; wait; wait"
    tags = (f"hjob{number}" for number in itertools.count())

    def child_of_one() -> str:
        """On a busy machine a second may be over before a job has started anything."""
        seen = allocation.ended(allocation.submit(next(tags), program, walltime=1))
        assert seen.cause is Reason.WALLTIME
        return allocation.written("child")

    child = int(allocation.until(child_of_one))
    allocation.until(lambda: not Path(f"/proc/{child}").exists() or _is_dead(child))


def _is_dead(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


@pytest.mark.parametrize("end", ["by itself", "cancelled"])
def test_nothing_of_a_job_goes_on_after_it(allocation: Allocation, end: str) -> None:
    allocation.start()
    leaves = "setsid sleep 1000 & echo $! > child"
    job_id = allocation.submit("hjob", leaves if end == "by itself" else f"{leaves}; wait")
    child = int(allocation.until(lambda: allocation.written("child")))
    if end == "cancelled":
        allocation.cancel(job_id)
        assert allocation.ended(job_id).cause is Reason.CANCELLED
        assert _is_dead(child)  # who hears that it is gone may rely on it
    allocation.until(lambda: _is_dead(child))


def test_a_job_has_the_umask_and_the_locale_of_the_batch_job(
    allocation: Allocation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    before = os.umask(0o027)
    try:
        allocation.start()
    finally:
        os.umask(before)
    allocation.ended(allocation.submit("hjob", "umask; echo $LC_ALL"))
    assert allocation.written("hjob.out").split() == ["0027", "C.UTF-8"]


def test_a_cancelled_job_that_waits_for_room_is_in_nobodys_way(allocation: Allocation) -> None:
    allocation.start()
    hold = "until [ -e go ]; do sleep 0.05; done"
    allocation.begun(allocation.submit("hone", hold))
    large = allocation.submit("hlarge", "true", num_nodes=2, ranks_per_node=2)
    allocation.cancel(large)
    allocation.until(lambda: not list((allocation.spool / "inbox").iterdir()))
    assert allocation.ended(large).cause is Reason.CANCELLED
    assert allocation.ended(allocation.submit("hafter", "true")).exit_code == 0
    (allocation.folder / "go").touch()


def test_told_to_take_no_more_it_does_what_it_has_taken(allocation: Allocation) -> None:
    allocation.start()
    hold = "until [ -e go ]; do sleep 0.05; done"
    both = [allocation.submit(tag, hold, ranks_per_node=2) for tag in ("hone", "htwo")]
    waits = allocation.submit("hwaits", "true")
    for each in both:
        allocation.begun(each)
    allocation.until(lambda: not list((allocation.spool / "inbox").iterdir()))
    (allocation.spool / "inbox" / spools.CLOSE).touch()
    (allocation.spool / spools.BELL).write_text("close\n")
    left = lambda: allocation.written(f"{allocation.spool.name}/heartbeat").split()[0]  # noqa: E731
    allocation.until(lambda: int(left()) == 0)  # whoever would hand over more sees it
    late = allocation.ended(allocation.submit("hlate", "touch ran"))
    assert late.cause is Reason.ALLOCATION_ENDED
    (allocation.folder / "go").touch()
    assert allocation.ended(waits).exit_code == 0
    assert allocation.end() == 0
    assert not (allocation.folder / "ran").exists()


def test_what_is_too_large_for_an_agent_is_not_to_be_handed_over_again(
    allocation: Allocation,
) -> None:
    allocation.start()
    seen = allocation.ended(allocation.submit("hjob", "touch ran", ranks_per_node=3))
    assert seen.cause is Reason.REJECTED
    assert "larger than the allocation" in seen.message


def test_an_end_that_a_full_disk_did_not_take_is_told_when_there_is_room(
    allocation: Allocation,
) -> None:
    hold = "until [ -e go-$0 ]; do sleep 0.05; done".replace("$0", "{}")
    allocation.start()
    both = [allocation.submit(tag, hold.format(tag)) for tag in ("hone", "htwo")]
    for each in both:
        allocation.begun(each)
    assert allocation.agent is not None
    log = allocation.spool / spools.LOG
    # Room for a part of the next line: a limit to the file's size does here what a full disk does.
    torn = log.stat().st_size + 5
    _limit_files(allocation.agent.pid, torn)
    (allocation.folder / "go-hone").touch()
    allocation.until(lambda: log.stat().st_size == torn, "half a line")
    _limit_files(allocation.agent.pid, resource.RLIM_INFINITY)
    (allocation.folder / "go-htwo").touch()
    for each in both:
        assert allocation.ended(each).exit_code == 0


def _limit_files(pid: int, size: int) -> None:
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def test_a_running_job_is_cancelled(allocation: Allocation) -> None:
    allocation.start()
    job_id = allocation.submit("hjob", "exec sleep 1000")
    allocation.begun(job_id)
    allocation.cancel(job_id)
    assert allocation.ended(job_id).cause is Reason.CANCELLED


def test_a_waiting_job_is_cancelled_without_an_agent_and_never_starts(
    allocation: Allocation,
) -> None:
    job_id = allocation.submit("hjob", "touch ran")
    allocation.cancel(job_id)
    assert allocation.ended(job_id).cause is Reason.CANCELLED
    allocation.start()
    allocation.ended(allocation.submit("hafter", "true"))
    assert not (allocation.folder / "ran").exists()


def test_what_does_not_fit_into_the_rest_of_the_time_is_not_taken(allocation: Allocation) -> None:
    allocation.start(walltime=100)
    seen = allocation.ended(allocation.submit("hjob", "touch ran", walltime=90))
    assert seen.cause is Reason.ALLOCATION_ENDED
    assert "too little time" in seen.message
    assert not (allocation.folder / "ran").exists()


def test_told_to_close_it_ends_and_says_what_it_was_used_for(allocation: Allocation) -> None:
    allocation.start()
    job_id = allocation.submit("hjob", "sleep 1.2; until [ -e go ]; do sleep 0.05; done")
    allocation.begun(job_id)
    (allocation.spool / "inbox" / spools.CLOSE).touch()
    (allocation.spool / spools.BELL).write_text("close\n")
    allocation.until(lambda: not list((allocation.spool / "inbox").iterdir()))
    (allocation.folder / "go").touch()
    assert allocation.end() == 0
    assert allocation.ended(job_id).exit_code == 0  # what runs is waited for
    look = spools.read_look(LocalTransport().run(spools.ask_to_look(str(allocation.spool), ())))
    assert look is not None
    why, held, used = look.end
    assert why == "closed"
    assert int(held) >= 2 * int(used) >= 2  # one of two nodes had a job


@pytest.mark.parametrize("limit", ["idle", "orphan"])
def test_it_ends_by_itself(allocation: Allocation, limit: str) -> None:
    if limit == "orphan":
        renewed = allocation.spool / spools.RENEWED
        renewed.touch()
        os.utime(renewed, (time.time() - 1000, time.time() - 1000))
    allocation.start(**{limit: 1})
    assert allocation.end() == 0
    assert f" {limit} " in allocation.written(f"{allocation.spool.name}/log")
    late = allocation.ended(allocation.submit("hlate", "touch ran"))
    assert late.cause is Reason.ALLOCATION_ENDED


def test_a_signal_ends_its_jobs_as_the_allocations_end(allocation: Allocation) -> None:
    allocation.start()
    job_id = allocation.submit("hjob", "exec sleep 1000")
    allocation.begun(job_id)
    assert allocation.agent is not None
    allocation.agent.send_signal(signal.SIGTERM)
    assert allocation.end() == 0
    assert allocation.ended(job_id).cause is Reason.ALLOCATION_ENDED


def _aged(allocation: Allocation, seconds: float) -> None:
    heartbeat, then = allocation.spool / "heartbeat", time.time() - seconds
    os.utime(heartbeat, (then, then))


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        pytest.param(NoAnswer("down"), None, id="no answer"),
        pytest.param(
            {OWN_ID: Observation(id=OWN_ID, state=JobState.RUNNING)}, JobState.RUNNING, id="runs"
        ),
        pytest.param({}, None, id="not listed"),
        pytest.param(
            {OWN_ID: Observation(id=OWN_ID, state=JobState.ENDED, word="TIMEOUT")},
            JobState.ENDED,
            id="ended",
        ),
        pytest.param(
            {OWN_ID: Observation(id=OWN_ID, state=JobState.ENDED, exit_code=GUARD_CODE)},
            None,
            id="a second start was turned away",
        ),
    ],
)
def test_after_the_agent_was_killed_only_the_scheduler_inside_tells_the_end(
    allocation: Allocation, said: Any, expected: JobState | None
) -> None:
    allocation.start()
    job_id = allocation.submit("hjob", "exec sleep 30")
    allocation.begun(job_id)
    allocation.inside.asked.clear()
    allocation.see(job_id)
    assert allocation.inside.asked == []  # while the heart beats nobody asks
    assert allocation.agent is not None
    allocation.agent.kill()
    allocation.end()
    _aged(allocation, 100)
    allocation.inside.says = said
    seen = allocation.see(job_id)
    assert allocation.inside.asked == [[OWN_ID]]
    if expected is None:
        assert isinstance(seen, NoAnswer)
    else:
        assert isinstance(seen, Observation)
        assert seen.state is expected
        assert seen.cause is (Reason.ALLOCATION_ENDED if expected is JobState.ENDED else None)


def test_silent_for_long_and_not_listed_it_has_ended(allocation: Allocation) -> None:
    allocation.start()
    job_id = allocation.submit("hjob", "exec sleep 30")
    allocation.begun(job_id)
    assert allocation.agent is not None
    allocation.agent.kill()
    allocation.end()
    _aged(allocation, 1000)
    allocation.inside.says = {}
    assert allocation.ended(job_id).cause is Reason.ALLOCATION_ENDED


@pytest.mark.parametrize(
    ("own", "age", "expected"),
    [
        pytest.param("", 500, JobState.QUEUED, id="is being submitted"),
        pytest.param("", 700, JobState.ENDED, id="nobody submits it"),
        pytest.param(OWN_ID, 500, None, id="not listed now"),
        pytest.param(OWN_ID, 700, JobState.ENDED, id="not listed, and nobody holds it"),
        pytest.param("listed", 700, JobState.QUEUED, id="waits in the queue"),
    ],
)
def test_an_allocation_that_has_not_begun_and_that_nobody_holds_has_ended(
    allocation: Allocation, own: str, age: float, expected: JobState | None
) -> None:
    job = allocation.spool / spools.JOB
    if own:
        job.write_text(own + "\n")
    else:
        job.unlink()
    allocation.inside.says = {"listed": Observation(id="listed", state=JobState.QUEUED)}
    renewed, then = allocation.spool / spools.RENEWED, time.time() - age
    renewed.touch()
    os.utime(renewed, (then, then))
    seen = allocation.see(allocation.submit("hjob", "exec sleep 30"))
    if expected is None:
        assert isinstance(seen, NoAnswer)
    else:
        assert isinstance(seen, Observation)
        assert (seen.state, seen.started_at) == (expected, 0.0)
        assert seen.cause is (Reason.ALLOCATION_ENDED if expected is JobState.ENDED else None)


@pytest.mark.parametrize("began", [True, False], ids=["runs", "waits"])
def test_the_end_of_another_batch_job_is_not_that_of_the_allocation(
    allocation: Allocation, began: bool
) -> None:
    """Of an earlier attempt: the two share the spool, and its end may be told late."""
    if began:
        allocation.start()
    job_id = allocation.submit("hjob", "exec sleep 30")
    if began:
        allocation.begun(job_id)
    for earlier in ("", "4710"):
        (allocation.spool / spools.GONE).write_text(spools.gone_text(earlier, "refused"))
        seen = allocation.see(job_id)
        assert isinstance(seen, Observation)
        assert seen.state is (JobState.RUNNING if began else JobState.QUEUED)
    (allocation.spool / spools.GONE).write_text(spools.gone_text(OWN_ID, "walltime"))
    assert allocation.ended(job_id).message.endswith("walltime")


def test_of_a_batch_job_that_never_had_an_id_the_holder_tells_the_end(
    allocation: Allocation,
) -> None:
    (allocation.spool / spools.JOB).unlink()
    job_id = allocation.submit("hjob", "exec sleep 30")
    (allocation.spool / spools.GONE).write_text(spools.gone_text("", "refused"))
    assert allocation.ended(job_id).message.endswith("refused")


def test_an_agent_is_begun_once_in_a_spool(allocation: Allocation) -> None:
    allocation.start(idle=1)
    assert allocation.end() == 0
    allocation.start(idle=1)
    assert allocation.end() == 1


def test_without_its_spool_a_job_is_refused_for_sure(allocation: Allocation) -> None:
    spec = allocation.spec()
    nowhere = allocation.held.as_options("/no/such/spool")
    gone = dataclasses.replace(spec, site=Site(scheduler="allocation-local", options=nowhere))
    ticket = Ticket(tag="h", folder="/", script="/s", scheduler_out="/o", scheduler_err="/e")
    assert isinstance(allocation.ask(allocation.scheduler.submit(gone, ticket)), Refused)
