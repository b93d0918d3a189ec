"""Several processes of one user: one pace of questions, one count of jobs in a queue."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
from neighbour import PACE
from rig import Rig, until

from hpc_prefect.executor.coordination.host_coordination import HostPeers, peers_at
from hpc_prefect.executor.coordination.queue_slots import QueueSlot
from hpc_prefect.executor.coordination.shared_poll import SharedPoll
from hpc_prefect.job.dialogue import Command
from hpc_prefect.job.failure import Reason
from hpc_prefect.job.state import JobState, Observation
from hpc_prefect.local_batch.process import identity
from hpc_prefect.schedulers.base import NoAnswer
from hpc_prefect.schedulers.local.scheduler import LocalScheduler
from hpc_prefect.schedulers.slurm.scheduler import SlurmScheduler

NEIGHBOUR = Path(__file__).with_name("neighbour.py")


class Flows:
    """Processes that run jobs whose program waits for the file `gate` or `gate-KEY`."""

    def __init__(self, folder: Path, code: int) -> None:
        self.rig = Rig(folder, slots=32)
        self.folder = folder
        self._started: list[subprocess.Popen[str]] = []
        note = f"""printf '[0, 0, "%s", "%s"]\\n' "$what" "$1" >> {folder}/done"""
        self.rig.program(
            f"what=begin; {note}\n"
            f"until [ -e {folder}/gate ] || [ -e {folder}/gate-$1 ]; do sleep 0.02; done\n"
            f"what=end; {note}\nexit {code}"
        )

    def start(self, *keys: str, **options: object) -> subprocess.Popen[str]:
        argv = [sys.executable, NEIGHBOUR, self.folder, json.dumps(keys), json.dumps(options)]
        started = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self._started.append(started)
        return started

    def done(self, *what: str) -> list[list]:
        """What was done so far, in order."""
        with contextlib.suppress(FileNotFoundError):
            lines = (self.folder / "done").read_text().splitlines()
            entries = [json.loads(line) for line in lines]
            return [entry for entry in entries if not what or entry[2] in what]
        return []

    def open_gate(self, key: str = "") -> None:
        (self.folder / (f"gate-{key}" if key else "gate")).touch()

    async def most_at_once(self, count: int) -> int:
        """When all jobs are through: the most that were in the queue at once."""
        await until(lambda: len(self.done("end")) == count, "the end of all jobs")
        steps = [1 if entry[2] == "submit" else -1 for entry in self.done("submit", "end")]
        return max(itertools.accumulate(steps))

    async def close(self) -> None:
        self.open_gate()
        for one in self._started:
            one.kill()
            one.communicate()
        await self.rig.close()


@pytest.fixture
async def flows(tmp_path):
    flows = Flows(tmp_path, code=0)
    yield flows
    await flows.close()


@pytest.fixture
async def failing(tmp_path):
    """The programs fail, so that only the scheduler's word tells how a job ended."""
    flows = Flows(tmp_path, code=3)
    yield flows
    await flows.close()


async def results(process: subprocess.Popen[str]) -> list[list]:
    out, err = await asyncio.to_thread(process.communicate, timeout=120)
    assert (process.returncode, err) == (0, "")
    return json.loads(out)


async def test_five_processes_ask_no_more_often_than_one_and_each_gets_its_news(failing):
    processes = [failing.start(f"{n}a", f"{n}b") for n in range(5)]
    await until(lambda: len(failing.done("begin")) == 10, "the start of all jobs")
    await until(
        lambda: len([one for one in failing.done("ask") if one[3] == 10]) >= 4,
        "questions about all jobs of all processes",
    )
    failing.open_gate()
    for process in processes:
        assert await results(process) == [["failed", 3]] * 2
    asked = [entry[0] for entry in failing.done("ask")]
    assert min(later - earlier for earlier, later in itertools.pairwise(asked)) >= 0.98 * PACE


async def test_a_process_killed_in_its_turn_holds_nobody_up(failing):
    first = failing.start("a", hang=True)
    await until(lambda: failing.done("ask"), "its question")
    second = failing.start("b")
    await until(lambda: len(failing.done("begin")) == 2, "the second job")
    failing.open_gate()
    first.kill()
    assert await results(second) == [["failed", 3]]
    about_both = [entry for entry in failing.done("ask") if entry[3] > 1]
    assert about_both == [], "a dead process's jobs are asked about"


