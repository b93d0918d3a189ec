"""PBS's dialect: what it makes of recorded answers to a submission and to a question."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpc_prefect.job.dialogue import Reply
from hpc_prefect.job.failure import Reason
from hpc_prefect.job.state import JobState, Observation
from hpc_prefect.schedulers.base import Accepted, NoAnswer, Refused, Submission, Unclear
from hpc_prefect.schedulers.pbs.scheduler import PBSScheduler

from .pbs_rig import (
    PBS,
    TABLE,
    TICKET,
    letters,
    spec,
)
from .recorded import converse, recorded, search

BOTH = letters(_68="R", _69="F")

# --- submitting


def submitted(reply: Reply) -> Submission:
    return converse(PBS.submit(spec(), TICKET), reply)[0]


def test_a_submission_names_job_and_files_on_the_command_line() -> None:
    """There they win over lines in the script, and need no quoting."""
    outcome, commands = converse(PBS.submit(spec(), TICKET), Reply(0, "123.opbs\n"))
    assert outcome == Accepted("123.opbs")
    assert commands == ["qsub -N htag -o /w/f/o -e /w/f/e /w/f/s.sh"]


@pytest.mark.parametrize("printed", ["7\n", "7.a-b.c_d.org\n", "Welcome!\n7.s\n\n"])
def test_the_whole_id_is_kept(printed: str) -> None:
    assert submitted(Reply(0, printed)) == Accepted(printed.split()[-1])


@pytest.mark.parametrize(
    ("name", "step", "said"),
    [
        ("qsub_bad_queue", "qsub", "Unknown queue"),
        ("qsub_queue_disabled", "qsub", "Queue is not enabled"),
        ("qsub_unknown_group", "group_list", "Bad GID for job execution"),
        ("qsub_acl_group_queue", "qsub", "Unauthorized Request"),
        (
            "qsub_over_queue_resources_max",
            "walltime",
            "Job violates queue and/or server resource limits",
        ),
        (
            "qsub_malformed_l",
            "qsub_0",
            "Illegal attribute or resource value Resource_List.select",
        ),
        ("qsub_malformed_l", "qsub_1", "Unknown resource: foo"),
        ("qsub_missing_script", "qsub", "script file:: No such file or directory"),
        ("qsub_script_is_dir", "qsub", "script not a file"),
        ("qsub_bad_directive", "qsub", None),
        ("qsub_bad_option", "qsub", "invalid option -- '-'\ninvalid option -- 'n'"),
        ("qsub_bad_jobname", "name_slash", "illegal -N value"),
        ("json_environments", "env_sq_qsub_v", "cannot send environment with the job"),
    ],
)
def test_a_recorded_refusal_is_one(name: str, step: str, said: str | None) -> None:
    outcome = submitted(recorded(name, step))
    assert isinstance(outcome, Refused), outcome
    assert not outcome.full
    assert outcome.said == said or (said is None and "directive error" in outcome.said)


def test_too_many_waiting_jobs_are_told_apart_from_a_wrong_job() -> None:
    assert submitted(recorded("over_limit", "limited_c_qsub_2")) == Refused(
        "would exceed queue generic's per-user limit", full=True
    )
    full = Reply(198, "", "qsub: Maximum number of jobs already in queue\n")
    assert submitted(full) == Refused("Maximum number of jobs already in queue", full=True)


def test_what_a_sites_hook_says_is_a_refusal() -> None:
    assert submitted(Reply(32, "", "qsub: Project gz00 has no points left\n")) == Refused(
        "Project gz00 has no points left"
    )


@pytest.mark.parametrize(
    "reply",
    [
        recorded("server_down", "qsub"),
        recorded("server_unresolvable", "qsub"),
        Reply(None, "", ""),
        Reply(None, "7.s\n", ""),
        Reply(-9, "", "Killed"),
        Reply(137, "", "Killed"),
        Reply(-6, "", "free(): invalid pointer"),
        Reply(0, "", ""),
        Reply(0, "Welcome!\n", ""),
        Reply(0, "7.s\n8.s\n", ""),
        Reply(1, "7.s\n", "qsub: script not a file"),
        Reply(1, "", "qsub: something new"),
        Reply(170, "", ""),
        Reply(170, "", "something else"),
        Reply(32, "", "qsub: cannot connect to server opbs (errno=15010)"),
        Reply(183, "", "qsub: Batch protocol error"),
        Reply(163, "", "qsub: PBS server internal error"),
        Reply(212, "", "qsub: Request not allowed: Server shutting down"),
    ],
)
def test_anything_else_is_unclear(reply: Reply) -> None:
    assert submitted(reply) == Unclear(reply.said)


@given(
    st.integers(1, 255) | st.none(),
    st.text("ab1.\n :", max_size=12),
    st.sampled_from(["", "qsub: ", "Connection refused\n"]),
    st.text("abc :\n", max_size=20),
)
def test_an_answer_that_nobody_knows_is_no_refusal_and_no_job(
    code: int | None, out: str, prefix: str, err: str
) -> None:
    outcome = submitted(Reply(code, out, prefix + err))
    if code != 32:
        assert isinstance(outcome, Unclear)


# --- observing


def test_many_jobs_in_queue_and_history_are_asked_about_in_one_command() -> None:
    reply = recorded("multi_ids", "qstat_xE_f_json")
    answer, commands = converse(PBS.observe(["68.opbs", "69.opbs"], {}), reply)
    assert commands == ["qstat -E -x -f -F json 68.opbs 69.opbs"]
    assert isinstance(answer, dict)
    assert {job_id: (seen.state, seen.cause) for job_id, seen in answer.items()} == {  # type: ignore[union-attr]
        "68.opbs": (JobState.RUNNING, None),
        "69.opbs": (JobState.ENDED, Reason.SUCCEEDED),
    }


def test_every_command_has_a_time_limit_and_qstat_a_time_zone() -> None:
    """A hung server blocks them for ever; qstat prints local times without a zone."""
    started = [
        PBS.submit(spec(), TICKET), PBS.observe(["1.s"], {}), PBS.observe(["1.s"], TABLE),
        search(PBS, "htag", {}), PBS.cancel({"1.s": "htag"}, {}),
    ]  # fmt: skip
    commands = [next(dialogue) for dialogue in started]
    assert all(command.timeout == 60.0 for command in commands)
    assert {c.environment.get("TZ") for c in commands if c.argv[0] == "qstat"} == {"UTC"}


def test_a_job_that_the_json_does_not_list_is_asked_for_as_text_before_it_is_absent() -> None:
    answer, commands = converse(
        PBS.observe(["37.opbs", "40.opbs", "99999.opbs"], {}),
        recorded("qstat_one_connection", "E_x_f_json_some_unknown"),
        recorded("qstat_one_connection", "E_x_f_unknown"),
    )
    assert commands[1] == "qstat -E -x -f 99999.opbs"
    assert isinstance(answer, dict)
    assert answer.keys() == {"37.opbs", "40.opbs"}


def test_json_that_holds_the_first_job_only_loses_none() -> None:
    """OpenPBS without -E; a site's PBS may do so with it."""
    answer, _ = converse(
        PBS.observe(["68.opbs", "69.opbs"], {}),
        recorded("multi_ids", "qstat_number_only"),
        recorded("multi_ids", "qstat_xf_both"),
        letters(_69="F"),
    )
    assert isinstance(answer, dict)
    assert answer.keys() == {"68.opbs", "69.opbs"}


