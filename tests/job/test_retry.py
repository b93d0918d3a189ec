"""What another attempt gets."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpc_prefect.job.failure import Reason, Verdict
from hpc_prefect.job.retry import NextAttempt, RetryPolicy, next_attempt
from hpc_prefect.job.spec import Executable, JobSpec, Resources, Site

G = 2**30
POLICY = RetryPolicy()


def spec(resources: Resources | None = None, **limits: Any) -> JobSpec:
    return JobSpec(
        name="diag",
        command_name="diag",
        executable=Executable(path="/opt/diag"),
        site=Site(scheduler="slurm", **limits),
        resources=resources or Resources(memory_per_node=4 * G, walltime=600),
        work_dir="/work",
    )


def after(
    reason: Reason, job: JobSpec | None = None, last: Resources | None = None, **policy: Any
) -> NextAttempt:
    job = job or spec()
    why = Verdict(reason=reason, summary="")
    return next_attempt(RetryPolicy(**policy), job, last or job.resources, why)


@pytest.mark.parametrize("reason", [Reason.NODE_FAILURE, Reason.PREEMPTED])
def test_what_the_machine_did_is_tried_again_as_it_was(reason: Reason) -> None:
    step = after(reason)
    assert step == NextAttempt(spec().resources, f"with the same resources, after “{reason}”")


def test_out_of_memory_gets_twice_the_memory() -> None:
    step = after(Reason.OUT_OF_MEMORY)
    assert step.resources == dataclasses.replace(spec().resources, memory_per_node=8 * G)
    assert step.words == "memory 4G → 8G"


def test_out_of_memory_gets_no_more_than_a_node_has() -> None:
    job = spec(memory_per_node=6 * G)
    step = after(Reason.OUT_OF_MEMORY, job)
    assert step.words == "memory 4G → 6G"
    assert after(Reason.OUT_OF_MEMORY, job, step.resources) == NextAttempt(
        None, "none: it ran out of memory with 6G, which is all that a node of this HPC profile has"
    )


def test_without_a_memory_there_is_nothing_to_raise() -> None:
    assert after(Reason.OUT_OF_MEMORY, spec(Resources())).words == (
        "none: it ran out of memory, and memory_per_node, which could be raised, is not set"
    )


def test_walltime_gets_more_up_to_the_profiles_limit() -> None:
    job = spec(max_walltime=900)
    step = after(Reason.WALLTIME, job)
    assert step.words == "walltime 00:10:00 → 00:15:00"
    assert after(Reason.WALLTIME, job, step.resources) == NextAttempt(
        None,
        "none: it exceeded a walltime of 00:15:00,"
        " which is the longest that this HPC profile allows",
    )


def test_the_factors_are_the_users() -> None:
    assert after(Reason.WALLTIME, walltime_factor=1.5).words == "walltime 00:10:00 → 00:15:00"
    assert after(Reason.OUT_OF_MEMORY, memory_factor=1) == NextAttempt(
        None, "none: it ran out of memory with 4G, and the retry policy gives it no more"
    )


def test_what_was_gained_for_one_reason_is_kept_after_another() -> None:
    more = dataclasses.replace(spec().resources, memory_per_node=8 * G)
    step = after(Reason.WALLTIME, last=more)
    assert step.resources == dataclasses.replace(more, walltime=1200)
    assert after(Reason.PREEMPTED, last=more).resources == more


def test_what_a_person_asked_for_meanwhile_is_not_taken_away() -> None:
    asked = spec(Resources(memory_per_node=32 * G, walltime=600))
    step = after(Reason.OUT_OF_MEMORY, asked, Resources(memory_per_node=4 * G, walltime=600))
    assert step.resources == asked.resources


@pytest.mark.parametrize("reason", sorted(set(Reason) - POLICY.reasons))
def test_no_other_reason_is_repeated_by_itself(reason: Reason) -> None:
    assert after(reason) == NextAttempt(
        None, f"none: a job is not run again by itself after “{reason}”"
    )


def test_a_program_error_is_repeated_only_for_who_asks_for_it() -> None:
    assert Reason.PROGRAM_FAILED not in POLICY.reasons
    asked_for = after(Reason.PROGRAM_FAILED, reasons=frozenset({"program failed"}))
    assert asked_for.resources == spec().resources


@pytest.mark.parametrize("name", ["memory_factor", "walltime_factor"])
@pytest.mark.parametrize("value", [0.5, 0, -1, float("inf"), float("nan")])
def test_a_factor_that_gives_less_is_refused(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=name):
        RetryPolicy(**{name: value})


@given(
    st.sampled_from(sorted(POLICY.reasons)),
    st.integers(0, 64 * G),
    st.integers(1, 10**6),
    st.integers(0, 64 * G),
    st.integers(0, 10**6),
)
def test_attempts_come_to_an_end_and_never_pass_a_limit_or_get_less(
    reason: Reason, memory: int, walltime: int, most_memory: int, longest: int
) -> None:
    asked = Resources(
        memory_per_node=min(memory, most_memory) if most_memory else memory,
        walltime=min(walltime, longest) if longest else walltime,
    )
    job = spec(asked, memory_per_node=most_memory, max_walltime=longest)
    last, step = asked, after(reason, job)
    for _ in range(5):
        if step.resources is None:
            return
        now = step.resources
        assert now.memory_per_node >= last.memory_per_node
        assert now.walltime >= last.walltime
        assert not most_memory or now.memory_per_node <= most_memory
        assert not longest or now.walltime <= longest
        assert now != last or reason not in (Reason.OUT_OF_MEMORY, Reason.WALLTIME)
        last, step = now, after(reason, job, now)
