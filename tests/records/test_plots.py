"""The pictures of a comparison; what is on them is read from the SVG's text."""

from __future__ import annotations

import math
import re
from itertools import product

import pytest

from hpc_prefect.errors import ConfigurationError
from hpc_prefect.records.compare import compare
from hpc_prefect.records.compare.plots import picture

from .built import run


def loop(start: float, count: int = 5):
    return {"sqd": [{"energy": start - i, "energy_error": 0.1, "fixed": 3} for i in range(count)]}


def texts(comparison, **options) -> list[str]:
    drawn = picture(comparison, form="svg", **options).decode()
    return re.findall(r"<text[^>]*>([^<]*)</text>", drawn)


@pytest.fixture(scope="module")
def many():
    return compare(
        [
            run(f"{bond}-{basis}-{seed}", parameters={"m": {"bond": bond}, "basis": basis,
                "seed": seed}, measures={"energy": -bond + 0.01 * seed, "name": "x"},
                iterations=loop(bond), state="failed" if (bond, seed) == (1, 1) else "completed")
            for bond, basis, seed in product((0.5, 1, 1.5, 2), ("sto-3g", "cc-pvdz"), (1, 2))
        ]
    )  # fmt: skip


def test_few_runs_are_drawn_by_iteration_with_labels_of_what_differs():
    runs = [run(name, parameters={"bond": i}, iterations=loop(i)) for i, name in enumerate("ab")]

    shown = texts(compare(runs))

    assert {"2 runs of sqd-loop by iteration", "energy", "iteration", "bond=0", "bond=1"} <= {
        *shown
    }
    assert "fixed" not in shown
    assert "energy_error" not in shown


def test_many_runs_are_drawn_against_what_varies_most(many):
    shown = texts(many)

    assert "16 runs of sqd-loop against m.bond" in shown
    assert {"basis=sto-3g", "basis=cc-pvdz", "energy", "m.bond"} <= {*shown}
    assert "bars: mean ± standard deviation; hollow: not completed" in shown


def test_without_repeats_no_bar_is_drawn_or_spoken_of():
    runs = [run(str(i), parameters={"a": i}, measures={"e": i * i}) for i in range(5)]

    assert not [text for text in texts(compare(runs)) if "deviation" in text]


def test_the_axis_and_the_measure_are_those_that_were_asked_for(many):
    assert "16 runs of sqd-loop by iteration" in texts(many, against="iteration")
    shown = texts(many, against="basis", measures=["wall_seconds"])
    assert {"sto-3g", "cc-pvdz", "wall_seconds"} <= {*shown}
    assert "energy" in texts(many, against="energy", measures=["wall_seconds"])


def test_many_lines_have_a_bar_of_colours_in_place_of_a_legend():
    runs = [run(f"r{i}", parameters={"bond": i}, iterations=loop(i)) for i in range(30)]

    shown = texts(compare(runs), against="iteration")

    assert "bond" in shown
    assert not [text for text in shown if "bond=" in text]


def test_a_long_legend_is_cut_and_says_so():
    runs = [run(f"r{i}", parameters={"kind": f"k{i}"}, iterations=loop(i)) for i in range(30)]

    assert "… and 10 more" in texts(compare(runs), against="iteration")


def test_a_log_scale_is_used_only_where_values_fill_it():
    def is_log(values):
        runs = [run(str(i), parameters={"tolerance": each}, measures={"e": i})
                for i, each in enumerate(values)]  # fmt: skip
        drawn = picture(compare(runs), form="svg", against="tolerance", measures=["e"])
        return b"mathdefault{10^" in drawn  # the ticks are powers of ten

    assert is_log([1e-1, 1e-2, 1e-3, 1e-4])
    assert not is_log([100, 200, 300, 400])
    assert not is_log([1, 100, 200, 300, 400])


@pytest.mark.parametrize("form", ["png", "svg"])
@pytest.mark.parametrize("value", [math.nan, math.inf, None, "x", 1e308, -1e308, 10**400, True])
def test_values_that_cannot_be_drawn_are_left_out(form, value):
    row = {"e": 1.0}
    one = run("a", parameters={"p": value}, measures=row, iterations={"l": [row, {"e": value}]})
    two = run("b", parameters={"p": 2}, measures={"e": value}, iterations={"l": [row, row]})
    runs = [one, two]

    for against in ("p", "iteration", ""):
        assert picture(compare(runs), form=form, against=against, measures=["e"])


def test_a_picture_is_of_the_form_that_was_asked_for_and_the_same_each_time(many):
    assert picture(many)[:8] == b"\x89PNG\r\n\x1a\n"
    assert picture(many, form="svg") == picture(many, form="svg")


def test_names_that_matplotlib_would_take_for_formulas_are_text():
    runs = [
        run(f"$x_{i}$", parameters={"_$a": f"$\\frac{i}$"}, iterations=loop(i)) for i in range(2)
    ]

    assert any("frac" in text for text in texts(compare(runs)))
    assert picture(compare(runs), against="_$a", measures=["energy"])


def test_two_long_values_with_the_same_ends_have_two_places():
    paths = [f"/scratch/ada/some/long/folder/{i}/ended/by/the/same/geometry.xyz" for i in range(3)]
    runs = [
        run(str(i), parameters={"file": path}, measures={"e": i}) for i, path in enumerate(paths)
    ]

    assert {"…/0/…", "…/1/…", "…/2/…"} <= {*texts(compare(runs), against="file")}


def test_what_is_not_there_to_be_drawn_is_said_with_what_is(many):
    with pytest.raises(
        ConfigurationError, match=r"no measure 'bnod' .*: basis, m\.bond, seed, energy"
    ):
        picture(many, against="bnod")
    with pytest.raises(
        ConfigurationError, match="no run has a number as its 'name'; there are energy"
    ):
        picture(many, measures=["name"])
    with pytest.raises(ConfigurationError, match="no loop of these runs"):
        picture(compare([run(), run()]), against="iteration")
