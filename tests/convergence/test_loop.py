"""The loop's core in a folder: no Prefect, no campaign."""

from __future__ import annotations

import asyncio
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

import loops
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpc_prefect.convergence import StopRule
from hpc_prefect.convergence.checkpoint import Checkpoint, Checkpoints
from hpc_prefect.errors import ConfigurationError, LedgerError, NotConverged, NotOurs


async def drawing_step(state, it):
    it.rng.random(3)
    return loops.step(state, it)


class Stopped(Exception):
    """What a step raises to break the loop."""


def breaking_at(number):
    def step(state, it):
        it.rng.random(100)
        if isinstance(state, dict):
            state["x"][:] = 7.0  # a step may spoil its input before it fails
        if it.number == number:
            raise Stopped(f"in iteration {number}")
        raise AssertionError("only used for the iteration that breaks")

    return step


def until(number, then):
    def step(state, it):
        return loops.step(state, it) if it.number < number else then(state, it)

    return step


async def test_a_loop_counts_from_one_and_tells_why_it_ended(tmp_path):
    result = await loops.run(tmp_path)

    assert [row["iteration"] for row in result.history] == [1, 2, 3, 4, 5, 6]
    assert (result.reason, result.converged, result.iterations) == ("max_iterations", False, 6)
    assert result.resumed_at is None


async def test_a_loop_whose_value_settles_has_converged(tmp_path):
    rule = StopRule(value="energy", tolerance=1e-2, window=2, max_iterations=50)

    result = await loops.run(tmp_path, rule=rule)

    changes = [abs(row["change"]) for row in result.history[1:]]
    assert (result.reason, result.converged) == ("tolerance", True)
    assert max(changes[-2:]) < 1e-2 <= max(changes[-3:-1])
    assert result.history[0]["change"] is None


@pytest.mark.parametrize("killed_in", [1, 2, 6])
async def test_killed_in_an_iteration_the_loop_goes_on_there_to_the_same_last_bit(
    tmp_path, killed_in
):
    script = Path(loops.__file__)
    whole = await loops.run(tmp_path / "whole", step=drawing_step)

    process = await asyncio.to_thread(
        subprocess.run, [sys.executable, script, tmp_path / "killed", str(killed_in)]
    )
    resumed = await loops.run(tmp_path / "killed", step=drawing_step)

    assert process.returncode == -signal.SIGKILL
    assert resumed.resumed_at == killed_in
    assert loops.values(resumed) == loops.values(whole)
    assert resumed.state["x"].tobytes() == whole.state["x"].tobytes()
    assert resumed.state["own"].bit_generator.state == whole.state["own"].bit_generator.state


async def test_an_iteration_whose_step_raised_starts_again_from_the_state_and_numbers_it_had(
    tmp_path,
):
    whole = await loops.run(tmp_path / "whole")
    watcher = loops.Silent()

    with pytest.raises(Stopped, match="in iteration 3"):
        await loops.run(tmp_path / "broken", step=until(3, breaking_at(3)), watcher=watcher)
    resumed = await loops.run(tmp_path / "broken")

    assert (watcher.rows, watcher.broke) == ([1, 2], [2])
    assert resumed.resumed_at == 3
    assert loops.values(resumed) == loops.values(whole)


async def test_a_cancelled_step_is_cancelled_and_the_checkpoint_before_it_is_kept(tmp_path):
    reached = asyncio.Event()

    async def hanging(state, it):
        if it.number == 2:
            reached.set()
            await asyncio.Event().wait()
        return loops.step(state, it)

    running = asyncio.create_task(loops.run(tmp_path, step=hanging))
    await reached.wait()
    running.cancel()

    with pytest.raises(asyncio.CancelledError):
        await running
    assert (await loops.run(tmp_path)).resumed_at == 2


async def test_a_finished_loop_is_returned_without_a_step(tmp_path):
    first = await loops.run(tmp_path)

    again = await loops.run(tmp_path, step=breaking_at(1), measure=breaking_at(1))

    assert again.resumed_at == 7
    assert again.history == first.history
    assert again.state["x"].tobytes() == first.state["x"].tobytes()


async def test_a_rule_that_changed_does_not_change_a_loop_that_is_under_way(tmp_path):
    with pytest.raises(Stopped):
        await loops.run(tmp_path, step=until(2, breaking_at(2)))

    result = await loops.run(tmp_path, rule=StopRule(value="dimension", max_iterations=2))

    assert result.iterations == 6


async def test_wall_time_is_counted_over_all_runs_of_the_loop(tmp_path):
    now = [1000.0]
    rule = StopRule(value="energy", max_iterations=100, wall_time="00:01:00")

    def slow(state, it):
        now[0] += 25.0
        return loops.step(state, it)

    with pytest.raises(Stopped):
        await loops.run(
            tmp_path,
            step=lambda s, it: (breaking_at(3) if it.number == 3 else slow)(s, it),
            rule=rule,
            clock=lambda: now[0],
        )
    now[0] = 5.0  # another machine: its clock starts somewhere else
    result = await loops.run(tmp_path, step=slow, clock=lambda: now[0])

    assert (result.reason, result.iterations) == ("wall_time", 3)
    assert [row["seconds"] for row in result.history] == [25.0, 25.0, 25.0]


