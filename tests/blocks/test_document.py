"""A TOML file of blocks and Variables: placeholders, and everything that can be wrong with it."""

from __future__ import annotations

import pytest

from hpc_prefect.block_files.document import Document, Item, read_document
from hpc_prefect.blocks import CommandBlock, ExecutionProfileBlock, HPCProfileBlock
from hpc_prefect.errors import ConfigurationError

GOOD = """
[variable.algorithm]
max_iterations = 10
shell = "$${HOME} and ${HERE}"

[variable]
shots = 1000

[hpc-profile.hpc-local]
scheduler = "local"
launcher = "${VENV}/bin/mpiexec -n {ranks} {command}"
executables.diag = {path = "${VENV}/bin/python", environment = {X = "${HERE}/x"}}
secret_environment = {TOKEN = "${ENV:TOKEN}"}

[hpc-profile.hpc-local.local]
slots = 2

[execution-profile.exec-diag]
profile_name = "exec-diag"
command_name = "diag"

[command.cmd-diag]
command_name = "diag"
executable_key = "diag"
"""


def read(text: str, **environ: str) -> Document:
    return read_document(text, here="/here", venv="/venv", environ=environ, source="blocks.toml")


def problems(text: str, **environ: str) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        read(text, **environ)
    first, *lines = str(caught.value).splitlines()
    assert first.startswith("blocks.toml: ")
    assert first.endswith("nothing was saved:")
    return [line.removeprefix("  - ") for line in lines]


def test_a_file_becomes_blocks_and_variables_in_the_order_in_which_they_need_each_other() -> None:
    document = read(GOOD.replace("[variable]\nshots = 1000\n", ""), TOKEN="hunter2")

    assert document == Document(
        "blocks.toml",
        (
            Item("command", "cmd-diag", CommandBlock(command_name="diag", executable_key="diag")),
            Item(
                "execution-profile",
                "exec-diag",
                ExecutionProfileBlock(profile_name="exec-diag", command_name="diag"),
            ),
            Item(
                "hpc-profile",
                "hpc-local",
                HPCProfileBlock(
                    scheduler="local",
                    launcher="/venv/bin/mpiexec -n {ranks} {command}",
                    executables={
                        "diag": {"path": "/venv/bin/python", "environment": {"X": "/here/x"}}
                    },
                    secret_environment={"TOKEN": "hunter2"},
                    local={"slots": 2},
                ),
            ),
            Item(
                "variable", "algorithm", {"max_iterations": 10, "shell": "${HOME} and /here"}
            ),
        ),
    )  # fmt: skip


def test_a_variable_may_be_any_json_value() -> None:
    document = read("[variable]\nshots = 1000\nnames = ['a', 'b']\n")

    assert [(item.name, item.value) for item in document.items] == [
        ("shots", 1000),
        ("names", ["a", "b"]),
    ]


def test_text_that_is_no_toml_is_said_with_its_line() -> None:
    with pytest.raises(ConfigurationError) as caught:
        read("[command.a]\nx = \n")

    assert str(caught.value) == (
        "blocks.toml is not TOML: Invalid value (at line 2, column 5); nothing was saved"
    )