@pytest.mark.parametrize("broken", ["", "{", '{"pbs_server": "s", "Jobs": {"68.opbs": {"a": \\x'])
def test_json_that_cannot_be_parsed_is_asked_for_as_text(broken: str) -> None:
    answer, commands = converse(
        PBS.observe(["68.opbs", "69.opbs"], {}),
        Reply(0, broken),
        recorded("multi_ids", "qstat_xf_both"),
        BOTH,
    )
    assert commands[1] == "qstat -E -x -f 68.opbs 69.opbs"
    assert isinstance(answer, dict)
    assert answer.keys() == {"68.opbs", "69.opbs"}


def test_the_text_dialect_asks_for_text_at_once() -> None:
    answer, commands = converse(
        PBS.observe(["68.opbs", "69.opbs"], {"status_dialect": "text"}),
        recorded("multi_ids", "qstat_xf_both"),
        BOTH,
    )
    assert commands == ["qstat -E -x -f 68.opbs 69.opbs", "qstat -E -x 68.opbs 69.opbs"]
    assert isinstance(answer, dict)
    assert answer.keys() == {"68.opbs", "69.opbs"}


def test_an_old_qstat_is_asked_for_text_about_many_and_for_json_about_one() -> None:
    old = {"one_connection": False}
    _, commands = converse(
        PBS.observe(["68.opbs", "69.opbs"], old), recorded("multi_ids", "qstat_xf_both"), BOTH
    )
    assert commands == ["qstat -x -f 68.opbs 69.opbs", "qstat -x 68.opbs 69.opbs"]
    one = recorded("end_exit0", "finished_qstat_xf_json")
    _, commands = converse(PBS.observe(["29.opbs"], old), one)
    assert commands == ["qstat -x -f -F json 29.opbs"]