async def test_each_iteration_runs_inside_a_context_of_its_own_name(tmp_path):
    seen: list[str] = []

    @contextmanager
    def enter(name):
        seen.append(f"in {name}")
        yield
        seen.append(f"out {name}")

    await loops.run(tmp_path, enter=enter, rule=StopRule(value="energy", max_iterations=2))

    assert seen == ["in iter-1", "out iter-1", "in iter-2", "out iter-2"]


async def test_a_value_that_is_nan_ends_the_loop_with_an_error_and_its_iteration_is_not_kept(
    tmp_path,
):
    def measure(state):
        return {"energy": float("nan")}

    with pytest.raises(NotConverged, match="iteration 1: energy is nan"):
        await loops.run(tmp_path, measure=measure)

    assert (await loops.run(tmp_path)).resumed_at == 1


async def test_a_measure_may_return_one_number(tmp_path):
    result = await loops.run(
        tmp_path, measure=lambda state: np.float32(2.5), rule=StopRule(max_iterations=1)
    )

    assert result.history[0]["value"] == 2.5
    assert type(result.history[0]["value"]) is float


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"energy": 1.0, "seconds": 3}, "measure returned a column named 'seconds'"),
        ({"energy": [1.0]}, "measure returned a list for 'energy'"),
        ({"energy": 1j}, "measure returned a complex for 'energy'"),
    ],
)
async def test_a_column_that_cannot_be_shown_is_an_error_that_names_it(tmp_path, columns, message):
    with pytest.raises(ConfigurationError, match=message):
        await loops.run(tmp_path, measure=lambda state: columns)


async def test_a_step_that_forgets_to_return_the_state_is_told_so(tmp_path):
    with pytest.raises(ConfigurationError, match="iteration 1: step returned None"):
        await loops.run(tmp_path, step=lambda state, it: None)


async def test_parameters_reach_every_iteration_as_a_fresh_copy(tmp_path):
    seen = []

    def step(state, it):
        seen.append(list(it.parameters["samples"]))
        it.parameters["samples"].append(3)
        return loops.step(state, it)

    await loops.run(tmp_path, step=step, rule=StopRule(value="energy", max_iterations=2))

    assert seen == [[1, 2], [1, 2]]


async def test_a_state_that_cannot_be_kept_is_an_error_before_the_first_step(tmp_path):
    with pytest.raises(ConfigurationError, match="the state after iteration 0 cannot be saved"):
        await loops.run(tmp_path, state={"f": lambda: 0}, step=breaking_at(1))


async def test_a_sync_step_does_not_hold_up_the_event_loop(tmp_path):
    ticking, ticked = asyncio.Event(), asyncio.Event()
    main = asyncio.get_running_loop()

    def step(state, it):
        main.call_soon_threadsafe(ticking.set)
        asyncio.run_coroutine_threadsafe(ticked.wait(), main).result(timeout=60)
        return loops.step(state, it)

    running = asyncio.create_task(loops.run(tmp_path, step=step))
    await ticking.wait()  # only reached when the loop turns while the step runs
    ticked.set()

    assert (await running).iterations == 6


# The checkpoint files.


async def stopped_at_three(folder):
    with pytest.raises(Stopped):
        await loops.run(folder, step=until(3, breaking_at(3)))
    return folder / "checkpoint"


@pytest.mark.parametrize("cut", [0, 10, 200, -1])
async def test_a_torn_checkpoint_is_noticed_set_aside_and_the_one_before_it_used(
    tmp_path, caplog, cut
):
    newest = await stopped_at_three(tmp_path)
    newest.write_bytes(newest.read_bytes()[:cut])

    resumed = await loops.run(tmp_path)

    assert resumed.resumed_at == 2
    assert loops.values(resumed) == loops.values(await loops.run(tmp_path / "whole"))
    assert (tmp_path / "checkpoint.damaged").exists()
    assert "damaged checkpoint set aside" in caplog.text


async def test_one_changed_byte_in_a_checkpoint_is_noticed(tmp_path):
    newest = await stopped_at_three(tmp_path)
    data = bytearray(newest.read_bytes())
    data[-40] ^= 1
    newest.write_bytes(data)

    assert (await loops.run(tmp_path)).resumed_at == 2


@given(st.data())
def test_no_damage_of_any_kind_ever_gives_a_state_that_was_not_saved(data):
    with tempfile.TemporaryDirectory() as name:
        folder, rule = Path(name), StopRule(max_iterations=9)
        book = Checkpoints(folder, loops.LOG)
        for state in ("first", "second"):
            book.save(Checkpoint(state=state, rng=None, rule=rule))
        for file in ("checkpoint", "checkpoint.previous"):
            content = bytearray((folder / file).read_bytes())
            at = data.draw(st.integers(0, len(content) - 1), label=f"place in {file}")
            if data.draw(st.booleans(), label="cut"):
                del content[at:]
            else:
                content[at] ^= data.draw(st.integers(1, 255), label="flip")
            (folder / file).write_bytes(content)

        try:
            found = book.load()
        except LedgerError:
            return
        assert found is not None
        assert found.state in ("first", "second")
        assert found.rule == rule


