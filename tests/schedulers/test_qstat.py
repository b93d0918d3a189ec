"""What qstat prints, read from recordings of a real OpenPBS and from garbage."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpc_prefect.job.failure import Reason
from hpc_prefect.job.state import JobState, Observation
from hpc_prefect.schedulers.pbs import qstat

from .recorded import recorded

TABLE = """\
Scheduled stop time: 2025/10/29(Wed) 09:00:00 (Remain: 20days 13:59:51)

JOB_ID            JOB_NAME   STATUS    PROJECT QUEUE    START_DATE       ELAPSE   TOKEN NODE MIG
902244            h5gds_job  RUNNING   gz00    small-g  10/08 18:55:33   00:04:10   0.1    1   -
902245            hq7k2m9x1a FINISH    gz00    small-g  --               00:00:00   0.0    1   -
"""
NO_JOBS = """\
Scheduled stop time: 2025/10/29(Wed) 09:00:00 (Remain: 20days 13:59:51)

No unfinished job found. \n"""

ENDED = ("F", "X", "C")


def seen(name: str, step: str) -> Observation:
    """The one job in an answer, JSON or text."""
    text = recorded(name, step).stdout
    read = qstat.read_json if text.startswith("{") else qstat.read_text
    ((job_id, record),) = read(text).items()
    return qstat.record_observation(job_id, record)


def observed(**record: str) -> Observation:
    return qstat.record_observation("7.s", {"job_state": "F", "Job_Name": "htag", **record})


# --- the forms


def test_the_json_and_the_text_of_a_job_say_the_same() -> None:
    text = seen("end_walltime_exceeded", "finished_qstat_xf")
    assert text == seen("end_walltime_exceeded", "finished_qstat_xf_json")
    assert text == Observation(
        id="42.opbs", state=JobState.ENDED, word="F", cause=Reason.WALLTIME,
        tag="end_walltime_exceeded.sh", host="opbs", queued_at=1795344695.0,
        started_at=1795344695.0, ended_at=1795344707.0, used={"max_rss": 7144.0 * 1024},
        message="Job run at Sun Nov 22 at 10:51 on (c001:ncpus=1) and exceeded resource walltime",
    )  # fmt: skip


def test_the_text_of_many_jobs_holds_them_all() -> None:
    found = qstat.read_text(recorded("multi_ids", "qstat_xf_both").stdout)
    assert {job_id: each["job_state"] for job_id, each in found.items()} == {
        "68.opbs": "R",
        "69.opbs": "F",
    }


def test_wrapped_lines_are_joined_with_the_blank_that_stood_at_their_end() -> None:
    found = qstat.read_text(recorded("qstat_one_connection", "E_x_f").stdout)
    assert found["38.opbs"]["comment"] == (
        "Job run at Tue Nov 24 at 21:49 on (c001:ncpus=1:mem=51200kb) and failed"
    )


@pytest.mark.parametrize("step", ["env_quote_qstat_json", "env_bigint_qstat_json"])
def test_what_an_environment_does_to_the_json_leaves_the_rest_readable(step: str) -> None:
    held = seen("json_environments", step)
    assert (held.state, held.tag) == (JobState.HELD, "STDIN")


def test_a_record_with_a_newline_in_the_environment_tells_only_that_it_is_there() -> None:
    text = recorded("json_environments", "env_newline_qstat_f").stdout
    assert list(qstat.read_text(text).values()) == [{}]


def test_a_bytes_that_is_no_text_leaves_the_json_readable() -> None:
    text = recorded("end_exit0", "finished_qstat_xf_json").stdout
    broken = text.replace("C.UTF-8", "\N{REPLACEMENT CHARACTER}")
    assert qstat.read_json(broken).keys() == {"29.opbs"}


@pytest.mark.parametrize(
    "text", ["", "no", "[]", "{}", '{"Jobs": {}}', '{"pbs_server":"s"', "null"]
)
def test_what_is_no_json_answer_is_told(text: str) -> None:
    with pytest.raises(ValueError, match=r"Expecting|it is not what qstat -F json prints"):
        qstat.read_json(text)


def test_json_with_jobs_of_another_shape_is_told() -> None:
    for jobs in ([], {"1.s": []}, {"1.s": "F"}):
        with pytest.raises(
            ValueError, match=r"it is not what qstat -F json prints|not a JSON object"
        ):
            qstat.read_json(json.dumps({"pbs_server": "s", "Jobs": jobs}))
    with pytest.raises(ValueError, match="nested too deeply"):
        qstat.read_json("[" * 100_000)


def test_json_without_jobs_lists_none() -> None:
    assert qstat.read_json(recorded("unknown_id", "x_x_f_json").stdout) == {}


@pytest.mark.parametrize("lost", range(1, 400, 7))
def test_a_text_that_is_cut_off_is_told_and_its_job_has_not_ended_without_a_code(lost: int) -> None:
    text = recorded("end_exit3", "finished_qstat_xf").stdout
    cut = text[:-lost]
    if not cut.endswith("\n"):
        with pytest.raises(ValueError, match="it is cut off"):
            qstat.read_text(cut)
        return
    (record,) = qstat.read_text(cut).values()
    assert record.get("Exit_status", "3") == "3"
    assert bool(record) == ("Exit_status" in cut)


def test_a_text_that_ends_without_an_empty_line_is_whole() -> None:
    text = recorded("end_exit3", "finished_qstat_xf").stdout
    assert qstat.read_text(text.rstrip("\n") + "\n") == qstat.read_text(text)


def test_an_attribute_that_json_gives_twice_makes_it_no_answer() -> None:
    text = recorded("end_exit0", "finished_qstat_xf_json").stdout
    forged = text.replace('"job_state":', '"job_state":\t"R",\n"job_state":', 1)
    with pytest.raises(ValueError, match="twice"):
        qstat.read_json(forged)
    twice = text.replace('"Variable_List":\t{', '"Variable_List":\t{"A": 1, "A": 2,', 1)
    assert qstat.read_json(twice)["29.opbs"]["job_state"] == "F"


def test_a_table_in_the_place_of_records_is_told() -> None:
    with pytest.raises(ValueError, match="it has no line `Job Id:`"):
        qstat.read_text(recorded("multi_ids", "qstat_fH").stdout)


def test_no_text_lists_no_job() -> None:
    assert qstat.read_text("") == {}


# --- a site's table


def test_a_sites_table_is_read_by_its_columns() -> None:
    rows = qstat.read_table(TABLE)
    assert rows == [
        qstat.Row("902244", "h5gds_job", "RUNNING"),
        qstat.Row("902245", "hq7k2m9x1a", "FINISH"),
    ]
    assert [qstat.row_observation(row) for row in rows] == [
        Observation(id="902244", state=JobState.RUNNING, word="RUNNING"),
        # An end without a code: the script's own record tells how.
        Observation(id="902245", state=JobState.ENDED, word="FINISH"),
    ]


def test_a_site_without_jobs_says_so() -> None:
    assert qstat.read_table(NO_JOBS) == []
    assert qstat.read_table(NO_JOBS.replace("unfinished", "matching")) == []


@pytest.mark.parametrize("text", ["", NO_JOBS.split("No")[0], "JOB_ID STATUS\n1 RUNNING\n", "x"])
def test_an_empty_or_foreign_table_is_told(text: str) -> None:
    with pytest.raises(
        ValueError, match="not a table with the columns JOB_ID, JOB_NAME and STATUS"
    ):
        qstat.read_table(text)


def test_a_word_that_the_table_never_had_is_unknown() -> None:
    row = qstat.read_table(TABLE.replace("RUNNING", "DONE   "))[0]
    assert qstat.row_observation(row).state is JobState.UNKNOWN


# --- states


@pytest.mark.parametrize(
    ("name", "step", "word", "state"),
    [
        ("qdel_running", "running_qstat_f_json", "R", JobState.RUNNING),
        ("held", "held_qstat_f_json", "H", JobState.HELD),
        ("depend_afterok_fail", "child_held_qstat_f_json", "H", JobState.QUEUED),
        ("waiting_a", "qstat_f_json", "W", JobState.QUEUED),
        ("qsig_suspend", "qstat_f_json", "S", JobState.SUSPENDED),
        ("exiting_stageout_retry", "qstat_xf", "E", JobState.ENDING),
        ("end_exit0", "finished_qstat_xf", "F", JobState.ENDED),
    ],
)
def test_each_recorded_state_has_our_word(name: str, step: str, word: str, state: JobState) -> None:
    found = seen(name, step)
    assert (found.word, found.state) == (word, state)


def test_an_exiting_job_has_a_code_but_no_end_yet() -> None:
    found = seen("exiting_stageout_retry", "qstat_xf")
    assert (found.cause, found.exit_code, found.ended_at) == (None, None, 0.0)


@pytest.mark.parametrize(
    ("record", "state"),
    [
        ({"Hold_Types": "u", "substate": "20"}, JobState.HELD),
        ({"Hold_Types": "o", "substate": "20"}, JobState.HELD),
        ({"Hold_Types": "s", "substate": "20"}, JobState.HELD),
        ({"Hold_Types": "s", "substate": "22"}, JobState.QUEUED),
        ({"Hold_Types": "us", "substate": "22"}, JobState.HELD),
        ({"Hold_Types": "s", "depend": "afterok:1.s"}, JobState.QUEUED),
    ],
)
def test_only_a_hold_for_other_jobs_ends_by_itself(record: dict[str, str], state: JobState) -> None:
    assert observed(job_state="H", **record).state is state


@pytest.mark.parametrize("word", ["M", "", "f", "FINISHED", "Z"])
def test_a_state_without_a_meaning_here_is_unknown(word: str) -> None:
    found = observed(job_state=word, Exit_status="0", substate="92")
    assert (found.state, found.word, found.cause) == (JobState.UNKNOWN, word, None)


def test_a_job_that_can_never_run_says_so_while_it_waits() -> None:
    found = seen("queued_insufficient", "qstat_f_json")
    assert (found.state, found.cause) == (JobState.QUEUED, Reason.CAN_NEVER_RUN)
    assert found.message == (
        "Can Never Run: Insufficient amount of resource: ncpus (R: 100 A: 64 T: 64)"
    )
    assert observed(job_state="Q", comment="Not Running: Queue not started.").cause is None
    assert observed(job_state="R", comment="Can Never Run: x").cause is None


# --- ends


@pytest.mark.parametrize(
    ("name", "step", "cause", "exit_code"),
    [
        ("end_exit0", "finished_qstat_xf_json", Reason.SUCCEEDED, 0),
        ("end_exit3", "finished_qstat_xf", Reason.PROGRAM_FAILED, 3),
        ("end_sigterm_self", "finished_qstat_xf", Reason.PROGRAM_FAILED, 143),
        ("end_sigkill_self", "finished_qstat_xf", Reason.PROGRAM_FAILED, 137),
        ("end_cput_exceeded", "finished_qstat_xf_json", Reason.PROGRAM_FAILED, 137),
        ("end_bad_S_shell", "finished_qstat_xf", Reason.PROGRAM_FAILED, 254),
        ("end_mem_exceeded_enforced", "finished_qstat_xf", Reason.OUT_OF_MEMORY, None),
        ("qdel_running", "finished_qstat_xf", Reason.CANCELLED, None),
        ("qdel_force", "finished_qstat_xf", Reason.CANCELLED, None),
        ("qdel_queued", "finished_qstat_xf_json", Reason.CANCELLED, None),
        ("depend_afterok_fail", "child_after_qstat_xf_json", Reason.DEPENDENCY_NEVER_MET, None),
    ],
)
def test_each_recorded_end_has_its_reason(
    name: str, step: str, cause: Reason, exit_code: int | None
) -> None:
    found = seen(name, step)
    assert (found.state, found.cause, found.exit_code) == (JobState.ENDED, cause, exit_code)


def test_a_deleted_job_is_cancelled_whatever_its_code_is() -> None:
    """A code of 0 was seen after qdel, too."""
    jobs = qstat.read_text(recorded("qstat_one_connection", "E_x_f").stdout)
    assert jobs["40.opbs"]["Exit_status"] == "0"
    found = qstat.record_observation("40.opbs", jobs["40.opbs"])
    assert (found.cause, found.exit_code) == (Reason.CANCELLED, None)
    assert observed(Exit_status="0", comment="x and terminated by a@b").cause is Reason.CANCELLED


def test_a_job_that_was_deleted_is_not_over_while_pbs_lists_it_as_running() -> None:
    found = observed(job_state="R", comment="Job run at … and terminated by a@b", substate="42")
    assert (found.state, found.cause) == (JobState.RUNNING, None)


@pytest.mark.parametrize(
    ("code", "cause"),
    [
        (-1, Reason.SETUP_FAILED),
        (-2, Reason.SETUP_FAILED),
        (-3, Reason.NODE_FAILURE),
        (-10, Reason.SETUP_FAILED),
        (-11, Reason.NODE_FAILURE),
        (-19, Reason.CANCELLED_ELSEWHERE),
        (-25, Reason.PROGRAM_FAILED),
        (-26, Reason.OUT_OF_MEMORY),
        (-27, Reason.OUT_OF_MEMORY),
        (-28, Reason.PROGRAM_FAILED),
        (-29, Reason.WALLTIME),
        (-99, Reason.PROGRAM_FAILED),
    ],
)
def test_pbs_own_codes_are_no_codes_of_the_program(code: int, cause: Reason) -> None:
    found = observed(Exit_status=str(code), substate="93", stime="x")
    assert (found.cause, found.exit_code) == (cause, None)
    assert found.message.startswith(f"Exit_status {code}, ")


def test_torque_counts_its_codes_differently() -> None:
    found = observed(job_state="C", exit_status="-11")
    assert (found.state, found.cause) == (JobState.ENDED, Reason.WALLTIME)
    assert observed(job_state="C", exit_status="-10").cause is Reason.OUT_OF_MEMORY
    assert observed(job_state="C", exit_status="0").cause is Reason.SUCCEEDED


def test_a_signal_that_pbs_reports_is_named() -> None:
    found = observed(Exit_status="265", substate="93")
    assert (found.cause, found.signal, found.exit_code) == (
        Reason.PROGRAM_FAILED,
        "SIGKILL",
        137,
    )


def test_the_comment_tells_a_limit_where_the_code_does_not() -> None:
    for name, cause in (
        ("walltime", Reason.WALLTIME),
        ("mem", Reason.OUT_OF_MEMORY),
        ("vmem", Reason.OUT_OF_MEMORY),
        ("cput", Reason.PROGRAM_FAILED),
    ):
        comment = f"Job run at x and exceeded resource {name}"
        assert observed(Exit_status="143", comment=comment).cause is cause


@pytest.mark.parametrize(
    ("record", "cause", "message"),
    [
        ({"substate": "91"}, Reason.CANCELLED, "it was deleted"),
        (
            {"substate": "92", "depend": "afterok:1.s"},
            Reason.DEPENDENCY_NEVER_MET,
            "its dependency can no longer be met (afterok:1.s)",
        ),
        ({"substate": "93", "stime": "x"}, Reason.NODE_FAILURE, "its node no longer answers"),
        ({"substate": "92", "stime": "x"}, Reason.PROGRAM_FAILED, "PBS recorded no Exit_status"),
        (
            {"substate": "92"},
            Reason.PROGRAM_FAILED,
            "PBS recorded neither a start nor an Exit_status",
        ),
        ({}, Reason.PROGRAM_FAILED, "PBS recorded neither a start nor an Exit_status"),
        (
            {"Exit_status": "none"},
            Reason.PROGRAM_FAILED,
            "PBS recorded an Exit_status that cannot be read",
        ),
    ],
)
def test_an_end_without_a_code_is_never_a_success(
    record: dict[str, str], cause: Reason, message: str
) -> None:
    found = observed(**record)
    assert (found.cause, found.message, found.exit_code) == (cause, message, None)


# --- times and resources


def test_times_and_resources_are_read() -> None:
    found = observed(
        ctime="Tue Mar  3 00:00:01 2026", stime="Tue Mar  3 00:01:00 2026", job_state="R",
        exec_host="node1.x.org/0*4+node2.x.org/0*4",
        **{"resources_used.mem": "2gb", "resources_used.cput": "27:00:01"},
    )  # fmt: skip
    assert found.queued_at == 1772496001.0
    assert found.started_at - found.queued_at == 59.0
    assert found.host == "node1.x.org"
    assert found.used == {"max_rss": 2.0 * 1024**3, "cpu_seconds": 97201.0}


@pytest.mark.parametrize(
    "text", ["", "yesterday", "Tue Abc 3 00:00:01 2026", "Sun Feb 30 00:00:00 2026"]
)
def test_a_time_that_cannot_be_read_is_not_known(text: str) -> None:
    assert observed(ctime=text).queued_at == 0.0


@pytest.mark.parametrize("text", ["", "2", "kb", "-1kb", "1000000000000000000000kb", "0kb"])
def test_an_amount_that_cannot_be_read_is_left_out(text: str) -> None:
    assert observed(**{"resources_used.mem": text}).used == {}


# --- garbage

LINES = st.lists(
    st.one_of(
        st.text(max_size=20),
        st.sampled_from(
            [
                "Job Id: 7.s", "    job_state = F", "    Exit_status = 0", "\tx", "", "    a = ",
                "    job_state = Q", "JOB_ID JOB_NAME STATUS", "7 htag FINISH", "    substate = 92",
            ]
        ),
    )
)  # fmt: skip
VALUES = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
)
RECORDS = st.dictionaries(
    st.sampled_from(
        ["job_state", "Exit_status", "exit_status", "substate", "comment", "stime", "depend",
         "Hold_Types", "ctime", "exec_host", "resources_used.mem", "resources_used.cput"]
    ),
    st.text("-019 :=FHQkb\u0663é", max_size=12)
    | st.sampled_from(["F", "H", "Q", "91", "92", "0", "-29", "99999999999"]),
)  # fmt: skip


@given(LINES)
def test_any_text_gives_jobs_or_an_error(lines: list[str]) -> None:
    text = "\n".join(lines)
    for read in (qstat.read_text, qstat.read_table, qstat.read_json):
        try:
            found = read(text)
        except ValueError:
            continue
        for row in found if isinstance(found, list) else ():
            assert (qstat.row_observation(row).state is JobState.ENDED) == (
                row.word in ("FINISH", "EXPIRED")
            )
        for record in found.values() if isinstance(found, dict) else ():
            assert "    job_state = F" in lines or record.get("job_state") not in ENDED


@given(st.dictionaries(st.text(max_size=6), VALUES), st.booleans())
def test_any_json_gives_jobs_or_an_error(attributes: dict[str, object], inside: bool) -> None:
    jobs = {"7.s": attributes} if inside else attributes
    try:
        found = qstat.read_json(json.dumps({"pbs_server": "s", "Jobs": jobs}))
    except ValueError:
        return
    for job_id, record in found.items():
        assert all(isinstance(value, str) for value in record.values())
        qstat.record_observation(job_id, record)


@given(RECORDS)
def test_any_record_is_judged_and_only_pbs_word_ends_it(record: dict[str, str]) -> None:
    found = qstat.record_observation("7.s", record)
    assert (found.state is JobState.ENDED) == (record.get("job_state") in ENDED)
    if found.state is JobState.ENDED:
        assert found.cause is not None
    else:
        assert found.cause in (None, Reason.CAN_NEVER_RUN)
    if found.cause is Reason.SUCCEEDED:
        assert int(record.get("Exit_status", record.get("exit_status", "1"))) == 0
