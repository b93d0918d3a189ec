"""Whatever the documents say: no field vanishes, no secret shows, what is written can be read."""

from __future__ import annotations

import re
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from hpc_prefect.block_files.document import read_document
from hpc_prefect.block_files.qcsc.conversion import Conversion, convert
from hpc_prefect.block_files.qcsc.documents import COMMAND, EXECUTION, HPC, RUNTIME, QcscDocument
from hpc_prefect.block_files.qcsc.toml_text import Reference, write_toml
from hpc_prefect.errors import ConfigurationError

from .documents_of_theirs import FIELDS

_SECRET = "hunter2-hunter2"

WORDS = st.sampled_from(
    [
        *("", " ", "a", "/opt/x", "./x", "a b", "-n", "-n 4", "--ntasks=2", "8", "$HOME", "${X}"),
        *("${", "$${A}", "`id`", '"', "'", "\\", "<blank>", "\n", "\t", "\x7f", "é", "\0", "#"),
        *("{ranks}", "{other}", "proc=4", "max-proc-per-node=2", "freq=2200", "node=2x2", "=", ","),
        *("--qos=x", "--output=y", "--exclusive", "00:10:00", "4G", "10", "; rm", "]", "OMP"),
    ]
) | st.text(max_size=8)
TEXTS = st.lists(WORDS, max_size=3)
TABLE = st.dictionaries(WORDS, WORDS, max_size=3)
NUMBER = st.none() | st.integers(-1, 9)
NAMES = st.sampled_from(["diag", "other"])

OWN: dict[str, st.SearchStrategy[Any]] = {
    "command_name": NAMES,
    "executable_key": NAMES,
    "resource_class": st.sampled_from(["cpu", "gpu", "tpu"]),
    "launcher": st.sampled_from(["single", "srun", "mpirun", "mpiexec", "mpiexec.hydra"]),
    "hpc_target": st.sampled_from(["local", "miyabi", "fugaku", "slurm", "moon"]),
    "executable_map": st.dictionaries(NAMES, WORDS | st.just("/opt/diag"), max_size=2),
    "environments": st.dictionaries(WORDS | st.sampled_from(["A", "B"]), WORDS, max_size=3),
    "walltime": st.sampled_from(["00:05:00", "1-00:00:00", "soon"]),
    **dict.fromkeys(("num_nodes", "mpiprocs", "ompthreads", "slurm_ntasks"), NUMBER),
}


def value(name: str, default: Any) -> st.SearchStrategy[Any]:
    """Mostly of the field's type; now and then of another one."""
    by_type = {list: TEXTS, dict: TABLE}
    usual = OWN[name] if name in OWN else by_type.get(type(default), WORDS)
    return st.one_of(usual, usual, usual, st.none() | st.integers() | TEXTS | WORDS)


def documents(slug: str, most: int) -> st.SearchStrategy[list[QcscDocument]]:
    fields = {name: value(name, default) for name, default in FIELDS[slug].items()}
    some = st.fixed_dictionaries({}, optional=fields | {"unknown": WORDS})
    named = st.dictionaries(st.sampled_from(["a", "b-fugaku", "c"]), some, max_size=most)
    return named.map(lambda found: [QcscDocument(slug, n, each) for n, each in found.items()])


ALL = st.tuples(
    documents(COMMAND, 2), documents(EXECUTION, 3), documents(HPC, 2), documents(RUNTIME, 1)
).map(lambda groups: [each for group in groups for each in group])


def written(made: Conversion) -> str:
    return write_toml(made.tables, made.comments, "a header\nof two lines")


class _Everything(dict[str, str]):
    """An environment that has every variable."""

    def __contains__(self, name: object) -> bool:
        return True

    def __missing__(self, name: str) -> str:
        return "given"


@settings(max_examples=200, deadline=None)
@given(ALL)
def test_no_field_vanishes_without_a_line(given_: list[QcscDocument]) -> None:
    told = {(fate.document, fate.field) for fate in convert(given_).fates}

    for document in given_:
        assert [name for name in document.fields if (document.title, name) not in told] == []


@settings(max_examples=200, deadline=None)
@given(ALL)
def test_what_is_written_can_be_applied_or_the_block_is_told_to_be_decided(
    given_: list[QcscDocument],
) -> None:
    made = convert(given_)
    decided = {fate.document for fate in made.fates if fate.outcome == "decide"}

    try:
        document = read_document(written(made), here="/", venv="/", environ=_Everything())
    except ConfigurationError as error:
        blamed = set(re.findall(r"^  - (?:line \d+, )?(\[[^\]]*\])", str(error), re.MULTILINE))
        assert blamed <= decided
        assert blamed
    else:
        kinds = sum(map(len, made.tables.values()))
        assert len(document.items) == kinds


@settings(max_examples=200, deadline=None)
@given(ALL)
def test_the_calls_name_blocks_that_were_made(given_: list[QcscDocument]) -> None:
    made = convert(given_)

    for command, execution, hpc in made.calls:
        assert command in made.tables["command"]
        assert execution in made.tables["execution-profile"]
        assert hpc in made.tables["hpc-profile"]


@settings(max_examples=200, deadline=None)
@given(ALL, st.sampled_from(["MY_TOKEN", "API_KEY", "DB_PASSWORD"]))
def test_no_secret_is_written_or_told(given_: list[QcscDocument], name: str) -> None:
    secret = {
        EXECUTION: {
            "environments": {name: _SECRET},
            "pre_commands": [f"export {name}={_SECRET}"],
            "mpi_options": ["-x", f"{name}={_SECRET}"],
        },
        COMMAND: {"default_args": [f"--{name.lower().replace('_', '-')}={_SECRET}"]},
        RUNTIME: {"token": _SECRET},
    }
    with_secrets = [
        QcscDocument(each.slug, each.name, {**each.fields, **secret.get(each.slug, {})})
        for each in given_
    ]
    made = convert(with_secrets)

    assert _SECRET not in written(made) + repr(made.fates) + repr(made.tables)


PLAIN = st.text(max_size=8) | WORDS
SOME = st.recursive(
    PLAIN | st.booleans() | st.integers(-9, 9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(PLAIN, inner, max_size=3),
    max_leaves=6,
)
WRITABLE = re.compile("[\ud800-\udfff]")


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(st.sampled_from(["a", "b", "c"]), SOME, max_size=3))
def test_any_table_is_read_as_it_was_written(fields: dict[str, Any]) -> None:
    if WRITABLE.search(repr(fields)) or "\\ud" in repr(fields):
        return  # half a character has no UTF-8, and no block takes it
    values = dict(sorted(fields.items(), key=lambda item: isinstance(item[1], dict)))
    text = write_toml({"variable": {"v": values}}, {("variable", "v", "a"): "why\nso"}, "")
    (item,) = read_document(text, here="/", venv="/", environ={}).items

    assert item.value == values


def test_a_reference_is_filled_in_and_a_shells_variable_is_not() -> None:
    values = {"a": Reference("${ENV:X}"), "b": "${ENV:X}"}
    text = write_toml({"variable": {"v": values}}, {}, "")
    (item,) = read_document(text, here="/", venv="/", environ={"X": "1"}).items

    assert item.value == {"a": "1", "b": "${ENV:X}"}
