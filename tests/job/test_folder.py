"""The ledger's formats under torn, foreign and hostile bytes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpc_prefect.job.folder import (
    ExitRecord,
    journal_line,
    read_journal,
    read_starts,
    record_text,
    word_digest,
)
from hpc_prefect.job.folder import read_exits as read_exits_by
from hpc_prefect.job.outputs import Left

WORDS = {word_digest("w")}


def read_exits(data: bytes | None) -> tuple[ExitRecord, ...]:
    return read_exits_by(data, WORDS)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just(10**400),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
FIELDS = ["token", "id", "code", "phase", "signals", "oom", "cpu", "time", "detail", "host", "by"]
EVENTS = (
    st.sampled_from(["intent", "submitted", "observed", "cancel", "verdict", "attached"]) | JSON
)
LINE = st.one_of(
    st.binary(),
    JSON.map(lambda value: json.dumps(value).encode()),
    st.dictionaries(st.sampled_from(FIELDS), JSON).map(lambda value: json.dumps(value).encode()),
    st.fixed_dictionaries(
        {"event": EVENTS},
        optional={
            "id": JSON,
            "time": JSON,
            "result": JSON,
            "outputs": JSON | st.dictionaries(st.text(), st.dictionaries(st.text(), JSON)),
            "outputs_before": JSON | st.dictionaries(st.text(), JSON),
            "by": JSON,
            "state": JSON,
        },
    ).map(lambda value: json.dumps(value).encode()),
)
BYTES = st.lists(LINE, max_size=6).map(b"\n".join) | st.none()


@given(BYTES)
def test_the_records_are_read_from_any_bytes(data: bytes | None) -> None:
    assert all(isinstance(start.time, float) for start in read_starts(data))
    assert all(isinstance(end.code, int) for end in read_exits(data))


@given(BYTES)
def test_a_journal_is_read_from_any_bytes(data: bytes | None) -> None:
    ledger = read_journal(data)
    assert isinstance(ledger.job_id, str)
    assert isinstance(ledger.result, dict)
    assert isinstance(ledger.outputs, dict)
    assert isinstance(ledger.submitted_at, float)


@pytest.mark.parametrize("read", [read_starts, read_exits, read_journal])
def test_brackets_without_end_do_not_overflow_the_reader(read: Any) -> None:
    assert read(b"[" * 100_000 + b"\n") == read(b"") == read(None)


@given(BYTES, BYTES.map(lambda data: (data or b"").replace(b"\n", b"")))
def test_a_torn_last_line_changes_nothing(data: bytes | None, torn: bytes) -> None:
    whole = data + b"\n" if data else b""
    assert read_journal(whole) == read_journal(whole + torn)
    assert read_exits(whole) == read_exits(whole + torn)
    assert read_starts(whole) == read_starts(whole + torn)


def test_a_line_torn_by_a_crash_does_not_hide_what_the_next_claimant_writes() -> None:
    intent, submitted = journal_line(1, "intent", tag="h"), journal_line(2, "submitted", id="7.a")
    for cut in range(len(submitted)):
        data = intent + submitted[:cut] + b"\n" + journal_line(3, "submitted", id="8.a")
        assert read_journal(data).job_id == "8.a"


def test_an_intent_of_who_was_taken_over_from_does_not_hide_that_of_the_successor() -> None:
    """It was stopped before it wrote it. Whether it submitted is looked for all the same."""
    mine = journal_line(1, "intent", tag="mine", claim=2, word_sha256="m")
    cancel = journal_line(2, "cancel", by="user")
    stale = journal_line(3, "intent", tag="stale", claim=1, word_sha256="s")
    read = read_journal(mine + cancel + stale + journal_line(4, "refused"))
    assert (read.intent["tag"], read.cancel, read.intended) == ("mine", "user", True)
    assert read.words == {"m", "s"}
    next_ = journal_line(5, "intent", tag="next", claim=3)
    assert read_journal(stale + mine + next_).intent["tag"] == "next"


RECORD = (
    b'{"token":"1.2","word":"w","phase":"program","signals":"TERM USR1","detail":"",'
    b'"code":3,"oom":1,"cpu":150,"time":9.5}'
)


def test_an_exit_record_counts_from_its_newline_on() -> None:
    for cut in range(len(RECORD) + 1):
        assert read_exits(RECORD[:cut]) == ()
    assert read_exits(RECORD + b"\n") == (
        ExitRecord(token="1.2", code=3, signals=("TERM", "USR1"), oom=1, cpu_seconds=1.5, time=9.5),
    )


@pytest.mark.parametrize(
    "change", [{"code": 1}, {"phase": "setup"}, {"signals": ("TERM",)}, {"oom": 1}]
)
def test_an_exit_record_is_clean_only_without_any_blemish(change: dict[str, Any]) -> None:
    assert ExitRecord(token="1", code=0).clean
    assert not ExitRecord(**{"token": "1", "code": 0} | change).clean


@pytest.mark.parametrize("word", [b'"word":"v",', b'"word":["w"],', b'"word":null,', b""])
def test_an_exit_record_without_the_word_of_its_script_does_not_count(word: bytes) -> None:
    assert read_exits(RECORD.replace(b'"word":"w",', word) + b"\n") == ()


def test_the_words_of_all_scripts_that_were_handed_over_count() -> None:
    data = journal_line(1, "intent", word_sha256="a") + journal_line(2, "intent", word_sha256="b")
    assert read_journal(data).words == {"a", "b"}
    assert not read_exits_by(RECORD + b"\n", read_journal(journal_line(1, "intent")).words)


def test_a_journal_tells_the_whole_story() -> None:
    left = [1, 2, 3, 4, ""]
    ledger = read_journal(
        journal_line(1.23456, "intent", tag="h")
        + journal_line(2, "submitted", id="7.a")
        + journal_line(3, "observed", state="running", word="R")
        + journal_line(4, "cancel", by="timeout")
        + journal_line(5, "verdict", result={"state": "failed"}, outputs={"o": {"": left, "x": 1}})
    )
    assert (ledger.intended, ledger.job_id, ledger.submitted_at) == (True, "7.a", 2.0)
    assert (ledger.cancel, ledger.states) == ("timeout", ((3.0, "running"),))
    assert (ledger.result, ledger.outputs) == ({"state": "failed"}, {"o": {"": Left(*left)}})


def _verdicts(*states: str) -> str:
    lines = [journal_line(1, "verdict", result={"state": state}) for state in states]
    return str(read_journal(b"".join(lines)).result["state"])


def test_the_first_verdict_stands() -> None:
    assert _verdicts("failed", "succeeded") == "failed"
    assert _verdicts("succeeded", "lost") == "succeeded"


def test_a_lost_job_may_still_be_found_once() -> None:
    assert _verdicts("lost", "succeeded", "failed") == "succeeded"


def test_a_time_beyond_any_float_is_no_time() -> None:
    line = b'{"time":1' + b"0" * 400 + b',"event":"submitted","id":"7.a"}\n'
    assert (read_journal(line).job_id, read_journal(line).submitted_at) == ("7.a", 0.0)


def test_a_verdict_without_a_result_is_none() -> None:
    assert read_journal(journal_line(1, "verdict", result="succeeded")).result == {}


@given(st.dictionaries(st.text(), JSON.filter(lambda value: value == value), max_size=3), st.text())
def test_whatever_is_written_to_a_journal_is_read_back(facts: dict[str, Any], path: str) -> None:
    result = {"facts": facts, "path": path}
    line = journal_line(1, "verdict", result=result)
    assert line.count(b"\n") == 1
    assert json.dumps(read_journal(line).result) == json.dumps(result)


def test_a_path_of_bytes_that_are_no_text_is_read_back() -> None:
    path = b"/w\xff\xe3\x81/\xc3\xa9".decode("utf-8", "surrogateescape")
    for text in (path, "half \ud800"):
        assert read_journal(journal_line(1, "verdict", result={"p": text})).result == {"p": text}


def test_a_journal_is_readable_by_a_person() -> None:
    assert "窒素".encode() in journal_line(1, "intent", name="窒素")


@given(st.dictionaries(st.text(), JSON.map(lambda v: json.loads(json.dumps(v))), min_size=1))
def test_a_run_record_is_json_with_a_line_for_each_part(record: dict[str, Any]) -> None:
    text = record_text(record)
    # NaN is not equal to itself, so the texts are compared.
    assert json.dumps(json.loads(text)) == json.dumps(record)
    assert len(text.splitlines()) == len(record) + 2