def test_without_one_connection_only_the_jobs_that_pbs_names_are_absent() -> None:
    old = {"one_connection": False, "status_dialect": "text"}
    both = recorded("multi_ids", "qstat_xf_both")
    reply = Reply(153, both.stdout, "qstat: Unknown Job Id 888888.opbs\n")
    answer, _ = converse(PBS.observe(["68.opbs", "69.opbs", "888888.opbs"], old), reply, BOTH)
    assert isinstance(answer, dict)
    assert answer.keys() == {"68.opbs", "69.opbs"}
    answer, _ = converse(PBS.observe(["68.opbs", "70.opbs"], old), reply, letters(_68="R"))
    assert isinstance(answer, dict)
    assert answer["70.opbs"] == NoAnswer("exit status 153, qstat: Unknown Job Id 888888.opbs")
    assert converse(PBS.observe(["70.opbs"], old), Reply(0, ""))[0] == {
        "70.opbs": NoAnswer("exit status 0, nothing")
    }


def test_the_other_words_for_the_history_are_used() -> None:
    for flag, shown in (("-H", " -H"), ("none", "")):
        command = next(PBS.observe(["1.s"], {"history_flag": flag, "status_options": ["-w"]}))
        assert str(command) == f"qstat -E{shown} -f -F json -w 1.s"


def test_a_site_without_history_tells_that_a_job_has_ended_but_not_how() -> None:
    options = {"history_flag": "none", "one_connection": False}
    answer, _ = converse(
        PBS.observe(["69.opbs"], options),
        recorded("finished_without_x", "f_json"),
        recorded("finished_without_x", "f"),
    )
    ended = Observation(id="69.opbs", state=JobState.ENDED, word="finished")
    assert answer == {"69.opbs": ended}


def test_a_site_without_history_no_longer_lists_some_that_ended() -> None:
    """With -E, PBS names only the last of those that it passes over."""
    step = recorded("qstat_one_connection", "E_f_finished_and_unknown")
    options = {"history_flag": "none", "status_dialect": "text"}
    answer, _ = converse(PBS.observe(["37.opbs", "40.opbs", "99999.opbs"], options), step)
    assert answer == {}


def test_an_id_of_another_server_does_not_silence_the_others() -> None:
    answer, commands = converse(
        PBS.observe(["1.other", "37.opbs", "40.opbs"], {}),
        recorded("qstat_one_connection", "E_x_f_json_foreign_server"),
        recorded("qstat_one_connection", "E_x_f_json_some_unknown"),
    )
    assert commands[1] == "qstat -E -x -f -F json 37.opbs 40.opbs"
    assert isinstance(answer, dict)
    assert answer.pop("1.other") == NoAnswer(
        "exit status 1, qstat: illegally formed job identifier: 1.other"
    )
    assert answer.keys() == {"37.opbs", "40.opbs"}


def test_an_id_of_another_server_does_not_silence_the_others_in_the_text_either() -> None:
    answer, commands = converse(
        PBS.observe(["1.other", "68.opbs", "69.opbs"], {"status_dialect": "text"}),
        Reply(1, "", "qstat: illegally formed job identifier: 1.other\n"),
        recorded("multi_ids", "qstat_xf_both"),
        BOTH,
    )
    assert commands[1] == "qstat -E -x -f 68.opbs 69.opbs"
    assert isinstance(answer, dict)
    assert isinstance(answer.pop("1.other"), NoAnswer)
    assert answer.keys() == {"68.opbs", "69.opbs"}


def test_only_ids_of_another_server_give_no_answer() -> None:
    reply = recorded("unknown_id", "x_other_server")
    answer, _ = converse(PBS.observe(["888888.otherserver"], {}), reply)
    assert answer == NoAnswer(reply.said)


def test_a_job_is_known_by_its_number_where_the_servers_name_is_written_differently() -> None:
    reply = recorded("end_exit0", "finished_qstat_xf_json")
    answer, _ = converse(PBS.observe(["29.opbs.site.org"], {}), reply)
    assert isinstance(answer, dict)
    assert answer["29.opbs.site.org"].id == "29.opbs.site.org"  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "reply",
    [
        recorded("server_down", "qstat_f_json"),
        recorded("server_unresolvable", "qstat"),
        Reply(None, recorded("end_exit0", "finished_qstat_xf_json").stdout, ""),
        Reply(-9, recorded("end_exit0", "finished_qstat_xf_json").stdout, ""),
    ],
)
def test_a_question_that_failed_is_no_answer(reply: Reply) -> None:
    assert converse(PBS.observe(["29.opbs"], {}), reply)[0] == NoAnswer(reply.said)
    text = {"status_dialect": "text"}
    assert converse(PBS.observe(["29.opbs"], text), reply)[0] == NoAnswer(reply.said)


