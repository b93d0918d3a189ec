"""Options: merged, checked, every problem at once."""

from __future__ import annotations

import numpy as np
import pytest
from circuits import bell

from hpc_prefect.errors import InvalidJob
from hpc_prefect.quantum.backends import BackendSpec, build
from hpc_prefect.quantum.options import SamplerOptions, options_of_variable, parse_options
from hpc_prefect.quantum.sampling import ask


def test_the_call_wins_over_the_variable():
    options, problems = parse_options(
        [("Variable 'quantum'", {"shots": 100, "seed": 1}), ("options", {"seed": 2})]
    )

    assert problems == []
    assert options == SamplerOptions(shots=100, seed=2)


def test_a_seed_from_numpys_generator_is_a_seed():
    seed = np.random.default_rng(1).integers(2**63)

    assert parse_options([("options", {"seed": seed})]) == (SamplerOptions(seed=int(seed)), [])


def test_a_shared_variable_keeps_the_options_under_sampler():
    shared = {"sampler": {"shots": 100}, "circuit": {"n_reps": 1}}

    assert options_of_variable(shared) == {"shots": 100}
    assert options_of_variable({"shots": 100}) == {"shots": 100}


def test_all_problems_with_options_are_told_at_once():
    options, problems = parse_options(
        [
            ("Variable 'quantum'", {"shot": 100, "seed": "1", "zzz": 0}),
            ("options", {"shots": 0, "depolarizing": 2, "optimization_level": True}),
        ]
    )

    assert options is None
    known = (
        "depolarizing, max_execution_time, optimization_level, runtime, seed, seed_transpiler,"
        " shots"
    )
    assert problems == [
        "Variable 'quantum': there is no option 'shot'; did you mean 'shots'?",
        f"Variable 'quantum': there is no option 'zzz'; there are: {known}",
        "Variable 'quantum': seed should be a valid integer, not '1'",
        "options: optimization_level should be a valid integer, not True",
        "options: shots should be greater than or equal to 1, not 0",
        "options: depolarizing should be less than or equal to 1, not 2",
    ]


def test_a_variable_that_is_no_object_is_refused():
    assert parse_options([("Variable 'quantum'", 1000)]) == (
        None,
        ["Variable 'quantum': must be a JSON object of options, not 1000"],
    )


def test_a_simulator_without_a_seed_and_pubs_without_shots_are_refused_together():
    with pytest.raises(InvalidJob) as refused:
        ask([bell(), (bell(), [1.0])], SamplerOptions(depolarizing=0.1), build(BackendSpec()))

    assert str(refused.value) == (
        "sampling: 4 problems, nothing was submitted:\n"
        "  - seed: the simulator aer needs one, so that the run can be repeated; put"
        ' "seed": 1234 into the Variable, or pass options={"seed": 1234}\n'
        "  - depolarizing: the simulator aer cannot honour it; it takes shots, seed\n"
        '  - pub 0: no shots; give the PUB its own, put "shots": 1000 into the Variable, or pass'
        ' options={"shots": 1000}\n'
        "  - pub 1: Length of () inconsistent with last dimension of [1.]"
    )


@pytest.mark.parametrize(
    ("pubs", "message"),
    [
        (bell(), "pubs: this is one circuit; pass a list of PUBs, such as [circuit]"),
        ([], "pubs: there is none; pass at least one"),
        (
            [bell().remove_final_measurements(inplace=False)],
            "pub 0: the circuit measures nothing; add measurements",
        ),
    ],
)
def test_pubs_that_cannot_be_sampled_are_refused(pubs, message):
    with pytest.raises(InvalidJob) as refused:
        ask(pubs, SamplerOptions(shots=1, seed=1), build(BackendSpec()))

    assert refused.value.problems == (message,)