BAD: dict[str, tuple[str, list[str]]] = {
    "table": (
        "[comand.a]\ncommand_name = 'x'\n",
        ["line 1, [comand]: there is no such table; did you mean 'command'?"],
    ),
    "no table": (
        "command = 3\n",
        ["line 1, [command]: must be tables, such as [command.some-name]"],
    ),
    "no fields": ("[command]\na = 3\n", ["line 2, [command.a]: must be a table of fields"]),
    "block name": (
        "[command.cmd_Diag]\ncommand_name = 'a'\nexecutable_key = 'a'\n",
        ["line 1, [command.cmd_Diag]: the name 'cmd_Diag' may have only a-z, 0-9 and -"],
    ),
    "variable name": (
        "[variable.'a b']\n",
        ["line 1, [variable.a b]: the name 'a b' may have only a-z, 0-9, - and _"],
    ),
    "misspelt field": (
        "[hpc-profile.a]\nscheduler = 'local'\n[hpc-profile.a.local]\n\nslotz = 3\n",
        ["line 5, [hpc-profile.a] local.slotz: there is no such field; did you mean 'slots'?"],
    ),
    "missing field": (
        "\n[command.a]\ncommand_name = 'x'\n",
        ["line 2, [command.a] executable_key: Field required"],
    ),
    "quantum field": (
        "[quantum-backend.a]\nbackend = 'aer'\n",
        [
            "line 2, [quantum-backend.a] backend: there is no such field; "
            "did you mean 'backend_name'?"
        ],
    ),
    "other scheduler": (
        "[hpc-profile.a]\nscheduler = 'local'\nslurm.qos = 'x'\n",
        [
            "line 1, [hpc-profile.a]: slurm.qos is set, but the scheduler is 'local': "
            "remove it, or choose scheduler 'slurm'"
        ],
    ),
    "placeholder": (
        "[variable.a]\nx = '${HOME}'\n",
        [
            "line 2, [variable.a] x: unknown placeholder ${HOME}: there are ${HERE}, ${VENV} and "
            "${ENV:NAME}; for a ${ that the shell is to read, write $${"
        ],
    ),
    "environment": (
        "[variable.a]\nx = ['${ENV:TOKEN}']\n",
        ["line 2, [variable.a] x: the environment variable 'TOKEN' is not set"],
    ),
    "date": (
        "[variable.a]\nx = 2026-01-01\n",
        ["line 2, [variable.a] x: 2026-01-01 is a date or time: put it in quotes"],
    ),
    "infinity": (
        "[variable.a]\nx = inf\n",
        ["line 2, [variable.a] x: inf is a number that Prefect cannot store"],
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_wrong_is_said_with_line_table_and_field(case: str) -> None:
    text, messages = BAD[case]
    assert problems(text) == messages


def test_everything_that_is_wrong_is_said_at_once() -> None:
    text = """
[execution-profile.b]
profile_name = "b"
command_name = "${ENV:C}"
walltime = "1h"
memory_per_node = "4"
nodes = 3
[variable.c]
when = 2026-01-01
[command.a]
command_nam = "a"
[ghost]
"""

    assert problems(text) == [
        "line 11, [command.a] command_nam: there is no such field; did you mean 'command_name'?",
        "line 10, [command.a] command_name: Field required",
        "line 10, [command.a] executable_key: Field required",
        "line 4, [execution-profile.b] command_name: the environment variable 'C' is not set",
        "line 7, [execution-profile.b] nodes: there is no such field; did you mean 'num_nodes'?",
        "line 6, [execution-profile.b] memory_per_node: memory '4': "
        "write a number with K, M, G or T, such as 4G",
        "line 5, [execution-profile.b] walltime: walltime '1h': "
        "write HH:MM:SS (or D-HH:MM:SS), such as 01:30:00",
        "line 9, [variable.c] when: 2026-01-01 is a date or time: put it in quotes",
        "line 12, [ghost]: there is no such table; there are: "
        "command, execution-profile, hpc-profile, ibm-credentials, quantum-backend, variable",
    ]


BLANKS = """
[hpc-profile.hpc-here]
# The scheduler.
scheduler = "pbs"

# The project that pays:
# one of your groups.
project_cpu = "<project>"  # see `id`
queue_cpu = "<cpu queue>"

[hpc-profile.hpc-here.executables]
diag = {path = "<program>"}
"""


def test_a_blank_is_refused_with_what_its_comment_says() -> None:
    assert problems(BLANKS) == [
        "line 8, [hpc-profile.hpc-here] project_cpu: fill in <project>, or remove the line; "
        "the file says: The project that pays: one of your groups. see `id`",
        "line 9, [hpc-profile.hpc-here] queue_cpu: fill in <cpu queue>, or remove the line",
        "line 12, [hpc-profile.hpc-here] executables.diag.path: fill in <program>, "
        "or remove the line",
    ]


def test_a_long_comment_is_cut_and_told_once_for_a_line() -> None:
    comment = "The path of the program, " + "and more of it, " * 20
    text = f"# {comment}\nexecutables = {{ one = '<program>', two = '<program>' }}\n"

    first, second = problems(f"[hpc-profile.hpc-here]\nscheduler = 'pbs'\n{text}")

    assert first.partition("the file says: ")[2].startswith("The path of the program, and more")
    assert first.endswith("…")
    assert len(first) < 300
    assert second.endswith("fill in <program>, or remove the line")


def test_only_a_whole_text_of_a_block_is_a_blank() -> None:
    text = """
[variable.html]
tag = "<table>"
[hpc-profile.hpc-here]
scheduler = "local"
setup = ["sort <names >sorted", "<Enter>"]
"""
    variable, profile = reversed(read(text).items)

    assert variable.value == {"tag": "<table>"}
    assert profile.value.setup == ["sort <names >sorted", "<Enter>"]


def test_a_secret_of_the_file_is_in_no_message() -> None:
    text = "[hpc-profile.a]\nscheduler = 'x'\nsecret_environment = {'A B' = '${ENV:T}', C = 1}\n"

    assert "hunter2" not in "".join(problems(text, T="hunter2"))


def test_a_profile_for_a_command_that_is_elsewhere_is_left_for_the_server_to_know() -> None:
    document = read("[execution-profile.a]\nprofile_name = 'a'\ncommand_name = 'prep'\n")

    assert document.foreign_commands == (("line 3, [execution-profile.a] command_name", "prep"),)


def test_a_profile_of_resources_alone_asks_for_no_command() -> None:
    document = read("[execution-profile.a]\nprofile_name = 'a'\nnum_nodes = 4\n")

    assert document.foreign_commands == ()


def test_an_hpc_profile_without_a_commands_executable_is_worth_a_warning() -> None:
    document = read(GOOD.replace("executables.diag", "executables.prep"), TOKEN="x")

    assert document.warnings == (
        "[hpc-profile.hpc-local] has no executable 'diag', so [command.cmd-diag] cannot run there",
    )


def test_a_profile_of_several_may_lack_the_programs_of_the_others() -> None:
    another = "\n[hpc-profile.hpc-other]\nscheduler = 'local'\n"

    assert read(GOOD + another, TOKEN="x").warnings == ()
    without = read(GOOD.replace("executables.diag", "executables.prep") + another, TOKEN="x")
    assert without.warnings == (
        "[hpc-profile.hpc-local], [hpc-profile.hpc-other] have no executable 'diag', so "
        "[command.cmd-diag] cannot run there",
    )
