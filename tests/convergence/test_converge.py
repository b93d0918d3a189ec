"""`converge()` under Prefect: Variable, log, artifacts, retries and resumed runs."""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import sys
import threading
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from hpc_prefect.convergence import Plot, StopRule, converge
from hpc_prefect.convergence.telemetry import draw
from hpc_prefect.errors import ConfigurationError, NotConverged
from hpc_prefect.server import Server

from ..background import settle

pytestmark = pytest.mark.usefixtures("prefect_server")

RULE = StopRule(value="energy", tolerance=0.01, max_iterations=20)


def halve(state: float, it: Any) -> float:
    return state / 2 + it.rng.random() / 1000


def energy(state: float) -> dict[str, float]:
    return {"energy": state, "baseline": 2.0}


class Broken(Exception):
    """What breaks a flow."""


def rows_on_disk(work_dir: Path) -> list[dict[str, Any]]:
    (path,) = work_dir.glob(".hpc-prefect/*/*/*/iterations.jsonl")
    return [json.loads(text) for text in path.read_text().splitlines()]


async def artifacts_of(server: Server, flow_run_id: Any) -> dict[str, Any]:
    """The artifacts of a run that has ended, once all of them are sent."""
    await asyncio.to_thread(settle)
    async with httpx.AsyncClient() as client:  # Prefect's own client sends a null that is refused
        answer = await client.post(
            f"{server.url}/artifacts/filter",
            json={"flow_runs": {"id": {"any_": [str(flow_run_id)]}}, "limit": 100},
        )
    found = answer.raise_for_status().json()
    assert len({artifact["key"] for artifact in found}) == len(found), "one artifact of each key"
    return {artifact["key"]: artifact for artifact in found}


async def test_a_loop_in_a_flow_leaves_rows_a_table_and_a_plot_on_disk_and_in_the_ui(
    tmp_path, prefect_server
):
    from prefect import flow
    from prefect.context import FlowRunContext

    told: list[Any] = []

    @flow(name="converge-shown")
    async def shown():
        result = await converge(
            halve,
            1.0,
            measure=energy,
            work_dir=tmp_path,
            stop=RULE,
            seed=7,
            name="N2.demo",
            plot=Plot(columns=("energy", "baseline"), reference={"exact": 0.0}, unit="Ha"),
            on_iteration=told.append,
        )
        return result, FlowRunContext.get().flow_run.id

    result, run_id = await shown()
    artifacts = await artifacts_of(prefect_server, run_id)

    assert result.converged
    assert [row["iteration"] for row in told] == list(range(1, result.iterations + 1))
    assert rows_on_disk(tmp_path) == told == list(result.history)
    assert result.plot == tmp_path / "N2.demo.png"
    shown = json.loads(artifacts["n2-demo-iterations"]["data"])
    assert [(row["iteration"], f"{row['energy']:.10g}") for row in shown] == [
        (row["iteration"], f"{row['energy']:.10g}") for row in told
    ]
    plot = artifacts["n2-demo-plot"]
    assert plot["data"].startswith(f"## N2.demo: iteration {result.iterations}, converged (tol")
    assert str(result.plot) in plot["data"]
    assert "base64" not in plot["data"]
    assert "changes by less than 0.01" in plot["description"]
    assert result.plot.read_bytes().startswith(b"\x89PNG")


async def test_that_a_loop_has_not_converged_is_said_everywhere(tmp_path, prefect_server, caplog):
    from prefect import flow
    from prefect.context import FlowRunContext

    rule = StopRule(value="energy", tolerance=1e-9, max_iterations=2)

    @flow(name="converge-not")
    async def loop():
        result = await converge(halve, 1.0, measure=energy, work_dir=tmp_path, stop=rule, seed=7)
        return result, FlowRunContext.get().flow_run.id

    result, run_id = await loop()
    artifacts = await artifacts_of(prefect_server, run_id)

    said = "NOT converged (max_iterations)"
    assert (result.converged, result.verdict) == (False, said)
    assert f"loop 'converge' after 2 iterations: {said}" in caplog.text
    for which in ("iterations", "plot"):
        artifact = artifacts[f"converge-{which}"]
        assert f"converge: iteration 2, {said}. It ends when" in artifact["description"]
    assert artifacts["converge-plot"]["data"].startswith(f"## converge: iteration 2, {said}")
    with pytest.raises(NotConverged, match=r"2 iterations: NOT converged \(max_iterations\)"):
        result.raise_if_not_converged()


