"""What people see of a loop: log line, rows, plot."""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path

import pytest

from hpc_prefect.convergence import Plot, StopRule
from hpc_prefect.convergence.telemetry import (
    CHART_ROWS,
    TABLE_ROWS,
    chart,
    draw,
    jsonl,
    line,
    table,
)

EXACT = -109.0421537


def rows(count: int, factor: float = 0.4) -> list[dict[str, float | int | str | None]]:
    values = [EXACT + 0.02 * factor**k for k in range(count)]
    return [
        {
            "iteration": k + 1,
            "energy": value,
            "baseline": EXACT + 0.05,
            "change": value - values[k - 1] if k else None,
            "seconds": 2.125,
            "time": "2026-01-01T00:00:00+00:00",
        }
        for k, value in enumerate(values)
    ]


def test_a_row_is_one_line_with_enough_digits_for_a_microhartree():
    shown = line(rows(2)[1])

    assert shown == (
        "iteration 2: energy=-109.0341537 baseline=-108.9921537 change=-0.012 (2.125 s)"
    )


def test_a_standard_error_stands_behind_its_value():
    row = rows(1)[0] | {"energy": -1.25, "energy_error": 0.0123}

    assert "energy=-1.25±0.012 baseline" in line(row)


def test_the_chart_of_text_says_how_the_loop_ended_and_has_no_picture_in_it():
    rule = StopRule(value="energy", max_iterations=40)
    title = "n2: iteration 40, NOT converged (max_iterations)"

    shown = chart(rows(40), rule, Plot(unit="Ha"), title, Path("/w/n2.png"))

    lines = shown.splitlines()
    assert lines[0] == "## n2: iteration 40, NOT converged (max_iterations)"
    assert len([each for each in lines if "█" in each]) == CHART_ROWS
    assert "| 40 |" in shown
    assert "base64" not in shown
    assert "The plot: `/w/n2.png`" in shown


def test_every_number_of_the_table_is_json_that_a_browser_accepts():
    row = {"a": math.nan, "b": math.inf, "c": 2**60, "d": True, "e": None, "f": 0.1, "g": "x"}

    def refuse(word):
        raise AssertionError(f"bare {word}")

    back = json.loads(json.dumps(table([row])), parse_constant=refuse)

    assert back == [
        {"a": "nan", "b": "inf", "c": str(2**60), "d": True, "e": None, "f": 0.1, "g": "x"}
    ]
    assert json.loads(jsonl([row])) == back[0]


def test_a_long_loops_table_shows_its_newest_rows():
    shown = table(rows(TABLE_ROWS + 5))

    assert [shown[0]["iteration"], shown[-1]["iteration"]] == [6, TABLE_ROWS + 5]


@pytest.mark.parametrize("count", [1, 2, 40])
@pytest.mark.parametrize(
    "plot",
    [
        Plot(),
        Plot(unit="Ha"),
        Plot(columns=("energy", "baseline"), reference={"exact": EXACT}, target=1.6e-3, unit="Ha"),
        Plot(columns=("energy", "no such column"), reference={"a": 0, "b": 1, "c": 2, "d": 3}),
    ],
)
def test_a_plot_of_any_length_is_a_small_png(count, plot):
    rule = StopRule(value="energy", tolerance=1e-4, max_iterations=50)

    picture = draw(rows(count), rule, plot, "n2: iteration 3")

    assert picture[:8] == b"\x89PNG\r\n\x1a\n"
    assert struct.unpack(">II", picture[16:24]) == (700, 600)
    assert len(picture) < 40_000


@pytest.mark.parametrize("values", [[math.nan, math.inf], [1.0, 1.0, 1.0], [1e300, -1e300], ["x"]])
def test_values_that_cannot_be_drawn_are_left_out_and_the_plot_is_still_made(values):
    history = [{"iteration": k, "energy": value, "change": 0.0} for k, value in enumerate(values)]
    rule = StopRule(value="energy", max_iterations=50)

    for plot in (Plot(), Plot(reference={"exact": 1.0})):
        assert draw(history, rule, plot, "x")
        assert chart(history, rule, plot, "x", None)


def test_a_plot_with_standard_errors_is_drawn_and_is_another_one():
    rule = StopRule(value="energy", tolerance=1e-4, max_iterations=50)
    plain = rows(8)
    noisy = [row | {"energy_error": 0.002} for row in plain]

    assert draw(plain, rule, Plot(), "x") != draw(noisy, rule, Plot(), "x")
