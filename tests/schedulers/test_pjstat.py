"""What PJM tells of jobs: what real machines printed, the words of its manual, and garbage."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpc_prefect.job.failure import Reason
from hpc_prefect.job.state import JobState, Observation
from hpc_prefect.schedulers.pjm import status as pjstat

FOLDER = Path(__file__).parents[1] / "transcripts" / "pjm"
#: As `--choose` has them; the widths are those of the real listings.
HEADER = "JOB_ID     JOB_NAME   ST  LST EC  PC  SN REASON          \n"
ENDS = ("EXT", "CCL", "RJT")

#: Every PJM code of the manual's list and the guide of Fugaku, and what it is here.
REASONS = {
    1: Reason.CANCELLED,
    2: Reason.REJECTED,
    3: Reason.REJECTED,
    4: Reason.CANCELLED,
    6: Reason.DEPENDENCY_NEVER_MET,
    7: Reason.PREEMPTED,
    8: Reason.REJECTED,
    9: Reason.NODE_FAILURE,
    10: Reason.WALLTIME,
    11: Reason.WALLTIME,
    12: Reason.OUT_OF_MEMORY,
    13: Reason.PROGRAM_FAILED,
    16: Reason.SETUP_FAILED,
    18: Reason.WALLTIME,
    20: Reason.NODE_FAILURE,
    21: Reason.SETUP_FAILED,
    22: Reason.NODE_FAILURE,
    23: Reason.OUT_OF_MEMORY,
    24: Reason.NODE_FAILURE,
    25: Reason.NODE_FAILURE,
    26: Reason.NODE_FAILURE,
    27: Reason.NODE_FAILURE,
    28: Reason.SETUP_FAILED,
    29: Reason.SETUP_FAILED,
    30: Reason.NODE_FAILURE,
    **dict.fromkeys((100, 120, 140, 160, 180), Reason.NODE_FAILURE),
}


def printed(name: str) -> str:
    return (FOLDER / f"{name}.txt").read_text()


def row(*cells: str) -> str:
    """A line under HEADER: id, name, state, last state, EC, PC, SN, reason."""
    widths = (10, 10, 3, 3, 3, 3, 2, 16)
    return " ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)) + "\n"


def seen(*cells: str) -> Observation:
    (record,) = pjstat.read_table(HEADER + row("7", "htag", *cells))
    return pjstat.observation(record)


def ended(pc: int | str, ec: str = "0", sn: str = "0", word: str = "EXT") -> Observation:
    return seen(word, "RNO", ec, str(pc), sn, "-")


# --- the table


def test_a_listing_of_fugaku_is_read_by_its_columns_though_its_dates_hold_blanks() -> None:
    first, second = pjstat.read_table(printed("fugaku_queue"))
    assert first["START_DATE"] == "(04/12 11:25)"
    assert first["ACCEPT"] == "04/12 11:25:50"
    assert (first["EC"], first["RSC_GRP"], first["REASON"]) == ("0", "small", "")
    assert [pjstat.observation(each) for each in (first, second)] == [
        Observation(id=job_id, state=JobState.QUEUED, word="RNA", tag="job1.sh")
        for job_id in ("6291500", "6291501")
    ]


def test_the_real_job_of_fugaku_that_ended_with_code_0_had_exceeded_its_walltime() -> None:
    good, bad = map(pjstat.observation, pjstat.read_table(printed("fugaku_history")))
    assert good == Observation(
        id="49047829",
        state=JobState.ENDED,
        word="EXT",
        cause=Reason.SUCCEEDED,
        exit_code=0,
    )
    assert bad == Observation(
        id="49047939",
        state=JobState.ENDED,
        word="EXT",
        cause=Reason.WALLTIME,
        signal="SIGXCPU",
        message="ELAPSE LIMIT EXC: PJM code 11, it exceeded its elapsed time",
    )


def test_every_state_of_a_listing_is_known_and_only_three_are_ends() -> None:
    found = {
        each["ST"]: pjstat.observation(each) for each in pjstat.read_table(printed("bsc_states"))
    }
    assert {word: each.state for word, each in found.items()} == {
        "ACC": JobState.QUEUED,
        "QUE": JobState.QUEUED,
        "RNA": JobState.QUEUED,
        "RNP": JobState.RUNNING,
        "RUN": JobState.RUNNING,
        "RNE": JobState.ENDING,
        "RNO": JobState.ENDING,
        "HLD": JobState.HELD,
        "ERR": JobState.HELD,
        "EXT": JobState.ENDED,
        "CCL": JobState.ENDED,
        "RJT": JobState.ENDED,
    }
    # This listing shows no codes: how the job ended, its own record must tell.
    assert (found["EXT"].cause, found["EXT"].exit_code) == (None, None)
    assert found["CCL"].cause is Reason.CANCELLED
    assert found["RJT"].cause is Reason.REJECTED


SPELLINGS = [
    *(("ACC", "ACCEPT"), ("QUE", "QUEUED"), ("RNA", "RUNNING-A"), ("RNP", "RUNNING-P")),
    *(("RUN", "RUNNING"), ("RNE", "RUNNING-E"), ("RNO", "RUNOUT"), ("SPP", "SUSPEND")),
    *(("SPD", "SUSPENDED"), ("RSM", "RESUME"), ("HLD", "HOLD"), ("ERR", "ERROR")),
    *(("EXT", "EXIT"), ("CCL", "CANCEL"), ("RJT", "REJECT")),
]
KNOWN = {word for pair in SPELLINGS for word in pair}


@pytest.mark.parametrize(("short", "long"), SPELLINGS)
def test_a_state_has_two_spellings(short: str, long: str) -> None:
    one, other = (
        pjstat.observation({"JOB_ID": "7", "ST": word, "EC": "0", "PC": "0", "SN": "0"})
        for word in (short, long)
    )
    assert one.state is not JobState.UNKNOWN
    assert (one.state, one.cause, one.message) == (other.state, other.cause, other.message)


def test_a_table_of_a_sites_own_tells_states_but_no_ends_of_its_own() -> None:
    rows = [pjstat.observation(each) for each in pjstat.read_table(printed("site_table"))]
    assert [(each.id, each.state) for each in rows] == [
        ("5170490", JobState.RUNNING),
        ("5170610", JobState.RUNNING),
        ("5170614", JobState.QUEUED),
    ]


@pytest.mark.parametrize(
    "text",
    [
        HEADER,
        "",
        "[INFO] PJM 0281 pjstat Data loading......\n",
        f"[INFO] PJM 0281 pjstat Data loading...\n{HEADER}",
        printed("site_table_empty"),
    ],
)
def test_an_answer_without_jobs_lists_none(text: str) -> None:
    assert pjstat.read_table(text) == []


def test_a_note_before_the_table_is_passed_over_even_on_the_same_line() -> None:
    line = row("7", "htag", "RUN", "RNP", "0", "0", "0", "-")
    for note in (
        "[INFO] PJM 0281 pjstat Data loading...\n",
        "[INFO] PJM 0281 pjstat Data loading.",
    ):
        (record,) = pjstat.read_table(note + HEADER + line)
        assert (record["JOB_NAME"], record["ST"]) == ("htag", "RUN")


def test_a_summary_and_headers_of_groups_are_passed_over() -> None:
    text = (
        "  ACCEPT QUEUED RUNING RUNOUT   HOLD  ERROR SUSPND REJECT   EXIT CANCEL  TOTAL\n"
        "       0      0      4      0      0      0      0      0      0      0      4\n"
        "s      0      4      8      0      0      0      0      0      0      0     12\n"
        "[ RSCUNIT: unit1 ]\n"
    )
    line = row("7", "htag", "RUN", "RNP", "0", "0", "0", "-")
    assert [each["JOB_ID"] for each in pjstat.read_table(text + HEADER + line)] == ["7"]


@pytest.mark.parametrize(
    "text", ["no\n", "JOB_ID NAME\n7 x\n", "pjstat: command not found\n", "{}\n"]
)
def test_what_is_no_table_is_told(text: str) -> None:
    with pytest.raises(ValueError, match="not a table with the columns JOB_ID and ST"):
        pjstat.read_table(text)


@pytest.mark.parametrize("lost", range(1, 60, 3))
def test_a_table_that_is_cut_off_is_told(lost: int) -> None:
    with pytest.raises(ValueError, match="it is cut off"):
        pjstat.read_table(printed("fugaku_history")[:-lost])


def test_a_name_that_is_wider_than_its_column_moves_nothing() -> None:
    line = "7          hq7k2m9x1abcdef EXT RNO 0   11  24 ELAPSE LIMIT EXC\n"
    (record,) = pjstat.read_table(HEADER + line)
    found = pjstat.observation(record)
    assert (found.tag, found.cause) == ("hq7k2m9x1abcdef", Reason.WALLTIME)


def test_a_row_that_cannot_be_read_is_a_job_of_which_nothing_is_known() -> None:
    for line in ("7          hq7k2m9x1abcdefEXT RNO\n", "12345678901234 EXT\n"):
        (record,) = pjstat.read_table(HEADER + line)
        found = pjstat.observation(record)
        assert (found.id, found.state) == (line.split()[0], JobState.UNKNOWN)


def test_a_name_of_ten_characters_may_be_cut_and_is_not_taken_for_the_whole() -> None:
    def named(name: str) -> pjstat.Record:
        return {"JOB_ID": "7", "JOB_NAME": name, "ST": "RUN"}

    assert pjstat.observation(named("hq7k2m9x1a")).tag == ""
    assert pjstat.observation(named("job1.sh")).tag == "job1.sh"
    assert pjstat.may_be(named("hq7k2m9x1a"), ["hq7k2m9x1abcdef"])
    assert pjstat.may_be(named("hq7k2m9x1abcdef"), ["hq7k2m9x1abcdef"])
    for other in ("hq7k2m9x1", "hq7k2m9x1b", "", "hq7k2m9x1abcdefg"):
        assert not pjstat.may_be(named(other), ["hq7k2m9x1abcdef"])


# --- how a job ended


@pytest.mark.parametrize("pc", REASONS)
def test_every_pjm_code_has_its_reason(pc: int) -> None:
    for word in ENDS:
        found = ended(pc, word=word)
        assert (found.state, found.cause) == (JobState.ENDED, REASONS[pc])
        assert found.message.startswith(f"PJM code {pc}, ")
        assert found.exit_code is None


def test_the_table_of_codes_holds_those_of_the_manual_and_the_internal_ones() -> None:
    assert set(pjstat.CODES) - set(range(100, 200)) == {pc for pc in REASONS if pc < 100}
    assert Reason.SUCCEEDED not in {reason for reason, _ in pjstat.CODES.values()}


def test_with_pjm_code_0_the_exit_code_and_the_signal_tell() -> None:
    assert (ended(0).cause, ended(0).exit_code) == (Reason.SUCCEEDED, 0)
    failed = ended(0, ec="3")
    assert (failed.cause, failed.exit_code, failed.signal) == (Reason.PROGRAM_FAILED, 3, "")
    killed = ended(0, sn="9")
    assert (killed.cause, killed.exit_code, killed.signal) == (
        Reason.PROGRAM_FAILED,
        None,
        "SIGKILL",
    )


@pytest.mark.parametrize(
    "word", ["ACC", "QUE", "RNA", "RNP", "RUN", "RNE", "RNO", "SPD", "HLD", "ERR"]
)
@pytest.mark.parametrize(
    "codes", [("0", "0", "0"), ("-", "-", "-"), ("1", "11", "24"), ("0", "4", "0")]
)
def test_codes_of_a_job_that_has_not_ended_mean_nothing(word: str, codes: tuple[str, ...]) -> None:
    found = seen(word, "QUE", *codes, "-")
    assert found.state is not JobState.ENDED
    assert (found.cause, found.exit_code, found.signal) == (None, None, "")


@pytest.mark.parametrize("pc", ["5", "14", "31", "99", "200", "-1", "999999"])
def test_a_code_that_is_not_known_is_a_failure(pc: str) -> None:
    found = ended(pc)
    assert found.cause is Reason.PROGRAM_FAILED
    assert found.message == f"PJM code {pc}, which hpc-prefect does not know"


def test_an_end_whose_codes_cannot_be_read_is_no_success() -> None:
    for codes in (("-", "0", "0"), ("0", "0", "-"), ("0", "-", "0"), ("0", "?", "0")):
        found = seen("EXT", "RNO", *codes, "-")
        assert (found.cause, found.exit_code) == (Reason.PROGRAM_FAILED, None)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("ELAPSE LIMIT EXCEEDED", Reason.WALLTIME),
        ("ELAPSE LIMIT EXC", Reason.WALLTIME),
        ("LIMIT OVER MEMORY", Reason.OUT_OF_MEMORY),
        ("NO CURRENT DIR", Reason.SETUP_FAILED),
        ("FILE IO ERROR", Reason.SETUP_FAILED),
        ("GATE CHECK", Reason.REJECTED),
        ("ANOTHER JOB STARTED", Reason.PREEMPTED),
        ("DEADLINE SCHEDULE STARTED", Reason.PREEMPTED),
        ("LOST COMM", Reason.NODE_FAILURE),
        ("INTERNAL ERROR", Reason.NODE_FAILURE),
        ("RESUME FAIL", Reason.NODE_FAILURE),
        ("SUSPEND FAIL", Reason.NODE_FAILURE),
    ],
)
def test_where_the_codes_are_hidden_pjms_words_tell(text: str, reason: Reason) -> None:
    for word in ("EXT", "CCL"):
        found = pjstat.observation({"JOB_ID": "7", "ST": word, "REASON": text})
        assert (found.cause, found.message) == (reason, text)
    # With codes they are only words: a warning about memory does not undo a success.
    codes = {"EC": "0", "PC": "0", "SN": "0"}
    assert pjstat.observation({"JOB_ID": "7", "ST": "EXT", "REASON": text} | codes).cause is (
        Reason.SUCCEEDED
    )


def test_why_a_job_waits_is_its_message() -> None:
    waiting = seen("QUE", "ACC", "0", "0", "0", "INSUFF NODE")
    assert (waiting.state, waiting.message) == (JobState.QUEUED, "INSUFF NODE")
    held = seen("HLD", "QUE", "0", "4", "0", "me:later")
    assert (held.state, held.message) == (JobState.HELD, "me:later")


def test_a_job_that_pjm_stopped_for_an_error_waits_for_a_person() -> None:
    found = seen("ERR", "QUE", "0", "0", "0", "NO CURRENT DIR")
    assert found.state is JobState.HELD
    assert found.message == (
        "NO CURRENT DIR: PJM stopped it for an error; it must be deleted with pjdel"
    )


COLUMNS = ("JOB_NAME", "ST", "STATUS", "EC", "PC", "SN", "REASON")
CELLS = ("EXT", "0", "-1", "11", "", "x", "99999999", "²")


@given(st.dictionaries(st.sampled_from(COLUMNS), st.sampled_from(CELLS)))
def test_only_code_0_everywhere_is_a_success(record: dict[str, str]) -> None:
    found = pjstat.observation({"JOB_ID": "7", **record})
    if found.cause is Reason.SUCCEEDED:
        assert [record[each] for each in ("EC", "PC", "SN")] == ["0", "0", "0"]


@given(st.text("JOB_ID ST\n123 EXT-[]_:x", max_size=120))
def test_any_text_is_a_table_or_is_told(text: str) -> None:
    try:
        rows = pjstat.read_table(text)
    except ValueError:
        return
    for each in rows:
        assert pjstat.observation(each).cause is not Reason.SUCCEEDED


@given(st.text(st.sampled_from("QRAXEUTCLH- Oab0²"), max_size=6))
def test_a_word_that_is_not_in_the_manual_is_unknown(word: str) -> None:
    if word not in KNOWN:
        found = pjstat.observation({"JOB_ID": "7", "ST": word, "PC": "0", "EC": "0", "SN": "0"})
        assert (found.state, found.cause) == (JobState.UNKNOWN, None)


# --- what PJM writes into files

LIMIT = "[ERR.] PJM 7004 Job 7 was canceled. The job exceeded its elapse time limit."
STATISTICS = """\
Job Statistical Information
 JOB ID                    : 7
 JOB NAME                  : htag
 STATE                     : EXT
 EXIT CODE                 : {ec}
 SIGNAL NO                 : 0
 PJM CODE                  : {pc}
 REASON                    : {reason}
