"""What one can ask of the list of runs: conditions, order, columns and times."""

from __future__ import annotations

import contextlib
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpc_prefect.records import query
from hpc_prefect.records.query import MISSING, InvalidQuery, check, condition, moment, value


def run(**more: Any) -> dict[str, Any]:
    """A run's summary."""
    return {
        "id": "abcd-1",
        "name": "hot-polecat",
        "flow": "sqd-loop",
        "campaign": ["h2"],
        "state": "completed",
        "parameters": {},
        "measures": {},
        "totals": {"jobs": {"failed": 2}, "costs": {"node_hours": 1.5}, "wall_seconds": 60.0},
    } | more


A = run(
    parameters={"shots": 1000, "molecule": {"basis": "sto-3g", "a.b": 7}, "fast": True,
                "nothing": None, "list": [1, 2], "version": "1.0", "word": "None",
                "huge": 10**400},
    measures={"energy": -109.25, "shots": 5, "spread": float("nan")},
)  # fmt: skip


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("shots", 1000),
        ("measures.shots", 5),
        ("parameters.shots", 1000),
        ("molecule.basis", "sto-3g"),
        ("molecule.a.b", 7),
        ("energy", -109.25),
        ("node_hours", 1.5),
        ("costs.node_hours", 1.5),
        ("jobs.failed", 2),
        ("wall_seconds", 60.0),
        ("totals.costs.node_hours", 1.5),
        ("campaign", "h2"),
        ("flow", "sqd-loop"),
        ("nothing", None),
        ("none", MISSING),
        ("molecule.none", MISSING),
        ("shots.none", MISSING),
        ("", MISSING),
    ],
)
def test_a_name_is_looked_for_in_parameters_measures_costs_and_fields(
    name: str, found: Any
) -> None:
    assert value(A, name) == found


@pytest.mark.parametrize(
    "text",
    [
        "shots>999",
        "shots >= 1000",
        "shots==1e3",
        "shots=1000",
        "shots!=5",
        "energy<=-109",
        "energy < -109.2",
        'molecule.basis == "sto-3g"',
        "molecule.basis = 'sto-3g'",
        "molecule.basis=sto-3g",
        "molecule.basis<z",
        "molecule.basis != cc-pvdz",
        "fast==true",
        "fast==True",
        "fast!=False",
        "nothing==null",
        "nothing==None",
        "word==None",
        "huge>1",
        "huge>1e308",
        "list=='[1, 2]'",
        "version==1.0",
        "name!=x",
        "jobs.failed>1",
        "spread!=0",
    ],
)
def test_a_condition_holds(text: str) -> None:
    assert condition(text).holds(A)


@pytest.mark.parametrize(
    "text",
    [
        "shots>1000",
        "shots<1000.0",
        "shots=='x'",
        "molecule.basis>0",  # a text is neither more nor less than a number
        "shots>abc",
        "fast>0",
        "fast==1",
        "fast!=True",
        "fast=='True'",
        "nothing!=None",
        "word==null",
        "huge<=1",
        "nothing<1",
        "list>1",
        "spread>0",
        "spread<=0",
        "other==1",
        "other!=1",  # of what a run does not have nothing holds
        "molecule.basis==STO-3G",
    ],
)
def test_a_condition_does_not_hold(text: str) -> None:
    assert not condition(text).holds(A)