async def test_a_limit_holds_across_processes(flows):
    keys = [[f"{n}{letter}" for letter in "abcd"] for n in range(3)]
    processes = [flows.start(*each, limit=4) for each in keys]
    await until(
        lambda: (
            len({entry[1] for entry in flows.done("state") if "waiting for a slot: 4" in entry[3]})
            >= 2
        ),
        "processes that wait",
    )
    await until(lambda: len(flows.done("begin")) == 4, "four jobs")
    flows.open_gate()
    for process in processes:
        assert await results(process) == [["succeeded", 0]] * 4
    assert await flows.most_at_once(12) == 4


async def test_a_job_that_a_killed_process_left_in_the_queue_counts_until_it_ends(flows):
    killed = flows.start("a", "b", limit=2)
    await until(lambda: len(flows.done("begin")) == 2, "two jobs")
    killed.kill()
    other = flows.start("c", limit=2)
    await until(lambda: "waiting" in str(flows.done("state")), "the third job's wait")
    asked = len(flows.done("ask"))
    await until(lambda: len(flows.done("ask")) >= asked + 2, "questions about what was left")
    assert len(flows.done("submit")) == 2
    flows.open_gate("a")
    await until(lambda: len(flows.done("begin")) == 3, "the third job")
    flows.open_gate()
    assert await results(other) == [["succeeded", 0]]
    assert await flows.most_at_once(3) == 2


async def test_a_job_that_is_taken_up_holds_one_place(flows):
    killed = flows.start("a", "b", limit=2)
    await until(lambda: len(flows.done("begin")) == 2, "two jobs")
    killed.kill()
    killed.wait()
    again = flows.start("a", "b", "c", limit=2)
    await until(lambda: "waiting" in str(flows.done("state")), "the third job's wait")
    flows.open_gate("a")
    await until(lambda: len(flows.done("begin")) == 3, "the third job")
    flows.open_gate()
    assert await results(again) == [["succeeded", 0]] * 3
    assert await flows.most_at_once(3) == 2


async def test_the_executor_counts_with_its_neighbours(flows):
    first = flows.start("a", limit=1, executor=True)
    await until(lambda: flows.done("begin"), "the first job")
    second = flows.start("b", limit=1, executor=True)
    await until(
        lambda: "waiting for a slot: 1" in str(flows.done("state")), "the second job's wait"
    )
    flows.open_gate()
    assert await results(first) == await results(second) == [["succeeded", 0]]
    order = [entry[2:] for entry in flows.done("begin", "end")]
    assert order == [["begin", "a"], ["end", "a"], ["begin", "b"], ["end", "b"]]


# --- who is a neighbour


def at(folder):
    """A rule by which the peers meet in this folder."""
    return lambda: iter([str(folder)])


def folder_of(scheduler, options, tmp_path, **where):
    """The name of the folder that they make to meet in."""
    before = set(tmp_path.glob("shared/*"))
    peers = peers_at(scheduler, options, folders=at(tmp_path / "shared"), **where)
    assert peers.together(lambda lock: True, alone=False)
    new = set(tmp_path.glob("shared/*")) - before
    assert len(new) <= 1
    return new.pop() if new else None


def test_another_host_scheduler_option_server_or_command_is_apart(tmp_path, monkeypatch):
    def other_command(name):
        (tmp_path / name).mkdir()
        (tmp_path / name / "squeue").touch(mode=0o700)
        monkeypatch.setenv("PATH", f"{tmp_path / name}:{os.environ['PATH']}")

    other_command("one")
    found = [
        folder_of(SlurmScheduler(), {}, tmp_path),
        folder_of(SlurmScheduler(), {}, tmp_path, host="elsewhere"),
        folder_of(SlurmScheduler(), {"cluster": "b"}, tmp_path),
        folder_of(LocalScheduler(), {}, tmp_path),
    ]
    other_command("two")
    found.append(folder_of(SlurmScheduler(), {}, tmp_path))
    monkeypatch.setenv("SLURM_CONF", "/etc/other.conf")
    found.append(folder_of(SlurmScheduler(), {}, tmp_path))
    assert None not in found
    assert folder_of(SlurmScheduler(), {}, tmp_path) is None, "they meet again where they met"


