"""Walltimes, memory sizes and launcher lines."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpc_prefect.job.spec import (
    LAUNCHER_PLACEHOLDERS,
    Executable,
    JobSpec,
    Resources,
    Site,
    launch_line,
    launcher_problems,
    parse_memory,
    parse_walltime,
)

TWO_BY_THREE = Resources(num_nodes=2, ranks_per_node=3, threads_per_rank=4, gpus_per_node=1)


@given(st.integers(0, 400), st.integers(0, 23), st.integers(0, 59), st.integers(0, 59))
def test_a_walltime_with_days_is_read_as_it_was_written(
    days: int, hours: int, minutes: int, seconds: int
) -> None:
    total = ((days * 24 + hours) * 60 + minutes) * 60 + seconds
    if total:
        assert parse_walltime(f"{days}-{hours:02}:{minutes:02}:{seconds:02}") == total


@given(st.integers(1, 10**7))
def test_a_walltime_in_hours_is_read_as_it_was_written(total: int) -> None:
    assert parse_walltime(f"{total // 3600}:{total // 60 % 60:02}:{total % 60:02}") == total


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90:00", 5400),
        ("05:00", 300),
        ("100:00:00", 360_000),
        (" 00:00:01\n", 1),
        ("0-1:00:00", 3600),
    ],
)
def test_a_walltime_may_be_short_or_long(text: str, seconds: int) -> None:
    assert parse_walltime(text) == seconds


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "write HH:MM:SS (or D-HH:MM:SS), such as 01:30:00"),
        ("300", "write HH:MM:SS (or D-HH:MM:SS), such as 01:30:00"),
        ("1h", "write HH:MM:SS (or D-HH:MM:SS), such as 01:30:00"),
        ("1-30:00", "write HH:MM:SS (or D-HH:MM:SS), such as 01:30:00"),
        ("-1:00:00", "write HH:MM:SS (or D-HH:MM:SS), such as 01:30:00"),
        ("٠١:٠٠:٠٠", "write HH:MM:SS (or D-HH:MM:SS), such as 01:30:00"),
        ("01:60:00", "a part is too large; write HH:MM:SS, as in 01:30:00"),
        ("01:00:60", "a part is too large; write HH:MM:SS, as in 01:30:00"),
        ("1-24:00:00", "a part is too large; write HH:MM:SS, as in 01:30:00"),
        ("00:00:00", "must be longer than nothing"),
    ],
)
def test_what_is_no_walltime_is_refused_with_the_way_to_write_it(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=r"^walltime") as caught:
        parse_walltime(text)
    assert str(caught.value) == f"walltime {text!r}: {said}"


@given(
    st.integers(1, 10**18), st.sampled_from("KMGTkmgt"), st.sampled_from(["", "B", "iB", "i", "b"])
)
def test_a_memory_size_is_a_power_of_1024_whatever_its_suffix(
    number: int, unit: str, suffix: str
) -> None:
    assert parse_memory(f"{number}{unit}{suffix}") == number * 1024 ** (
        "KMGT".index(unit.upper()) + 1
    )


@pytest.mark.parametrize(
    ("text", "size"), [("", 0), ("  ", 0), ("1.5 G", 3 * 2**29), ("0.5K", 512)]
)
def test_a_memory_size_may_be_empty_or_have_a_fraction(text: str, size: int) -> None:
    assert parse_memory(text) == size


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("4", "write a number with K, M, G or T, such as 4G"),
        ("4B", "write a number with K, M, G or T, such as 4G"),
        ("4 GG", "write a number with K, M, G or T, such as 4G"),
        ("-4G", "write a number with K, M, G or T, such as 4G"),
        ("1e3G", "write a number with K, M, G or T, such as 4G"),
        ("4\u212a", "write a number with K, M, G or T, such as 4G"),  # the Kelvin sign is no K
        ("infG", "write a number with K, M, G or T, such as 4G"),
        ("0G", "must be more than nothing"),
        ("0.0001K", "must be more than nothing"),
    ],
)
def test_what_is_no_memory_size_is_refused_with_the_way_to_write_it(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=r"^memory") as caught:
        parse_memory(text)
    assert str(caught.value) == f"memory {text!r}: {said}"


@given(st.text())
def test_walltime_and_memory_refuse_any_other_text_with_a_value_error_only(text: str) -> None:
    for parse in (parse_walltime, parse_memory):
        with contextlib.suppress(ValueError):
            assert parse(text) >= 0


def test_a_memory_size_beyond_any_float_is_still_a_number() -> None:
    assert parse_memory("1" + "0" * 400 + "K") == 1024 * 10**400


def test_a_launcher_line_is_filled_in_and_the_command_follows_it() -> None:
    template = "mpiexec -n {ranks} -N {nodes} -ppn {ranks_per_node} -t {threads} -g {gpus_per_node}"
    assert launch_line(template, TWO_BY_THREE, "'a' 'b'") == (
        "mpiexec -n 6 -N 2 -ppn 3 -t 4 -g 1 'a' 'b'"
    )


def test_a_launcher_line_with_command_has_it_there_and_nowhere_else() -> None:
    line = launch_line("numactl {command} --last", TWO_BY_THREE, "'{ranks}' '\\1' '{command}'")
    assert line == "numactl '{ranks}' '\\1' '{command}' --last"


@pytest.mark.parametrize("own", ["${HOME}", "${command}", "${ranks}", "{a,b}", "$(x)"])
def test_the_shells_own_braces_in_a_launcher_line_are_left_alone(own: str) -> None:
    assert launcher_problems(own) == []
    assert launch_line(f"x {own}", TWO_BY_THREE, "'p'") == f"x {own} 'p'"


def test_a_launcher_line_with_an_end_of_line_still_holds_the_program() -> None:
    assert launch_line("mpiexec -n {ranks}\n", TWO_BY_THREE, "'p'") == "mpiexec -n 6 'p'"


def test_every_unknown_placeholder_is_named_beside_those_that_exist() -> None:
    known = "{ranks}, {nodes}, {ranks_per_node}, {threads}, {gpus_per_node}, {command}"
    assert launcher_problems("a {rank} {} {nodes}") == [
        f"launcher: unknown placeholder {{rank}}; there are {known}",
        f"launcher: unknown placeholder {{}}; there are {known}",
    ]


def test_every_documented_placeholder_can_be_used() -> None:
    template = " ".join("{" + name + "}" for name in LAUNCHER_PLACEHOLDERS)
    assert launcher_problems(template) == []
    assert "{" not in launch_line(template, TWO_BY_THREE, "'p'")


TEXT = st.text(max_size=5)
TEXTS = st.lists(TEXT, max_size=3).map(tuple)
NAMED = st.dictionaries(TEXT, TEXT, max_size=2)
OPTIONS = st.dictionaries(TEXT, TEXT | st.integers() | st.booleans() | st.lists(TEXT), max_size=3)
SPECS = st.builds(
    JobSpec,
    name=TEXT,
    command_name=TEXT,
    executable=st.builds(
        Executable,
        path=TEXT,
        modules=TEXTS,
        setup=TEXTS,
        path_prefixes=st.dictionaries(TEXT, TEXTS, max_size=2),
        environment=NAMED,
    ),
    site=st.builds(
        Site,
        scheduler=TEXT,
        queue=TEXT,
        modules=TEXTS,
        setup=TEXTS,
        teardown=TEXTS,
        environment=NAMED,
        login_shell=st.booleans(),
        options=OPTIONS,
    ),
    resources=st.builds(Resources, num_nodes=st.integers(1, 9), walltime=st.integers(1)),
    work_dir=TEXT,
    arguments=TEXTS,
    environment=NAMED,
    secret_names=TEXTS,
    inputs=TEXTS,
    expected_outputs=TEXTS,
)


@given(SPECS)
def test_a_job_comes_back_from_what_json_makes_of_it(spec: JobSpec) -> None:
    assert JobSpec.from_dict(json.loads(json.dumps(spec.as_dict()))) == spec


def test_what_a_later_version_says_of_a_job_beside_what_we_know_is_left_out() -> None:
    spec = JobSpec(
        name="diag",
        command_name="diag",
        executable=Executable(path="/bin/true"),
        site=Site(scheduler="local"),
        resources=Resources(),
        work_dir="/w",
    )
    values = spec.as_dict() | {"heterogeneous": [1, 2]}
    values["resources"] = values["resources"] | {"licences": ["a"]}
    assert JobSpec.from_dict(values) == spec