async def test_a_predicate_of_the_users_ends_the_loop_as_converged(tmp_path):
    seen: list[int] = []

    def until(rows: Any) -> bool:
        seen.append(len(rows))
        return rows[-1]["energy"] < 0.2

    result = await converge(
        halve,
        1.0,
        measure=energy,
        work_dir=tmp_path,
        stop=StopRule(value="energy", max_iterations=20),
        until=until,
        seed=7,
        raise_if_not_converged=True,
    )

    assert seen == [1, 2, 3]
    assert (result.converged, result.reason) == (True, "predicate")


async def test_a_measure_may_give_standard_errors_and_the_loop_ends_in_the_noise(tmp_path):
    rule = StopRule(value="energy", standard_errors=2, max_iterations=30)

    result = await converge(
        halve,
        1.0,
        measure=lambda state: {"energy": (state, 0.01), "dimension": 4},
        work_dir=tmp_path,
        stop=rule,
        seed=7,
    )

    assert (result.converged, result.reason) == (True, "noise")
    assert result.history[0]["energy_error"] == 0.01
    assert 0.01 < abs(result.history[-1]["change"]) < 2 * 0.01 * 2**0.5


@pytest.mark.parametrize("measured", [(1.0,), (1.0, -0.1), (1.0, float("nan")), ("x", 0.1)])
async def test_a_pair_that_is_no_value_with_its_standard_error_is_refused(tmp_path, measured):
    with pytest.raises(ConfigurationError, match="a pair is a value and its standard error"):
        await converge(
            halve,
            1.0,
            measure=lambda state: {"energy": measured},
            work_dir=tmp_path,
            stop=RULE,
            seed=7,
        )


async def test_an_iterations_folder_is_the_same_one_after_a_resume(tmp_path):
    from prefect import flow

    folders: list[Path] = []

    def step(state: float, it: Any) -> float:
        folders.append(it.folder)
        (it.folder / "notes.txt").write_text(f"try {len(folders)}")
        if len(folders) == 2:
            raise Broken
        return halve(state, it)

    @flow(name="converge-folders", retries=1)
    async def loop():
        rule = StopRule(value="energy", max_iterations=2)
        return await converge(step, 1.0, measure=energy, work_dir=tmp_path, stop=rule, seed=7)

    result = await loop()

    first, broken, again = folders
    assert (first.name, broken.name) == ("iter-1", "iter-2")
    assert again == broken
    assert (again / "notes.txt").read_text() == "try 3"
    assert broken.parent == result.folder
    assert broken.stat().st_mode & 0o777 == 0o700


async def test_a_loop_in_a_plain_script_needs_no_run(tmp_path, caplog):
    caplog.set_level(logging.INFO, "hpc_prefect.convergence")

    result = await converge(halve, 1.0, measure=energy, work_dir=tmp_path, stop=RULE, seed=7)

    lines = [r.message for r in caplog.records if r.message.startswith("converge iteration")]
    assert len(lines) == result.iterations
    assert lines[1].startswith("converge iteration 2: energy=0.25")
    assert "failed" not in caplog.text


async def test_one_seed_gives_one_history_and_another_seed_another(tmp_path):
    async def energies(folder: str, seed: int) -> list[Any]:
        result = await converge(
            halve, 1.0, measure=energy, work_dir=tmp_path / folder, stop=RULE, seed=seed
        )
        return [row["energy"] for row in result.history]

    assert await energies("a", 7) == await energies("b", 7) != await energies("c", 8)


async def test_a_changed_variable_does_not_change_a_loop_that_is_resumed(tmp_path):
    from prefect import flow
    from prefect.variables import Variable

    async def save(most: int, scale: int) -> None:
        value = {"scale": scale, "stop": {"value": "energy", "max_iterations": most}}
        await Variable.aset("converge_changed", value, overwrite=True)

    broken: list[int] = []
    scales: list[int] = []

    async def step(state: float, it: Any) -> float:
        scales.append(it.parameters["scale"])
        if it.number == 3 and not broken:
            broken.append(3)
            raise Broken
        return halve(state, it)

    @flow(name="converge-variable")
    async def loop():
        return await converge(
            step,
            1.0,
            measure=energy,
            work_dir=tmp_path,
            stop_variable_name="converge_changed",
            seed=7,
        )

    await save(5, 10)
    with pytest.raises(Broken):
        await loop()
    await save(2, 99)
    result = await loop()

    assert (result.iterations, result.resumed_at) == (5, 3)
    assert set(scales) == {10}
    assert json.loads(next(tmp_path.glob(".hpc-prefect/*/*/*/loop.json")).read_text()) == {
        "name": "converge",
        "seed": 7,
        "entropy": "7",
        "stop": StopRule(value="energy", max_iterations=5).as_dict(),
        "stop_variable_name": "converge_changed",
        "parameters": {"scale": 10},
    }


