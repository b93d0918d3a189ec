"""Slurm's own lines in a job's output, as a real Slurm 22.05 wrote them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpc_prefect.job.failure import Reason

from .slurm_rig import (
    FOLDER,
    SLURM,
)


@pytest.mark.parametrize(
    ("name", "reason", "words"),
    [
        ("time", Reason.WALLTIME, "DUE TO TIME LIMIT ***"),
        ("timesrun", Reason.WALLTIME, "DUE TO TIME LIMIT ***"),
        ("preempt", Reason.PREEMPTED, "DUE TO PREEMPTION ***"),
        ("node", Reason.NODE_FAILURE, "DUE TO NODE FAILURE, SEE SLURMCTLD LOG FOR DETAILS ***"),
        ("oomcg", Reason.OUT_OF_MEMORY, "killed by the cgroup out-of-memory handler."),
        ("oomcgsrun", Reason.OUT_OF_MEMORY, "srun: error: n1: task 0: Out Of Memory"),
        ("oompoll", Reason.OUT_OF_MEMORY, "slurmstepd-n1: error: Exceeded job memory limit"),
    ],
)
def test_what_slurm_writes_about_an_end_is_read(name: str, reason: Reason, words: str) -> None:
    told = SLURM.read_output((FOLDER / "output" / f"{name}.txt").read_text())
    assert told is not None
    assert told.reason is reason
    assert told.words.endswith(words)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "JOB 7 CANCELLED DUE TO TIME LIMIT",
        "error: Out Of Memory",
        "my slurmstepd: error: DUE TO PREEMPTION",
        "Exceeded job memory limit",
        (FOLDER / "output" / "cancel.txt").read_text(),
    ],
)
def test_what_a_program_writes_is_no_evidence(text: str) -> None:
    assert SLURM.read_output(text) is None


@given(st.text())
def test_any_output_can_be_read(text: str) -> None:
    SLURM.read_output(text)
    SLURM.read_output("slurmstepd: error: " + text)
