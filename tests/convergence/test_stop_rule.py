"""The stop rule: pure, so mostly properties."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from hpc_prefect.convergence import StopRule
from hpc_prefect.convergence.stop import parse_algorithm, verdict
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
        "tolerance, relative_tolerance, standard_errors, average, window, max_iterations, "
        "wall_time\n"
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
    with pytest.raises(ConfigurationError, match="window: 3 has no effect without a tolerance"):
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
        "Write the stop rule there: value, tolerance, relative_tolerance, standard_errors, "
        "average, window, max_iterations, wall_time"
    )


@pytest.mark.parametrize("value", ["text", 3, [1]])
def test_a_variable_that_is_no_object_is_refused(value):
    with pytest.raises(ConfigurationError, match="must be a JSON object"):
        parse_algorithm(value, "Variable 'sqd'")


# --- noise


def noisy(values: list[float], error: float | None) -> list[dict[str, float]]:
    errors = {} if error is None else {"value_error": error}
    return [{"value": value, **errors} for value in values]


@given(st.lists(numbers, min_size=1, max_size=12), st.integers(1, 4), st.floats(0, 10))
def test_the_change_is_that_of_means_of_disjoint_windows_with_their_error(values, average, error):
    rule = StopRule(tolerance=1, average=average, max_iterations=100)

    changed = rule.change(noisy(values, error))

    if len(values) < 2 * average:
        assert changed is None
        return
    new, old = values[-average:], values[-2 * average : -average]
    assert changed.size == pytest.approx(sum(new) / average - sum(old) / average, abs=1e-9)
    assert changed.error == pytest.approx(error * math.sqrt(2 / average))


@given(st.floats(0.01, 5), st.integers(1, 6))
def test_alternating_noise_never_ends_a_loop_alone_and_ends_it_when_it_is_averaged_away(size, half):
    values = [size * (-1) ** k for k in range(4 * half)]
    plain = StopRule(tolerance=size, max_iterations=100)
    averaged = StopRule(tolerance=size, average=2, max_iterations=100)

    assert all(plain.decide(rows(values[:n]), 0.0) is None for n in range(2, len(values) + 1))
    assert averaged.decide(rows(values), 0.0) == "tolerance"


@given(numbers, st.floats(0.001, 10))
def test_a_lucky_small_change_of_noisy_values_is_not_taken_for_convergence(value, error):
    rule = StopRule(tolerance=error, max_iterations=100)

    assert rule.decide(noisy([value, value], error), 0.0) is None
    assert rule.decide(noisy([value, value], error / 2), 0.0) == "tolerance"


@given(numbers, st.floats(0.01, 10), st.floats(-3, 3))
def test_a_change_within_its_standard_errors_is_noise_and_ends_the_loop_as_such(value, error, step):
    assume(abs(abs(step) - 2) > 1e-6)
    rule = StopRule(standard_errors=2, max_iterations=100)
    changed = noisy([value, value + step * error * math.sqrt(2)], error)

    assert rule.decide(changed, 0.0) == ("noise" if abs(step) < 2 else None)


def test_a_relative_tolerance_is_a_part_of_the_value_and_the_larger_of_both_counts():
    rule = StopRule(relative_tolerance=0.01, max_iterations=9)

    assert rule.decide(rows([100.0, 100.9]), 0.0) == "tolerance"
    assert rule.decide(rows([1.0, 1.9]), 0.0) is None
    both = StopRule(tolerance=1.0, relative_tolerance=0.01, max_iterations=9)
    assert both.decide(rows([1.0, 1.9]), 0.0) == "tolerance"


def test_a_rule_with_standard_errors_needs_a_measure_that_has_them():
    rule = StopRule(value="energy", standard_errors=2, max_iterations=9)

    with pytest.raises(ConfigurationError, match=r"return \(value, standard error\) for it"):
        rule.decide([{"energy": 1.0}], 0.0)


@pytest.mark.parametrize("reason", ["max_iterations", "wall_time"])
def test_a_loop_that_had_to_end_is_never_called_converged(reason):
    asked, plain = StopRule(tolerance=1, max_iterations=1), StopRule(max_iterations=1)

    assert verdict(asked, reason) == f"NOT converged ({reason})"
    assert verdict(plain, reason, has_predicate=True) == f"NOT converged ({reason})"
    assert verdict(plain, reason) == f"ended ({reason}); the rule has no criterion of convergence"
    assert verdict(asked, "noise") == "converged (noise)"


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
        (
            StopRule(
                value="E",
                tolerance=1e-4,
                relative_tolerance=0.01,
                standard_errors=2,
                average=3,
                max_iterations=5,
            ),
            "ends when the mean of 3 values of E changes by less than 0.0001 or 0.01 of itself or "
            "2 of its standard errors or after 5 iterations",
        ),
    ],
)
def test_a_rule_can_be_read_as_a_sentence(rule, sentence):
    assert rule.describe() == sentence