async def test_a_loop_that_was_over_says_that_it_keeps_the_rule_that_it_had(tmp_path, caplog):
    from prefect import flow

    from hpc_prefect import campaign

    @flow(name="converge-over")
    async def loop(most: int):
        return await converge(
            halve,
            1.0,
            measure=energy,
            work_dir=tmp_path,
            stop=StopRule(value="energy", max_iterations=most),
            seed=np.int64(7),
        )

    with campaign("over"):
        results = [await loop(most) for most in (2, 5)]

    assert [result.iterations for result in results] == [2, 2]
    assert "stop ends after 5 iterations now, but loop 'converge' keeps the" in caplog.text


async def test_a_missing_variable_is_an_error_with_the_names_that_are_near(tmp_path):
    from prefect.variables import Variable

    await Variable.aset("sqd_algorithm", {"stop": {"max_iterations": 2}}, overwrite=True)

    with pytest.raises(
        ConfigurationError, match="no Prefect Variable 'sqd_algoritm'; near it there are sqd_algo"
    ):
        await converge(
            halve, 1.0, measure=energy, work_dir=tmp_path, stop_variable_name="sqd_algoritm"
        )


async def test_a_flow_killed_in_an_iteration_and_started_again_ends_at_the_same_last_bit(tmp_path):
    async def start(folder: str, kill_at: int) -> tuple[int | None, str]:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            Path(__file__).with_name("killed_flow.py"),
            tmp_path / folder,
            str(kill_at),
            stdout=asyncio.subprocess.PIPE,
        )
        out, _ = await process.communicate()
        return process.returncode, out.decode()

    (code, _), (_, whole) = await asyncio.gather(start("killed", 3), start("whole", 0))
    _, resumed = await start("killed", 0)

    assert code == -signal.SIGKILL
    assert json.loads(resumed) == {"resumed_at": 3, "values": json.loads(whole)["values"]}


async def test_a_flow_that_is_retried_goes_on_where_it_broke(tmp_path):
    from prefect import flow

    seen: list[int] = []

    def step(state: float, it: Any) -> float:
        seen.append(it.number)
        if seen == [1, 2, 3]:
            raise Broken
        return halve(state, it)

    @flow(name="converge-retried", retries=1)
    async def loop():
        rule = StopRule(value="energy", max_iterations=4)
        return await converge(step, 1.0, measure=energy, work_dir=tmp_path, stop=rule, seed=7)

    result = await loop()

    assert seen == [1, 2, 3, 3, 4]
    assert (result.resumed_at, result.iterations) == (3, 4)


async def test_a_finished_loop_of_a_flow_that_broke_later_is_returned_at_once(tmp_path):
    from prefect import flow

    seen: list[int] = []

    def step(state: float, it: Any) -> float:
        seen.append(it.number)
        return halve(state, it)

    @flow(name="converge-finished", retries=1)
    async def loop():
        rule = StopRule(value="energy", max_iterations=2)
        result = await converge(step, 1.0, measure=energy, work_dir=tmp_path, stop=rule, seed=7)
        if result.resumed_at is None:
            raise Broken
        return result

    result = await loop()

    assert seen == [1, 2]
    assert (result.resumed_at, result.iterations) == (3, 2)


async def test_loops_side_by_side_keep_their_own_checkpoints(tmp_path):
    from prefect import flow

    @flow(name="converge-gather")
    async def loops():
        return await asyncio.gather(
            *(
                converge(halve, start, measure=energy, work_dir=tmp_path, stop=RULE, seed=7)
                for start in (1.0, 1.0, 64.0)
            )
        )

    results = await loops()

    assert len(list(tmp_path.glob(".hpc-prefect/*/*/*/checkpoint"))) == 3
    assert results[0].state == results[1].state
    assert results[2].history[0]["energy"] > 32