@pytest.mark.parametrize(
    "text",
    ["", "shots", "shots>", ">5", "shots=>5", "shots=<5", "shots>1 and energy<0", "a==b==c",
     "shots>1000 energy", "basis=='sto", "basis==sto'", "basis=='a'b'", "shots<>5", "x = a b"],
)  # fmt: skip
def test_what_is_no_condition_is_told_what_one_is(text: str) -> None:
    with pytest.raises(InvalidQuery, match=r"cannot be read: write a name, then one of == != <"):
        condition(text)


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("started>2025-03-01", True),
        ("started>=2025-03-01", True),
        ("started<=2025-03-01", True),  # until its end, as --until
        ("started<2025-03-01", False),
        ("started<=2025-02-28", False),
        ("started>'2025-03-01 11:00'", True),
        ("started>2025-03-01T13:00", False),
        ("started>12h", False),
        ("started>2w", True),
        ("ended<2025-03-02", False),  # it goes on
        ("updated>1d", True),
        ("started>1000", True),
    ],
)
def test_times_are_compared_with_dates(text: str, holds: bool) -> None:
    began = datetime(2025, 3, 1, 12).timestamp()  # noqa: DTZ001 - a person's own day
    one = run(started=began, ended=0.0, updated=NOW)
    found = condition(text, NOW)
    assert found.holds(one) is holds
    query.check_orders([found], [one])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("shots>abc", r"'shots>abc': shots is a number in all known runs, and 'abc' is not"),
        ("shots<='5'", r"and '5' is not \(remove the quotes\)"),
        ("energy<2025-01-01", "and '2025-01-01' is not"),
        ("started>soon", "'soon' is not a time; write a date"),
    ],
)
def test_numbers_are_not_compared_with_a_word(text: str, said: str) -> None:
    known = [run(), A | {"started": 1.0}]
    with pytest.raises(InvalidQuery, match=said):
        query.check_orders([condition(text)], known)


@pytest.mark.parametrize("text", ["shots>1", "shots!=abc", "molecule.basis>abc", "none>abc"])
def test_other_conditions_may_hold(text: str) -> None:
    query.check_orders([condition(text)], [A])
    query.check_orders([condition("mixed>abc")], [run(parameters={"mixed": x}) for x in (1, "b")])


@given(st.text(max_size=30))
def test_any_text_is_a_condition_or_an_error(text: str) -> None:
    try:
        found = condition(text)
    except InvalidQuery:
        return
    assert found.holds(A) in (True, False)


NUMBERS = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
ORDERS = {
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    "==": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    ">=": lambda a, b: a >= b,
    ">": lambda a, b: a > b,
}


@given(found=NUMBERS, wanted=NUMBERS, sign=st.sampled_from(sorted(ORDERS)))
def test_numbers_are_compared_as_numbers(found: float, wanted: float, sign: str) -> None:
    holds = condition(f"x{sign}{wanted!r}").holds(run(parameters={"x": found}))
    assert holds is ORDERS[sign](found, wanted)


@given(st.text(alphabet=st.characters(exclude_characters="\"'"), max_size=20))
def test_a_text_in_quotes_is_that_text(text: str) -> None:
    for quote in "\"'":
        assert condition(f"x=={quote}{text}{quote}").holds(run(parameters={"x": text}))


JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=6,
)


@given(st.dictionaries(st.text(alphabet="ab.", max_size=4), JSON, max_size=4))
def test_every_name_of_a_row_is_found_and_known(parameters: dict[str, Any]) -> None:
    one = run(parameters=parameters)
    row = {name: found for name, found in query.flat(one).items() if name.startswith("param")}
    known = query.known_names([one])
    for name in row:
        assert value(one, name) is not MISSING
        assert name.removeprefix("parameters.") in known
    check(row, [one])