async def test_when_both_checkpoints_are_damaged_nothing_is_started_over_silently(tmp_path):
    newest = await stopped_at_three(tmp_path)
    newest.write_bytes(b"")
    (tmp_path / "checkpoint.previous").write_bytes(b"{}\n")

    for _ in range(2):
        with pytest.raises(LedgerError, match="no usable checkpoint is left"):
            await loops.run(tmp_path)


async def test_a_kill_between_the_two_renames_costs_one_iteration(tmp_path):
    newest = await stopped_at_three(tmp_path)
    os.replace(newest, tmp_path / "checkpoint.previous")

    assert (await loops.run(tmp_path)).resumed_at == 3


async def test_checkpoints_are_for_the_user_alone(tmp_path):
    folder = tmp_path / ".hpc-prefect" / "b"

    await loops.run(folder, rule=StopRule(value="energy", max_iterations=2))

    assert {p.name for p in folder.iterdir()} == {"checkpoint", "checkpoint.previous"}
    assert [p.stat().st_mode & 0o777 for p in folder.iterdir()] == [0o600, 0o600]
    assert [p.stat().st_mode & 0o777 for p in (folder, folder.parent)] == [0o700, 0o700]


async def test_the_first_line_of_a_checkpoint_is_for_people_and_shows_the_rule(tmp_path):
    await loops.run(tmp_path)

    header = json.loads((tmp_path / "checkpoint").read_bytes().partition(b"\n")[0])

    assert header["iterations"] == 6
    assert header["reason"] == "max_iterations"
    assert header["stop"]["value"] == "energy"


async def test_a_checkpoint_of_another_format_is_refused_and_left_alone(tmp_path):
    await loops.run(tmp_path)
    newest = tmp_path / "checkpoint"
    newest.write_bytes(newest.read_bytes().replace(b"checkpoint, 1", b"checkpoint, 9", 1))

    with pytest.raises(LedgerError, match="written by another version"):
        await loops.run(tmp_path)
    assert newest.exists()


class Vanishing:
    """A class that a later version of the user's code no longer has."""


def test_a_state_whose_class_is_gone_is_an_error_and_no_new_start(tmp_path):
    book, rule = Checkpoints(tmp_path, loops.LOG), StopRule(max_iterations=1)
    book.save(Checkpoint(state=Vanishing(), rng=None, rule=rule))
    name = Vanishing.__qualname__
    kept = globals().pop(name)
    try:
        with pytest.raises(LedgerError, match="its state cannot be loaded: AttributeError"):
            book.load()
    finally:
        globals()[name] = kept
    assert isinstance(book.load().state, Vanishing)


def test_a_state_that_holds_the_loops_generator_shares_it_after_a_resume(tmp_path):
    rng, rule = np.random.default_rng(1), StopRule(max_iterations=1)

    back = Checkpoints(tmp_path, loops.LOG).save(Checkpoint(state=[rng], rng=rng, rule=rule))

    assert back.state[0] is back.rng


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_checkpoint_of_another_user_is_not_loaded(tmp_path):
    book, rule = Checkpoints(tmp_path, loops.LOG), StopRule(max_iterations=1)
    book.save(Checkpoint(state=1, rng=None, rule=rule))
    os.chown(tmp_path / "checkpoint", 12345, 12345)

    with pytest.raises(NotOurs, match="it belongs to uid 12345"):
        book.load()


# --- functions of the user's that go wrong


@pytest.mark.parametrize("which", ["step", "measure"])
async def test_a_stop_iteration_ends_the_loop_as_an_error_and_does_not_hold_it_up_for_ever(
    tmp_path, which
):
    def empty(*_):
        return next(iter([]))

    with pytest.raises(RuntimeError, match=f"{which} raised StopIteration"):
        await asyncio.wait_for(loops.run(tmp_path, **{which: empty}), 60)


@pytest.mark.parametrize("said", ["no", math.nan, None, 0.0])
async def test_a_predicate_that_says_neither_yes_nor_no_makes_no_success(tmp_path, said):
    with pytest.raises(ConfigurationError, match=r"iteration 1: until returned .* True or False"):
        await loops.run(tmp_path, until=lambda rows: said)


async def test_numpys_truth_values_are_an_answer_of_a_predicate(tmp_path):
    result = await loops.run(tmp_path, until=lambda rows: np.bool_(len(rows) == 2))

    assert (result.iterations, result.reason) == (2, "predicate")


async def test_a_whole_number_that_no_float_holds_is_told_with_its_column(tmp_path):
    with pytest.raises(ConfigurationError, match=r"iteration 1: .* 'energy' is too large"):
        await loops.run(tmp_path, measure=lambda state: {"energy": 10**400})