async def test_steps_may_be_prefect_tasks_sync_or_async(tmp_path):
    from prefect import flow, task

    @task
    def sync_step(state, it):
        return halve(state, it)

    @task
    async def async_step(state, it):
        return halve(state, it)

    @flow(name="converge-tasks")
    async def loops():
        return [
            await converge(
                step, 1.0, measure=energy, work_dir=tmp_path, stop=RULE, seed=7, name=name
            )
            for name, step in (("one", sync_step), ("two", async_step))
        ]

    one, two = await loops()

    assert one.converged
    assert one.state == two.state


async def test_a_plot_that_cannot_be_written_is_logged_and_breaks_nothing(tmp_path, caplog):
    (tmp_path / "converge.png").mkdir()

    result = await converge(halve, 1.0, measure=energy, work_dir=tmp_path, stop=RULE, seed=7)

    assert result.converged
    assert result.plot is None
    assert "the plot of loop 'converge' failed" in caplog.text


async def test_the_next_iteration_does_not_wait_for_the_plot_and_the_end_does(tmp_path):
    """The first plot is under way until the second iteration runs."""
    inside, second, png = threading.Event(), threading.Event(), tmp_path / "converge.png"
    waited = []

    class Slow(float):
        """A reference value that the plot reads slowly."""

        def __float__(self) -> float:
            inside.set()
            waited.append(second.wait(30))
            return 0.0

    async def step(state: float, it: Any) -> float:
        if it.number == 2:
            assert await asyncio.to_thread(inside.wait, 60)
            assert not waited
            second.set()
        return halve(state, it)

    rule = StopRule(value="energy", tolerance=1e-9, max_iterations=2)
    plot = Plot(reference={"exact": Slow()})
    result = await converge(
        step, 1.0, measure=energy, work_dir=tmp_path, stop=rule, plot=plot, seed=7
    )

    title = f"converge: iteration 2, {result.verdict}"
    assert result.plot == png
    assert png.read_bytes() == draw(result.history, rule, plot, title)


async def test_a_loop_that_is_to_converge_and_does_not_is_an_error(tmp_path):
    rule = StopRule(value="energy", tolerance=1e-9, max_iterations=3)

    with pytest.raises(NotConverged, match=r"after 3 iterations: NOT converged \(max_iterations\)"):
        await converge(
            halve,
            1.0,
            measure=energy,
            work_dir=tmp_path,
            stop=rule,
            seed=7,
            raise_if_not_converged=True,
        )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "give either stop or stop_variable_name; neither was given"),
        ({"stop": RULE, "stop_variable_name": "x"}, "both were given"),
        ({"stop": {"max_iterations": 3}}, "must be a StopRule .* not a dict"),
        ({"stop": RULE, "name": "../n2"}, "name '../n2': it names files"),
        ({"stop": RULE, "seed": -1}, "seed -1: give a whole number from 0"),
        ({"stop": RULE, "seed": "1"}, "seed '1': give a whole number from 0"),
        ({"stop": RULE, "seed": 1.5}, "seed 1.5: give a whole number from 0"),
        ({"stop": RULE, "step": 5}, "step: must be a function, not a int"),
    ],
)
async def test_a_call_that_makes_no_sense_is_refused_before_anything_is_written(
    tmp_path, options, message
):
    options = dict(options)
    step = options.pop("step", halve)
    with pytest.raises(ConfigurationError, match=message):
        await converge(step, 1.0, measure=energy, work_dir=tmp_path, **options)

    assert not list(tmp_path.iterdir())


async def test_a_state_without_a_digest_and_a_key_of_the_users_both_find_their_checkpoint(tmp_path):
    from prefect import flow

    class Opaque:
        def __reduce__(self):
            return float, (1.0,)

    failed: list[int] = []
    starts = iter([0.1, 0.2])

    def step(state: float, it: Any) -> float:
        if it.number == 2 and len(failed) < 1:
            failed.append(2)
            raise Broken
        return halve(state, it)

    @flow(name="converge-keys", retries=1)
    async def loop():
        keyed = await converge(
            halve, next(starts), measure=energy, work_dir=tmp_path, stop=RULE, seed=7, key="a"
        )
        opaque = await converge(
            step, Opaque(), measure=energy, work_dir=tmp_path, stop=RULE, seed=7
        )
        return keyed, opaque

    keyed, opaque = await loop()

    assert keyed.resumed_at == keyed.iterations + 1
    assert opaque.resumed_at == 2