@given(st.lists(JSON, max_size=8), st.booleans())
def test_anything_can_be_sorted_by_and_what_is_missing_comes_last(
    values: list[Any], descending: bool
) -> None:
    runs = [run(id=str(n), parameters={"x": found}) for n, found in enumerate(values)]
    runs.insert(len(runs) // 2, run(id="without"))

    found = query.ordered(runs, "x", descending=descending)

    assert sorted(each["id"] for each in found) == sorted(each["id"] for each in runs)
    kept = [value(each, "x") for each in found]
    numbers = [each for each in kept if isinstance(each, int | float)]
    assert numbers == sorted(numbers, reverse=descending)
    here = [each is not MISSING and each is not None for each in kept]
    assert here == sorted(here, reverse=True)


def test_numbers_of_any_length_are_sorted() -> None:
    values = [10**400, 1.5, float("inf"), -(10**400)]
    runs = [run(parameters={"x": found}) for found in values]
    found = [value(each, "x") for each in query.ordered(runs, "x")]
    assert found == [-(10**400), 1.5, 10**400, float("inf")]


def test_a_row_ends_somewhere() -> None:
    deep: dict[str, Any] = {}
    for _ in range(5000):
        deep = {"a": deep}
    assert len(query.flat(run(parameters=deep))) == len(query.flat(run(parameters={"a": 1})))


def test_runs_that_are_the_same_stay_in_their_order() -> None:
    runs = [run(id=each, parameters={"x": 1}) for each in "bac"]
    for descending in (True, False):
        found = query.ordered(runs, "x", descending=descending)
        assert [each["id"] for each in found] == ["b", "a", "c"]


@pytest.mark.parametrize(
    ("name", "near"), [("shotz", "shots"), ("Energy", "energy"), ("bassis", "molecule.basis"),
                       ("nodehours", "node_hours"), ("flows", "flow")],
)  # fmt: skip
def test_a_name_that_no_run_has_gets_what_is_near(name: str, near: str) -> None:
    with pytest.raises(InvalidQuery, match=f"has '{name}', did you mean .*{near}"):
        check([name], [A, run()])


def test_a_name_that_is_like_none_gets_those_that_there_are() -> None:
    with pytest.raises(
        InvalidQuery, match=r"none of the 1 known .* they have, among others: shots, "
    ):
        check(["qqqqqqqq"], [A])


def test_of_no_runs_no_name_is_wrong() -> None:
    check(["shots"], [])


def test_a_row_has_everything_by_dotted_names() -> None:
    row = query.flat(A)
    assert row["parameters.molecule.basis"] == "sto-3g"
    assert (row["measures.energy"], row["costs.node_hours"]) == (-109.25, 1.5)
    assert (row["jobs.failed"], row["campaign"], row["wall_seconds"]) == (2, "h2", 60.0)
    assert json.dumps(row)


def test_a_list_shows_what_tells_its_runs_apart() -> None:
    runs = [run(parameters={"shots": n, "same": 1, "molecule": {"basis": n}}) for n in range(3)]
    runs.append(run(parameters={"shots": 9, "same": 1, "rare": 1}))
    assert query.varying(runs, 4) == ["shots", "molecule.basis", "rare"]
    assert query.varying(runs, 1) == ["shots"]
    assert query.varying(runs[:1], 4) == []


def test_a_list_shows_what_most_of_its_runs_have_measured() -> None:
    loop = {"iteration": 3, "energy": -1, "change": 0.1, "seconds": 2.0, "time": "now"}
    runs = [run(measures=loop), run(measures={"energy": -2}), run(measures={"rare": 1})]
    assert query.measured(runs, 4) == ["energy"]


# Times

NOW = datetime(2025, 3, 10, 12, tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("text", "ago"),
    [("30s", 30), ("5m", 300), ("12h", 43200), ("3d", 259200), ("2w", 1209600), ("1.5 h", 5400)],
)
def test_a_time_may_be_how_long_ago(text: str, ago: float) -> None:
    assert moment(text, NOW) == NOW - ago


def test_a_date_is_its_beginning_or_its_end() -> None:
    begin = datetime(2025, 3, 1).timestamp()  # noqa: DTZ001 - a person's own day
    after = (datetime(2025, 3, 1) + timedelta(days=1)).timestamp()  # noqa: DTZ001
    assert moment("2025-03-01", NOW) == begin
    assert moment("2025-03-01", NOW, end=True) == after
    assert moment("2025-03-01T00:00", NOW, end=True) == begin


def test_a_time_may_be_a_number_or_a_datetime() -> None:
    assert moment(12, NOW) == 12
    assert moment(datetime(1970, 1, 1, 0, 1, tzinfo=UTC), NOW) == 60
    assert moment("1970-01-01T00:01+00:00", NOW) == 60


@pytest.mark.parametrize("text", ["", "yesterday", "3", "3 days", "2025-13-01", "9999-12-31"])
def test_what_is_no_time_is_told_what_one_is(text: str) -> None:
    with pytest.raises(InvalidQuery, match="write a date"):
        moment(text, NOW, end=True)


@given(st.text(max_size=12))
def test_any_text_is_a_time_or_an_error(text: str) -> None:
    with contextlib.suppress(InvalidQuery):
        assert isinstance(moment(text, NOW), float)