"""


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        *((7001, Reason.PREEMPTED), (7002, Reason.NODE_FAILURE), (7003, Reason.WALLTIME)),
        *((7004, Reason.WALLTIME), (7005, Reason.OUT_OF_MEMORY), (7007, Reason.SETUP_FAILED)),
        *((7008, Reason.NODE_FAILURE), (7009, Reason.SETUP_FAILED), (7010, Reason.NODE_FAILURE)),
        *((7011, Reason.OUT_OF_MEMORY), (7012, Reason.NODE_FAILURE), (7013, Reason.NODE_FAILURE)),
        *((7014, Reason.NODE_FAILURE), (7015, Reason.NODE_FAILURE), (7016, Reason.NODE_FAILURE)),
        *((7018, Reason.NODE_FAILURE), (7019, Reason.NODE_FAILURE), (7021, Reason.NODE_FAILURE)),
        *((7050, Reason.OUT_OF_MEMORY), (7090, Reason.CANCELLED)),
    ],
)
def test_pjms_lines_in_the_output_tell_the_reason(number: int, reason: Reason) -> None:
    line = f"[ERR.] PJM {number} Job 7 was canceled. And why."
    assert pjstat.written_end(f"some output\n{line}\nmore\n") == (reason, line)


def test_the_last_line_counts() -> None:
    text = f"{LIMIT}\n[INFO] PJM 7090 Job 7 was canceled. User me executed pjdel command.\n"
    told = pjstat.written_end(text)
    assert told is not None
    assert told[0] is Reason.CANCELLED


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Killed\n",
        f"he said: {LIMIT}\n",
        "[INFO] PJM 7091 Job 7 was canceled. User me executed pjhold command.\n",  # it is held then
        "[ERR.] PJM 7099 Job 7 was canceled.\n",
        "[ERR.] PLE 0010 plexec The process terminated abnormally.\n",
        STATISTICS.format(ec=3, pc=0, reason="-"),  # how the program ended, its record tells
        STATISTICS.format(ec=0, pc=77, reason="-"),
        STATISTICS.format(ec=0, pc="", reason="-"),
        " PJM CODE                  : 11\n",  # a program may print such a line
        STATISTICS.format(ec=0, pc=20, reason="-") + STATISTICS.format(ec=3, pc=0, reason="-"),
    ],
)
def test_other_output_tells_nothing(text: str) -> None:
    assert pjstat.written_end(text) is None


def test_the_statistics_tell_the_reason_when_the_history_has_forgotten_the_job() -> None:
    text = STATISTICS.format(ec=0, pc=11, reason="ELAPSE LIMIT EXCEEDED")
    told = (Reason.WALLTIME, "ELAPSE LIMIT EXCEEDED: PJM code 11, it exceeded its elapsed time")
    assert pjstat.written_end(f"output\n{text}") == told
    plain = STATISTICS.format(ec=0, pc=20, reason="-")
    assert pjstat.written_end(plain) == (Reason.NODE_FAILURE, "PJM code 20, a node went down")


@given(st.text("[ERR.] PJM 7004\nJob Statistical Information PJM CODE : 11", max_size=100))
def test_any_output_can_be_read(text: str) -> None:
    pjstat.written_end(text)