def test_a_text_that_is_cut_off_is_no_answer() -> None:
    whole = recorded("end_exit3", "finished_qstat_xf").stdout
    cut = whole[: whole.index("    Exit_status") + 9]
    answer, _ = converse(PBS.observe(["30.opbs"], {"status_dialect": "text"}), Reply(0, cut))
    assert answer == NoAnswer(f"an answer of qstat -f cannot be used: it is cut off: {cut[:200]!r}")


def test_when_the_second_question_fails_what_the_first_told_is_kept() -> None:
    down = recorded("server_down", "qstat_f")
    answer, _ = converse(
        PBS.observe(["68.opbs", "69.opbs"], {}), recorded("multi_ids", "qstat_number_only"), down
    )
    assert isinstance(answer, dict)
    assert answer["69.opbs"] == NoAnswer(down.said)
    assert isinstance(answer["68.opbs"], Observation)


@pytest.mark.parametrize("dialect", ["json", "text"])
def test_an_option_that_a_site_does_not_know_is_named(dialect: str) -> None:
    said = (
        "exit status 2, qstat: invalid option -- 'Z'; this site's command does not know an option"
        " that it was given: see pbs.one_connection (-E), pbs.history_flag (-x, -H),"
        " pbs.status_options and pbs.status_dialect (-F json) of the HPC profile"
    )
    reply = recorded("qstat_one_connection", "bad_option")
    answer, _ = converse(PBS.observe(["37.opbs"], {"status_dialect": dialect}), reply)
    assert answer == NoAnswer(said)


def test_a_server_without_history_is_asked_without_it_from_then_on() -> None:
    pbs = PBSScheduler()
    none = Reply(0, "", "qstat: PBS is not configured to maintain job history 69.opbs\n")
    answer, commands = converse(
        pbs.observe(["69.opbs"], {}),
        none,
        recorded("finished_without_x", "f_json"),
        recorded("unknown_id", "x_f"),
    )
    assert answer == {"69.opbs": NoAnswer(recorded("unknown_id", "x_f").said)} or answer == {}
    assert commands[1:] == ["qstat -E -f -F json 69.opbs", "qstat -E -f 69.opbs"]
    for dialogue in (pbs.observe(["69.opbs"], {}), search(pbs, "htag", {})):
        assert " -x" not in str(next(dialogue))


def test_without_history_a_job_without_a_record_is_lost_once_it_is_surely_absent() -> None:
    told, profile = PBSScheduler(), PBSScheduler()
    quiet = Reply(0, "", "qselect: PBS is not configured to maintain job history\n")
    answer, commands = converse(search(told, "htag", {}), quiet, Reply(0))
    assert (answer, commands) == ({}, ["qselect -x -N htag", "qselect -N htag"])
    next(profile.observe(["69.opbs"], {"history_flag": "none"}))
    for pbs in (told, profile):
        assert pbs.patience.lost == pbs.patience.absent
    assert PBSScheduler().patience.lost > PBS.patience.absent


@pytest.mark.parametrize("dialect", ["json", "text"])
def test_a_job_that_was_moved_to_another_server_is_listed_no_more(dialect: str) -> None:
    text = recorded("end_exit0", "finished_qstat_xf").stdout.replace("state = F", "state = M")
    data = recorded("end_exit0", "finished_qstat_xf_json").stdout.replace(
        '"job_state":\t"F"', '"job_state":\t"M"'
    )
    replies = [Reply(0, data)] if dialect == "json" else [Reply(0, text), letters(_29="M")]
    answer, _ = converse(PBS.observe(["29.opbs"], {"status_dialect": dialect}), *replies)
    assert answer == {}


@given(st.integers(0, 255) | st.none(), st.text("{}FJob Id:=\n\t 7.s", max_size=60))
def test_garbage_is_never_an_end(code: int | None, text: str) -> None:
    for options in ({}, {"status_dialect": "text"}, {"one_connection": False}, TABLE):
        dialogue = PBS.observe(["7.s"], options)
        next(dialogue)
        try:
            for _ in range(4):
                dialogue.send(Reply(code, text))
        except StopIteration as stop:
            answer = stop.value
        seen = {} if isinstance(answer, NoAnswer) else answer
        for each in seen.values():
            assert isinstance(each, NoAnswer) or each.state is not JobState.ENDED