@pytest.mark.parametrize("what", ["open to others", "a link", "a file"])
async def test_a_folder_that_is_not_ours_alone_is_not_used_and_said_once(rig, caplog, what):
    root = rig.folder / "shared"
    if what == "a link":
        (rig.folder / "elsewhere").mkdir(mode=0o700)
        root.symlink_to(rig.folder / "elsewhere")
    elif what == "a file":
        root.touch()
    else:
        root.mkdir()
        root.chmod(0o775)
    peers = peers_at(LocalScheduler(), rig.options, folders=at(root))
    connection = rig.connection(peers=peers)
    with caplog.at_level(logging.WARNING):
        requests = [rig.request(rig.spec("exit 3"), key, max_jobs_in_queue=1) for key in "abc"]
        for result in await asyncio.gather(*(rig.run(one, connection) for one in requests)):
            assert result.verdict.reason is Reason.PROGRAM_FAILED
    said = [record.getMessage() for record in caplog.records]
    told = [text for text in said if "asks the scheduler by itself" in text]
    assert len(told) == 1, said
    assert str(root) in told[0]


# --- turns, seen from two processes (this one, and a stand-in for another that lives)


class Other(HostPeers):
    """Another living process: the one that started us."""

    def __init__(self, *where):
        super().__init__(*where)
        _, pid, start, _ = identity(os.getppid()).split()
        self.me = f"{pid}.{start}"


@pytest.fixture
def two(tmp_path):
    where = ("key", at(tmp_path / "shared"))
    return SharedPoll(HostPeers(*where)), SharedPoll(Other(*where))


def test_what_one_is_answered_reaches_the_other_as_it_was_said(two):
    ours, others = two
    seen = Observation(
        id="2", state=JobState.ENDED, cause=Reason.OUT_OF_MEMORY, tag="h1", used={"max_rss": 1.5}
    )
    others.end(others.take(["2", "3", "4"], 0), {})
    turn = ours.take(["1"], 0)
    assert (turn.ids, turn.others) == (("1", "2", "3", "4"), {"2", "3", "4"})
    ours.end(turn, {"1": seen, "2": seen, "3": NoAnswer("hangs")})
    news = others.take(["2", "3", "4", "5"], 1000)
    assert not news.mine
    assert news.answer == {"2": seen, "3": NoAnswer("hangs")}
    assert news.about == {"2", "3", "4"}  # 4 is not listed; 5 was not asked about
    assert others.take(["2"], 1000).answer is None, "it is told once"


def test_who_begins_to_wait_is_not_told_what_was_said_before(two):
    ours, others = two
    others.end(others.take(["2"], 0), {})
    turn = ours.take(["1"], 0)
    ours.end(turn, {"2": Observation(id="2", state=JobState.QUEUED)})
    others.leave()
    assert others.take(["2"], 1000).answer is None


def test_while_one_asks_the_other_waits_and_not_after_it(two):
    ours, others = two
    turn = ours.take(["1"], 0)
    assert others.take(["2"], 0).under_way
    ours.end(turn, {})
    assert others.take(["2"], 0).mine


def test_an_answer_of_another_format_is_no_news(two, tmp_path):
    ours, others = two
    others.end(others.take(["2"], 0), {})
    turn = ours.take(["1"], 0)
    ours.end(turn, {"2": Observation(id="2", state=JobState.QUEUED)})
    path = tmp_path / "shared" / "key" / "answer"
    content = json.loads(path.read_text())
    content["answer"]["2"]["colour"] = "blue"
    path.write_text(json.dumps(content))
    assert others.take(["2"], 1000).answer is None


class Answered:
    """A job that notes what it was told."""

    next_look, poll_interval, tag, job_id = float("inf"), 1.0, "h1", "7"

    def __init__(self):
        self.wants_answer, self.told = False, []

    def look(self, now): ...

    def keep(self): ...

    def answered(self, now, seen, asked):
        self.wants_answer = False
        self.told.append(seen)


def said(state, tag="h1", **more):
    return Observation(id="7", state=state, tag=tag, **more)


