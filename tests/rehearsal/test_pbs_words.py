"""How the rehearsal PBS reads what it is given: pure text."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpc_rehearsal.common import text
from hpc_rehearsal.pbs import directives, resources
from hpc_rehearsal.pbs import formats as words

LETTERS = "-lNWvqkjaejoJ=:+,\"'\\ #PBS1b²\n\udcff"
WORDS = st.lists(st.text(alphabet=LETTERS, max_size=12), max_size=6)


def answered(call, *arguments):
    """What it gives, or the exit status with which it refuses; nothing else is raised."""
    try:
        return call(*arguments)
    except text.Refusal as refused:
        return refused.code


@given(WORDS, st.text(alphabet="#PBS -lNW=\"'\n", max_size=60))
def test_no_options_and_no_script_break_qsub(options, script):
    found = answered(directives.read, options, script, {})
    assert found in (1, 2, 154, -6) or "resources" in found


@given(st.text(alphabet="select=nodescpuwalltimemb1234567890:+,-²\"'", max_size=40))
def test_no_resources_break_qsub(text):
    found = answered(lambda: resources.request(resources.pairs(text), []))
    assert found in (5, 166, 187) or found["list"]["nodect"] >= 1


@given(st.text(alphabet=st.characters(exclude_characters="\"'\\\0", exclude_categories=["Cs"])))
def test_a_variable_without_quotes_and_backslashes_arrives_as_it_is(value):
    assert words.decoded(words.encoded(value)) == value
    assert words.listed(f"A={words.encoded(value)},B=b") == [("A", value), ("B", "b")]


@given(st.text(alphabet="a'\"\\ $`;\n", max_size=20))
def test_a_quoted_word_is_one_word_for_a_shell(value):
    import shlex

    assert shlex.split(text.shell_quoted(value)) == [value]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("nodes=2:ppn=4", {"ncpus": 8, "mpiprocs": 8, "nodect": 2, "place": "scatter"}),
        ("ncpus=4,mem=2gb", {"ncpus": 4, "mem": "2gb", "select": "1:ncpus=4:mem=2gb"}),
        ("select=2:ncpus=3:mem=512mb+1", {"ncpus": 7, "mem": "1gb", "nodect": 3}),
        ("select=2:ngpus=4", {"ngpus": 8, "ncpus": 2}),
        ("walltime=90,place=scatter:excl", {"walltime": "00:01:30", "place": "scatter:excl"}),
        ("walltime=00:61:00", {"walltime": "01:01:00"}),
    ],
)
def test_resources_are_summed_up(text, expected):
    found = resources.request(resources.pairs(text), [])["list"]
    assert {name: found[name] for name in expected} == expected


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("7", 7),
        ("100mb", 100 * 2**20),
        ("2gw", 16 * 2**30),
        ("1T", 2**40),
        ("mb", None),
        ("1x", None),
    ],
)
def test_sizes_are_read_with_their_units(text, size):
    assert words.size(text) == size


def test_resources_of_the_script_stay_where_the_command_line_names_others():
    script = "#!/bin/sh\n#PBS -l select=2 -l walltime=60\n#PBS -W group_list=a\n"
    found = directives.read(["-l", "walltime=5", "-W", "depend=afterok:1,afterany:2"], script, {})
    assert dict(found["resources"]) == {"select": "2", "walltime": "5"}
    assert found["attributes"] == {"group_list": "a", "depend": "afterok:1,afterany:2"}


def test_directives_end_at_the_first_command():
    script = "#!/bin/sh\n\n#PBS -N a\n# said\n  # more\n#PBS -q b\necho\n#PBS -N late\n"
    assert directives.directives(script) == ["-N a", "-q b"]


def test_a_node_is_filled_before_the_next_and_a_chunk_may_span_two():
    def job(text):
        return {"resources": resources.request(resources.pairs(text), [])}

    nodes = resources.Nodes(2, 4, 2**30)
    first = nodes.place(job("select=1:ncpus=3"))
    second = nodes.place(job("select=1:ncpus=2"))
    assert [first["exec_vnode"], second["exec_vnode"]] == ["(c001:ncpus=3)", "(c002:ncpus=2)"]
    assert first["exec_host"] == "opbs/0*3"
    third = nodes.place(job("select=1:ncpus=3"))
    assert third["exec_vnode"] == "(c001:ncpus=1+c002:ncpus=2)"
    assert re.match(r"Not Running: .*R: 1 A: 0 T: 8", nodes.lacking(job("ncpus=1")))
    assert re.match(r"Can Never Run: .*R: 9 A: 8 T: 8", nodes.lacking(job("ncpus=9")))
