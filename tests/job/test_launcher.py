"""Launcher lines: which of them end as their program does, and what is said of the others."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpc_prefect.job.launcher import status_problems
from hpc_prefect.job.spec import launcher_problems

INSTEAD = "put it into setup or teardown, or into a script that is the launcher"


@pytest.mark.parametrize(
    "line",
    [
        *("", "mpiexec -n {ranks}", "mpiexec -n {ranks} {command}", "env A=1 {command} | tee log"),
        *("cd x && mpiexec {command}", "{command} && echo done", "( {command} )", "exec {command}"),
        *("{command} 2>&1 | tee log", "{command} &> log", "{command} |& tee log", "time {command}"),
        *("mpiexec -n $(nproc; true) {command}", "mpiexec -n `nproc` {command}", "x ${A:-;} y"),
        *("env A=';|& #' B=\"a;b\" c\\;d {command}", "x a#b {command}", "x $((1 + (2))) {command}"),
        *("[ ! -e x ] && {command}", "echo ! && {command}", "{command} > >(tee log; cat)"),
        *("mpirun -n 1 \\\n  {command}", "mpirun {a,b}", "srun --mpi=pmix {command}\n", "env !x"),
    ],
)
def test_a_line_that_ends_as_its_program_does_can_be_used(line: str) -> None:
    assert status_problems(line) == []


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("{command}; echo done", ";"),
        ("env A=1; mpiexec", ";"),
        ("{command} || echo failed", "||"),
        ("{command} &", "&"),
        ("nohup mpiexec &", "&"),
        ("a\nb {command}", "an end of line"),
        ("! {command}", "! before a command"),
        ("cd x && ! mpiexec", "! before a command"),
        ("time ! {command}", "! before a command"),
        ("( ! {command} )", "! before a command"),
        ("coproc {command}", "coproc before a command"),
        ("mpiexec # {command}", "#"),
        ("if true; then {command}; fi", ";"),
        ("$(nproc) {command}; true", ";"),
        ("{command} $(date)", "a substitution after {command}"),
        ("{command} `date`", "a substitution after {command}"),
    ],
)
def test_a_line_that_hides_the_programs_end_is_refused(line: str, what: str) -> None:
    assert status_problems(line) == [f"{what} hides the program's exit code; {INSTEAD}"]
    assert launcher_problems(line) == [f"launcher: {each}" for each in status_problems(line)]


@pytest.mark.parametrize(
    "line",
    [
        *("echo `{command}`", "echo $({command})", "cat <({command})", "echo $( (a; {command}) )"),
        *("bash -c '{command}'", 'bash -c "cd x; {command}"', "tee >(mpiexec {command})"),
    ],
)
def test_a_program_in_quotes_or_in_a_substitution_is_refused(line: str) -> None:
    (problem,) = status_problems(line)
    assert problem.startswith("{command} stands in quotes or in a substitution")


@pytest.mark.parametrize("line", ["a '{command}", 'a "', "a `", "a ( b", "a ) b", "a $( b", "a \\"])
def test_a_line_that_is_not_whole_is_refused(line: str) -> None:
    (problem,) = status_problems(line)
    assert "closed" in problem


def test_every_problem_is_told_once() -> None:
    assert len(launcher_problems("! {rank} {command}; a; b & c")) == 4


@given(st.text(alphabet="ab {}command\\'\"`$()<>|&;!#\n"))
def test_any_text_is_judged(line: str) -> None:
    assert all(isinstance(problem, str) for problem in launcher_problems(line))