@pytest.mark.parametrize(
    "hint",
    [
        said(JobState.ENDED, cause=Reason.NODE_FAILURE, word="NODE_FAIL"),
        said(JobState.ENDING),
        said(JobState.UNKNOWN),
        said(JobState.RUNNING, tag="of another job"),
        None,
    ],
)
async def test_what_would_end_a_job_is_only_believed_of_the_scheduler_itself(rig, hint):
    """A neighbour's "NODE_FAIL", forged or of a mistake, had a living job killed."""
    where = ("key", at(rig.folder / "shared"))
    asked = []

    class Truthful(LocalScheduler):
        def observe(self, ids, options):
            asked.append(tuple(ids))
            yield Command(argv=("true",))
            return {"7": said(JobState.RUNNING)}

    ours, others, job = HostPeers(*where), SharedPoll(Other(*where)), Answered()
    connection = rig.connection(Truthful(), peers=ours)
    turn = others.take(["1"], 0)
    connection.watch(job)
    await until((rig.folder / "shared/key" / f"ids-{ours.me}").exists, "our ids")
    others.end(turn, {})
    turn = others.take(["1"], 0)
    assert turn.others == {"7"}
    others.end(turn, {} if hint is None else {"7": hint})
    await until(lambda: job.told, "an answer")
    connection.release(job)
    assert asked, "we asked ourselves"
    assert all(one == said(JobState.RUNNING) for one in job.told), job.told


# --- the folder is ours, or it is not used


@pytest.mark.parametrize("name", ["lock", "answer"])
def test_a_pipe_in_the_place_of_a_file_hangs_nobody(two, tmp_path, name):
    ours, others = two
    others.end(others.take(["2"], 0), {})
    path = tmp_path / "shared" / "key" / name
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    turn = ours.take(["1"], 0)
    assert turn.mine
    ours.end(turn, {"2": NoAnswer("hangs")})


def test_what_is_published_goes_along_when_the_meeting_place_does(tmp_path):
    """The runtime directory comes with a login and goes with the last logout."""
    slots = [tmp_path / "home"]
    where = ("key", lambda: iter([*map(str, slots)]))
    ours, others = SharedPoll(HostPeers(*where)), SharedPoll(Other(*where))
    others.end(others.take(["2"], 0), {})
    ours.end(ours.take(["1"], 0), {})
    slots.insert(0, tmp_path / "runtime")
    others.end(others.take(["2"], 0), {})
    assert ours.take(["1"], 0).ids == ("1", "2")
    del slots[0]
    ours.leave()
    assert others.take(["2"], 0).ids == ("2",), "nothing of ours is left where we were before"


# --- slots, seen from the same two


async def test_who_asked_first_gets_the_place_that_is_given_back(rig):
    where = ("key", at(rig.folder / "shared"))
    ours = rig.connection(peers=HostPeers(*where)).slots("")
    others = rig.connection(peers=Other(*where)).slots("")
    held, order, waiting = place("held"), [], []
    await ours.take(held)

    async def one(name, slots):
        await slots.take(place(name), lambda: waiting.append(name))
        order.append(name)

    tasks = []
    for name, slots in (("first", others), ("second", ours), ("third", others)):
        tasks.append(asyncio.create_task(one(name, slots)))
        await until(lambda name=name: name in waiting, f"the wait of {name}")
    ours.give_back(held)
    for n, (name, slots) in enumerate((("first", others), ("second", ours), ("third", others))):
        await until(lambda n=n: len(order) == n + 1, f"the place of {name}")
        slots.give_back(place(name))
    assert order == ["first", "second", "third"]


async def test_who_gives_up_waiting_holds_nobody_up(rig):
    folder, where = rig.folder / "shared" / "key", ("key", at(rig.folder / "shared"))
    ours = rig.connection(peers=HostPeers(*where)).slots("")
    others = rig.connection(peers=Other(*where)).slots("")
    await ours.take(place("held"))
    waits = asyncio.Event()
    gives_up = asyncio.create_task(others.take(place("gives-up"), waits.set))
    await waits.wait()
    waiting = asyncio.create_task(ours.take(place("waits", limit=2)))
    gives_up.cancel()
    await asyncio.wait_for(waiting, 60)
    ours.give_back(place("held"))
    ours.give_back(place("waits", limit=2))
    await until(lambda: os.listdir(folder) == ["lock"], "nothing being left")


def place(tag, limit=1):
    return QueueSlot(tag.replace("-", ""), "", limit)


def test_a_folder_that_was_cleared_up_is_made_again(two, tmp_path):
    ours, _ = two
    ours.end(ours.take(["1"], 0), {})
    for path in (tmp_path / "shared" / "key").iterdir():
        path.unlink()
    (tmp_path / "shared" / "key").rmdir()
    assert ours.take(["1"], 1000).mine
