"""The stop rule: pure, so mostly properties."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from hpc_prefect.convergence import StopRule
from hpc_prefect.convergence.stop import parse_algorithm
from hpc_prefect.errors import ConfigurationError, NotConverged

numbers = st.floats(-200, 200)
rules = st.builds(
    lambda tolerance, window, most, wall: StopRule(
        tolerance=tolerance,
        window=1 if tolerance is None else window,
        max_iterations=most,
        wall_time=wall,
    ),
    st.none() | st.floats(1e-6, 50),
    st.integers(1, 4),
    st.integers(1, 8),
    st.sampled_from(["", "00:01:00", "1-00:00:00"]),
)


def rows(values: list[float]) -> list[dict[str, float]]:
    return [{"value": value} for value in values]


@given(rules, st.lists(numbers, max_size=8), st.floats(0, 1e5))
def test_the_reason_is_what_the_rule_says_and_the_tolerance_comes_first(rule, values, elapsed):
    changes = [abs(b - a) for a, b in itertools.pairwise(values)]
    settled = (
        rule.tolerance is not None
        and len(changes) >= rule.window
        and max(changes[-rule.window :]) < rule.tolerance
    )
    limit = {"": math.inf, "00:01:00": 60, "1-00:00:00": 86400}[rule.wall_time]

    reason = rule.decide(rows(values), elapsed)

    if not values:
        assert reason is None
    elif settled:
        assert reason == "tolerance"
    elif len(values) >= rule.max_iterations:
        assert reason == "max_iterations"
    else:
        assert reason == ("wall_time" if elapsed >= limit else None)


@given(st.floats(1e-6, 1), st.integers(1, 5), numbers)
def test_a_value_that_stands_still_ends_the_loop_after_window_changes_and_never_before(
    tolerance, window, value
):
    rule = StopRule(tolerance=tolerance, window=window, max_iterations=100)

    ends = [rule.decide(rows([value] * count), 0.0) for count in range(1, window + 2)]

    assert ends == [None] * window + ["tolerance"]


@given(st.lists(numbers, min_size=3, max_size=8), st.integers(1, 6))
def test_one_large_change_inside_the_window_keeps_the_loop_going(values, window):
    assume(window < len(values))
    values[-2] = values[-1] + 1.0
    rule = StopRule(tolerance=0.5, window=window, max_iterations=100)

    assert rule.decide(rows(values), 0.0) is None


@given(st.lists(numbers, max_size=3), st.sampled_from([math.nan, math.inf, -math.inf]))
def test_a_value_that_is_no_number_is_an_error_that_names_the_iteration(values, bad):
    rule = StopRule(tolerance=1e-3, max_iterations=100)

    with pytest.raises(NotConverged, match=f"iteration {len(values) + 1}: value is {bad}"):
        rule.decide(rows([*values, bad]), 0.0)


def test_a_missing_column_is_named_with_the_one_that_is_near():
    rule = StopRule(value="energy", max_iterations=2)

    with pytest.raises(ConfigurationError) as caught:
        rule.decide([{"energie": 1.0, "dimension": 4}], 0.0)

    assert str(caught.value) == (
        "iteration 1: measure returned no column 'energy', which the stop rule watches "
        "(did you mean 'energie'?); it returned 'energie', 'dimension'"
    )


@pytest.mark.parametrize("value", [True, "low", None])
def test_a_watched_column_that_holds_no_number_is_an_error(value):
    with pytest.raises(ConfigurationError, match="a number is needed"):
        StopRule(max_iterations=2).decide([{"value": value}], 0.0)


def test_all_problems_of_a_rule_are_told_at_once():
    wrong = {
        "tolerence": 1e-4,
        "value": "",
        "tolerance": -1,
        "window": 0,
        "max_iterations": 2.5,
        "wall_time": "90",
    }

    with pytest.raises(ConfigurationError) as caught:
        StopRule.parse(wrong, "Variable 'sqd', 'stop'")

    assert str(caught.value) == (
        "Variable 'sqd', 'stop': 6 problems, nothing was started:\n"
        "  - tolerence: there is no such key (did you mean 'tolerance'?); there are value, "
        "tolerance, window, max_iterations, wall_time\n"
        "  - value: must be the name of a measured column, not ''\n"
        "  - tolerance: must be a number above 0, or null for none, not -1\n"
        "  - window: must be a whole number from 1, not 0\n"
        "  - max_iterations: must be a whole number from 1, not 2.5\n"
        "  - wall_time: '90': write HH:MM:SS (or D-HH:MM:SS), such as 01:30:00"
    )


def test_a_rule_without_an_end_is_refused():
    with pytest.raises(ConfigurationError, match="max_iterations: missing"):
        StopRule.parse({"tolerance": 1e-4}, "stop")


def test_a_window_without_a_tolerance_is_refused():
    with pytest.raises(ConfigurationError, match="window: 3 means nothing without a tolerance"):
        StopRule(window=3, max_iterations=5)


def test_a_variable_holds_the_rule_under_stop_and_the_flows_parameters_beside_it():
    variable = {"samples": 500, "stop": {"value": "energy", "max_iterations": 3}}

    rule, parameters = parse_algorithm(variable, "Variable 'sqd'")

    assert rule == StopRule(value="energy", max_iterations=3)
    assert parameters == {"samples": 500}


def test_a_variable_may_be_the_rule_itself():
    rule, parameters = parse_algorithm({"max_iterations": 3}, "Variable 'sqd'")

    assert (rule, parameters) == (StopRule(max_iterations=3), {})


def test_a_variable_without_a_rule_is_told_where_to_write_it():
    with pytest.raises(ConfigurationError) as caught:
        parse_algorithm({"samples": 5, "stpo": {"max_iterations": 3}}, "Variable 'sqd'")

    assert str(caught.value) == (
        "Variable 'sqd': has no object 'stop' (is 'stpo' meant?); its keys are 'samples', 'stpo'. "
        "Write the stop rule there: value, tolerance, window, max_iterations, wall_time"
    )


@pytest.mark.parametrize("value", ["text", 3, [1]])
def test_a_variable_that_is_no_object_is_refused(value):
    with pytest.raises(ConfigurationError, match="must be a JSON object"):
        parse_algorithm(value, "Variable 'sqd'")


@given(rules)
def test_a_rule_survives_its_own_json(rule):
    assert StopRule.parse(rule.as_dict(), "x") == rule


@pytest.mark.parametrize(
    ("rule", "sentence"),
    [
        (StopRule(max_iterations=5), "ends after 5 iterations"),
        (
            StopRule(value="E", tolerance=1e-4, window=2, max_iterations=5, wall_time="01:00:00"),
            "ends when E changes by less than 0.0001 over 2 iterations or after 5 iterations or "
            "after 01:00:00 of wall time",
        ),
    ],
)
def test_a_rule_can_be_read_as_a_sentence(rule, sentence):
    assert rule.describe() == sentence
