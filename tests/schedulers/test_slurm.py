"""Slurm's dialect as pure text: what it asks for, and what it makes of recorded answers.

The recordings are of a real Slurm 22.05. Rows of `squeue` and `sacct` in our own format that no
recording has are made here of the words of its manual.
"""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hpc_prefect.blocks import SlurmOptions
from hpc_prefect.job.dialogue import Reply
from hpc_prefect.job.failure import Reason
from hpc_prefect.job.spec import Executable, JobSpec, Resources, Site
from hpc_prefect.job.state import JobState, Observation
from hpc_prefect.schedulers import scheduler_for
from hpc_prefect.schedulers.base import Accepted, NoAnswer, Refused, Submission, Ticket, Unclear
from hpc_prefect.schedulers.slurm import SlurmScheduler

from .recorded import converse

SLURM = SlurmScheduler()
FOLDER = Path(__file__).parents[1] / "transcripts" / "slurm"
TICKET = Ticket(
    tag="htag", folder="/w/f", script="/w/f/s.sh", scheduler_out="/w/f/o", scheduler_err="/w/f/e"
)
DEFAULT = SlurmOptions().model_dump(mode="json")
ALWAYS = ["--nodes=2", "--ntasks-per-node=4", "--cpus-per-task=8", "--time=0-01:30:00"]
ALONE = {"accounting": False}


def recorded(name: str) -> Reply:
    found = json.loads((FOLDER / f"{name}.json").read_text())
    return Reply(found["rc"], found["stdout"], found["stderr"])


def spec(
    options: dict[str, Any] | None = None, site: dict[str, Any] | None = None, **changes: Any
) -> JobSpec:
    """A job of 2 nodes × 4 ranks × 8 threads; options, `site` and shape with changes."""
    shape = {"num_nodes": 2, "ranks_per_node": 4, "threads_per_rank": 8, "walltime": 5400}
    work_dir, names = changes.pop("work_dir", "/w"), changes.pop("secret_names", ())
    return JobSpec(
        name="n",
        command_name="c",
        executable=Executable(path="/bin/true"),
        site=Site(scheduler="slurm", options=DEFAULT | (options or {}), **(site or {})),
        resources=Resources(**shape | changes),
        work_dir=work_dir,
        secret_names=names,
    )


def directives(*given: Any, **changes: Any) -> list[str]:
    """The options in the script after those that every job has."""
    lines = SLURM.preamble(spec(*given, **changes), TICKET).directives
    assert all(line.startswith("#SBATCH --") for line in lines)
    return [line.removeprefix("#SBATCH ") for line in lines][len(ALWAYS) :]


def row(**changes: str) -> str:
    """A row of the queue about a running job, with changes."""
    fields = {
        "JobID": "7", "Name": "htag", "State": "RUNNING", "exit_code": "0", "SubmitTime": "100",
        "StartTime": "110", "EndTime": "410", "BatchHost": "n1", "Reason": "None",
    }  # fmt: skip
    return "|".join((fields | changes).values()) + "|\n"


def past(**changes: str) -> str:
    """A row of the history about a job that succeeded, with changes."""
    fields = {
        "JobID": "7", "JobName": "htag", "State": "COMPLETED", "ExitCode": "0:0", "Submit": "100",
        "Start": "110", "End": "120", "NodeList": "n1", "Reason": "None",
    }  # fmt: skip
    return "|".join((fields | changes).values()) + "\n"


def in_queue(**changes: str) -> Observation:
    answer, _ = converse(SLURM.observe(["7"], {}), Reply(0, row(**changes)))
    return answer["7"]  # type: ignore[index, return-value]


def in_history(**changes: str) -> Observation:
    gone = recorded("squeue_one_unknown")
    answer, _ = converse(SLURM.observe(["7"], {}), gone, Reply(0, past(**changes)))
    return answer["7"]  # type: ignore[index, return-value]


def submission(reply: Reply) -> Submission:
    return converse(SLURM.submit(spec(), TICKET), reply)[0]


# --- what is asked for


def test_the_scheduler_is_registered_under_its_name_and_runs_elsewhere() -> None:
    found = scheduler_for("slurm")
    assert isinstance(found, SlurmScheduler)
    assert (found.name, found.runs_here) == ("slurm", False)


def test_the_shape_is_in_the_script_and_nothing_that_was_not_asked_for() -> None:
    preamble = SLURM.preamble(spec(), TICKET)
    assert preamble.directives == tuple(f"#SBATCH {option}" for option in ALWAYS)


def test_the_script_learns_its_id_and_how_often_it_was_requeued() -> None:
    preamble = SLURM.preamble(spec(), TICKET)
    assert preamble.id_expression == '"$SLURM_JOB_ID"'
    assert preamble.restarts == '"${SLURM_RESTART_COUNT:-0}"'


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(1, "0-00:00:01"), (86399, "0-23:59:59"), (86400, "1-00:00:00"), (200_000, "2-07:33:20")],
)
def test_a_walltime_over_a_day_is_written_with_days(seconds: int, text: str) -> None:
    lines = SLURM.preamble(spec(walltime=seconds), TICKET).directives
    assert f"#SBATCH --time={text}" in lines


@pytest.mark.parametrize(
    ("asked", "text"), [(1, "1M"), (1024**2, "1M"), (1024**2 + 1, "2M"), (3 * 1024**3, "3072M")]
)
def test_memory_is_rounded_up_to_megabytes(asked: int, text: str) -> None:
    assert directives(memory_per_node=asked) == [f"--mem={text}"]


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({}, "--gpus-per-node=3"),
        ({"gpu_type": "a100"}, "--gpus-per-node=a100:3"),
        ({"gpu_option": "gres"}, "--gres=gpu:3"),
        ({"gpu_option": "gres", "gpu_type": "a100"}, "--gres=gpu:a100:3"),
    ],
)
def test_gpus_are_asked_for_as_the_site_wants_it(options: dict[str, Any], line: str) -> None:
    assert directives(options, gpus_per_node=3) == [line]
    assert directives(options) == []


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"qos": "long"}, "--qos=long"),
        ({"reservation": "day"}, "--reservation=day"),
        ({"constraint": "[ib|opa]&ssd"}, "--constraint=[ib|opa]&ssd"),
        ({"exclusive": True}, "--exclusive"),
        ({"qpu": ["a", "b"]}, "--qpu=a,b"),
        ({"requeue": "yes"}, "--requeue"),
        ({"requeue": "no"}, "--no-requeue"),
        ({"directives": ["--licenses=fluent"]}, "--licenses=fluent"),
    ],
)
def test_each_option_is_one_directive(options: dict[str, Any], line: str) -> None:
    assert SLURM.problems(spec(options)) == []
    assert directives(options) == [line]


def test_queue_and_project_are_partition_and_account() -> None:
    site = {"queue": "debug,long", "project": "gz00"}
    assert directives({}, site) == ["--partition=debug,long", "--account=gz00"]
    assert SLURM.problems(spec({}, site)) == []


def test_a_job_with_secrets_is_never_requeued() -> None:
    assert directives(secret_names=("TOKEN",)) == ["--no-requeue"]
    asked = spec({"requeue": "yes"}, secret_names=("TOKEN",))
    assert SLURM.problems(asked) == [
        "slurm.requeue is 'yes', but the profile has a secret_environment: a job reads its secrets"
        " once, so a requeued one would have none; choose 'no', or use retries"
    ]


# --- what is refused


REFUSED = {
    "the job's name is how it is found again": ["-J x", "--job-name=x"],
    "output goes to the job folder": [
        *("-o x", "-ox", "--output=x", "--output x", "--outp=x", "-e x", "-ex", "--error=x"),
        "--open-mode=append",
    ],
    "the program runs in work_dir": ["-D /x", "--chdir=/x"],
    "one call is one job": [
        *("-a 1-2", "-a1-2", "--array=1-2", "--arr=1-2", "-Ha1-2", "--comment=x --array=1-2"),
        *('--comment=x "--array=1-2"', "--comment=x --ar'ra'y=1-2", "-\\a 1-2"),
    ],
    "the other commands would ask another cluster": ["-M x", "--clusters=x", "--cluster=x"],
    "the flow waits by itself": ["-W", "-QW", "--wait"],
    "set ranks_per_node in the execution profile": ["-n 4", "--ntasks=4", "--ntasks-per-node=4"],
    "set threads_per_rank in the execution profile": ["-c 4", "-c4", "--cpus-per-task=4"],
    "set walltime in the execution profile": ["-t 5", "-t5", "--time=5"],
    "set num_nodes in the execution profile": ["-N 5", "-N5", "--nodes=5"],
    "set project_cpu or project_gpu": ["-A x", "--account=x"],
    "set queue_cpu or queue_gpu": ["-p x", "--partition=x"],
    "set memory_per_node in the execution profile": ["--mem=5G", "--mem-per-cpu=5G"],
    "set slurm.requeue": ["--requeue", "--no-requeue"],
    "the script is ours": ["--wrap=true"],
    "the job would not be submitted": ["--test-only"],
    "it is given": ["--parsable"],
}


@pytest.mark.parametrize("line", [line for lines in REFUSED.values() for line in lines])
def test_a_directive_that_would_undo_ours_is_refused_in_every_spelling(line: str) -> None:
    (why,) = (why for why, lines in REFUSED.items() if line in lines)
    assert SLURM.problems(spec({"directives": [line]})) == [
        f"slurm.directives {line!r} cannot be given: {why}"
    ]


@pytest.mark.parametrize(
    "line",
    [
        *("--nice", "--nice -5", "--time-min=5", "--mem-bind=local", "--wait-all-nodes=1", "-H"),
        *("--dependency=afterok:5", "--comment=x", "--cpus-per-gpu=2", "-k", "-x n1", "--"),
    ],
)
def test_other_directives_are_the_sites_own(line: str) -> None:
    assert SLURM.problems(spec({"directives": [line]})) == []
    assert SLURM.preamble(spec({"directives": [line]}), TICKET).directives[-1] == f"#SBATCH {line}"


@pytest.mark.parametrize("line", ["", " ", "\t", "--x\nrm -rf x", "--x\r", "--x\u2028b"])
def test_a_directive_is_one_line(line: str) -> None:
    assert SLURM.problems(spec({"directives": [line]})) == [
        f"slurm.directives is {line!r}: write one option on one line"
    ]


@pytest.mark.parametrize("line", ["licenses=fluent", '"--array=1-2"', " --licenses=fluent"])
def test_a_directive_begins_with_a_dash(line: str) -> None:
    assert f"slurm.directives is {line!r}: it must begin with - (the prefix is added)" in (
        SLURM.problems(spec({"directives": [line]}))
    )


VALUES = ["queue", "project", "slurm.qos", "slurm.reservation", "slurm.constraint"]


def with_value(what: str, value: Any, **changes: Any) -> JobSpec:
    """A job whose field of that name has this value."""
    name = what.removeprefix("slurm.")
    return spec({name: value} if "." in what else {}, {} if "." in what else {name: value})


@pytest.mark.parametrize(
    "value", ["a\n#SBATCH --array=1-9", "a b", "a'b", 'a"b', "a\\b", "$a", "é"]
)
@pytest.mark.parametrize("what", [*VALUES, "slurm.gpu_type"])
def test_a_value_that_is_no_plain_word_is_refused(what: str, value: str) -> None:
    assert SLURM.problems(with_value(what, value)) == [
        f"{what} is {value!r}: a name or value for the scheduler has no blanks, quotes or other"
        " special characters"
    ]


def test_each_qpu_is_a_plain_word() -> None:
    (problem,) = SLURM.problems(spec({"qpu": ["good", "b ad"]}))
    assert problem.startswith("slurm.qpu is 'b ad': ")


@given(st.sampled_from(VALUES), st.text(min_size=1))
@example("queue", "a\n#SBATCH --array=1-9")
@example("queue", "a\x85b")
def test_no_value_makes_another_line_or_another_option(what: str, value: str) -> None:
    job = with_value(what, value)
    if not SLURM.problems(job):
        text = "\n".join(SLURM.preamble(job, TICKET).directives)
        assert len(text.splitlines()) == len(ALWAYS) + 1
        assert shlex.split(text.splitlines()[-1]) == text.splitlines()[-1].split(" ")


@given(st.lists(st.text(min_size=1).map("-".__add__), min_size=1))
def test_no_free_directive_makes_another_line(lines: list[str]) -> None:
    job = spec({"directives": lines})
    if not SLURM.problems(job):
        text = "\n".join(SLURM.preamble(job, TICKET).directives)
        assert len(text.splitlines()) == len(ALWAYS) + len(lines)


def test_a_work_dir_with_a_backslash_is_refused() -> None:
    (problem,) = SLURM.problems(spec(work_dir="/w/a\\b"))
    assert problem == (
        "work_dir is '/w/a\\\\b': Slurm cannot write output below it, because it drops backslashes"
        " from such paths; choose a folder without one"
    )
    assert SLURM.problems(spec(work_dir='/w/it\'s %j "a"\n$(b) `c`;é')) == []


# --- submitting


def test_a_submission_names_the_job_and_its_files_and_keeps_percent_signs() -> None:
    ticket = Ticket(
        tag="htag",
        folder="/w %j/f",
        script="/w %j/f/s.sh",
        scheduler_out="/w %j/f/o",
        scheduler_err="/w %j/f/%%e",
    )
    command = next(SLURM.submit(spec(work_dir="/w %j"), ticket))
    assert command.argv == (
        *("sbatch", "--parsable", "--job-name=htag", "--chdir=/w %j", "--output=/w %%j/f/o"),
        *("--error=/w %%j/f/%%%%e", "--open-mode=truncate", "/w %j/f/s.sh"),
    )


@pytest.mark.parametrize(("name", "job_id"), [("sbatch_ok", "4"), ("sbatch_ok_cluster", "6")])
def test_an_accepted_job_has_an_id(name: str, job_id: str) -> None:
    assert submission(recorded(name)) == Accepted(job_id)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (
            "sbatch_bad_account",
            "Batch job submission failed: Invalid account or account/partition combination"
            " specified",
        ),
        ("sbatch_bad_feature", "Batch job submission failed: Invalid feature specification"),
        ("sbatch_bad_gres", "Invalid generic resource (gres) specification"),
        (
            "sbatch_bad_partition",
            "invalid partition specified: nosuch\n"
            "Batch job submission failed: Invalid partition name specified",
        ),
        ("sbatch_bad_qos", "Batch job submission failed: Invalid qos specification"),
        (
            "sbatch_crlf",
            "Batch script contains DOS line breaks (\\r\\n)\n"
            "instead of expected UNIX line breaks (\\n).",
        ),
        ("sbatch_empty", "Batch script is empty!"),
        ("sbatch_malformed_nodes", '"zero" is not a valid node count'),
        ("sbatch_malformed_time", "Invalid --time specification"),
        ("sbatch_missing_script", "Unable to open file nosuch.sh"),
        (
            "sbatch_noshebang",
            "This does not look like a batch script.  The first\n"
            "line must start with #! followed by the path to an interpreter.\n"
            "For instance: #!/bin/sh",
        ),
        (
            "sbatch_over_partition_time_enforced",
            "Batch job submission failed: Requested time limit is invalid (missing or exceeds some"
            " limit)",
        ),
        (
            "sbatch_too_many_nodes_enforced",
            "Batch job submission failed: More processors requested than permitted",
        ),
        (
            "sbatch_too_much_mem",
            "Memory specification can not be satisfied\n"
            "Batch job submission failed: Requested node configuration is not available",
        ),
        (
            "sbatch_unknown_option",
            "sbatch: unrecognized option '--bogus'\n"
            'Try "sbatch --help" for more information',
        ),
    ],
)  # fmt: skip
def test_a_refusal_is_told_in_slurms_own_words(name: str, said: str) -> None:
    assert submission(recorded(name)) == Refused(said)


@pytest.mark.parametrize("name", ["sbatch_qos_limit_3", "sbatch_max_job_count"])
def test_too_many_waiting_jobs_are_a_full_queue(name: str) -> None:
    outcome = submission(recorded(name))
    assert isinstance(outcome, Refused)
    assert outcome.full


@pytest.mark.parametrize(
    "reply",
    [
        recorded("ctld_down_sbatch"),
        recorded("ctld_hung_sbatch"),  # this job was created
        recorded("sbatch_ok_plain"),
        Reply(None, "4\n"),
        Reply(None, "", "sbatch: error: Slurm temporarily unable to accept job, sleeping"),
        Reply(0, ""),
        Reply(0, "4\n5\n"),
        Reply(0, "4x"),
        Reply(0, "9" * 5000),
        Reply(1, "4\n", "sbatch: error: Batch job submission failed: Invalid qos specification"),
        Reply(
            1, "", "sbatch: error: Batch job submission failed: Resource temporarily unavailable"
        ),
        Reply(1, "", "sbatch: error: Batch job submission failed: Zero Bytes were transmitted"),
        Reply(1, "", "sbatch: fatal: Could not establish a configuration source"),
        Reply(1, "", "no such thing"),
        Reply(1, "", ""),
        Reply(127, "", "sbatch: command not found"),
        Reply(-9, "", "sbatch: error: Invalid"),
    ],
    ids=lambda reply: reply.said[:70],
)
def test_an_answer_that_leaves_doubt_is_unclear(reply: Reply) -> None:
    assert submission(reply) == Unclear(reply.said)


# --- states

STATES = {
    "BOOT_FAIL": (JobState.ENDED, Reason.NODE_FAILURE),
    "CANCELLED": (JobState.ENDED, Reason.CANCELLED),
    "CANCELLED+": (JobState.ENDED, Reason.CANCELLED),
    "CANCELLED by 1001": (JobState.ENDED, Reason.CANCELLED),
    "COMPLETED": (JobState.ENDED, Reason.SUCCEEDED),
    "CONFIGURING": (JobState.QUEUED, None),
    "COMPLETING": (JobState.ENDING, None),
    "DEADLINE": (JobState.ENDED, Reason.WALLTIME),
    "FAILED": (JobState.ENDED, Reason.PROGRAM_FAILED),
    "NODE_FAIL": (JobState.ENDED, Reason.NODE_FAILURE),
    "OUT_OF_MEMORY": (JobState.ENDED, Reason.OUT_OF_MEMORY),
    "PENDING": (JobState.QUEUED, None),
    "PREEMPTED": (JobState.ENDED, Reason.PREEMPTED),
    "RUNNING": (JobState.RUNNING, None),
    "RESV_DEL_HOLD": (JobState.HELD, None),
    "REQUEUE_FED": (JobState.QUEUED, None),
    "REQUEUE_HOLD": (JobState.HELD, None),
    "REQUEUED": (JobState.QUEUED, None),
    "RESIZING": (JobState.RUNNING, None),
    "REVOKED": (JobState.UNKNOWN, None),  # another cluster of a federation has it
    "SIGNALING": (JobState.RUNNING, None),
    "SPECIAL_EXIT": (JobState.HELD, None),
    "STAGE_OUT": (JobState.ENDING, None),
    "STOPPED": (JobState.SUSPENDED, None),
    "SUSPENDED": (JobState.SUSPENDED, None),
    "TIMEOUT": (JobState.ENDED, Reason.WALLTIME),
    "HIBERNATING": (JobState.UNKNOWN, None),
    "FAILED_NOT": (JobState.UNKNOWN, None),
    "": (JobState.UNKNOWN, None),
}


@pytest.mark.parametrize("word", STATES)
def test_each_state_of_the_manual_has_one_of_ours(word: str) -> None:
    seen = in_queue(State=word)
    assert (seen.word, seen.state, seen.cause) == (word, *STATES[word])


@pytest.mark.parametrize(
    ("reason", "state", "cause"),
    [
        ("JobHeldUser", JobState.HELD, None),
        ("JobHeldAdmin", JobState.HELD, None),
        ("JobHoldMaxRequeue", JobState.HELD, None),
        ("launch failed requeued held", JobState.HELD, None),
        ("ReservationDeleted", JobState.HELD, None),
        ("Resources", JobState.QUEUED, None),
        ("Priority", JobState.QUEUED, None),
        ("Dependency", JobState.QUEUED, None),
        ("BeginTime", JobState.QUEUED, None),
        ("QOSMaxJobsPerUserLimit", JobState.QUEUED, None),
        ("QOSMaxCpuPerUserLimit", JobState.QUEUED, None),
        ("AssocGrpCpuLimit", JobState.QUEUED, None),
        ("ReqNodeNotAvail, UnavailableNodes:n[1-4]", JobState.QUEUED, None),
        ("PartitionTimeLimit", JobState.QUEUED, Reason.CAN_NEVER_RUN),
        ("PartitionNodeLimit", JobState.QUEUED, Reason.CAN_NEVER_RUN),
        ("PartitionConfig", JobState.QUEUED, Reason.CAN_NEVER_RUN),
        ("BadConstraints", JobState.QUEUED, Reason.CAN_NEVER_RUN),
        ("AccountNotAllowed", JobState.QUEUED, Reason.CAN_NEVER_RUN),
        ("QOSNotAllowed", JobState.QUEUED, Reason.CAN_NEVER_RUN),
        ("InvalidAccount", JobState.QUEUED, Reason.CAN_NEVER_RUN),
        ("InvalidQOS", JobState.QUEUED, Reason.CAN_NEVER_RUN),
        ("QOSMaxCpuPerJobLimit", JobState.QUEUED, Reason.CAN_NEVER_RUN),
        ("AssocMaxWallDurationPerJobLimit", JobState.QUEUED, Reason.CAN_NEVER_RUN),
        ("QOSMinCpuNotSatisfied", JobState.QUEUED, Reason.CAN_NEVER_RUN),
        ("DependencyNeverSatisfied", JobState.QUEUED, Reason.DEPENDENCY_NEVER_MET),
    ],
)
def test_a_waiting_job_says_why(reason: str, state: JobState, cause: Reason | None) -> None:
    seen = in_queue(State="PENDING", Reason=reason)
    assert (seen.state, seen.cause, seen.message) == (state, cause, reason)


def test_a_running_job_can_run_whatever_its_reason_was() -> None:
    assert in_queue(Reason="PartitionTimeLimit").cause is None


def test_a_reason_may_hold_the_separator() -> None:
    assert in_queue(State="PENDING", Reason="a|b|").message == "a|b|"


def test_no_reason_is_none() -> None:
    assert in_queue(Reason="None").message == in_queue(Reason="(null)").message == ""


# --- ends


@pytest.mark.parametrize(
    ("status", "code", "signal", "cause"),
    [
        ("768", 3, "", Reason.PROGRAM_FAILED),
        ("32512", 127, "", Reason.PROGRAM_FAILED),
        ("35072", 137, "", Reason.PROGRAM_FAILED),
        ("65280", 255, "", Reason.PROGRAM_FAILED),
        ("9", None, "SIGKILL", Reason.PROGRAM_FAILED),
        ("139", None, "SIGSEGV", Reason.PROGRAM_FAILED),  # 11 and a core file
        ("4021", None, "", Reason.SETUP_FAILED),
        ("nonsense", 0, "", Reason.PROGRAM_FAILED),
    ],
)
def test_the_queue_has_an_exit_status_as_of_wait(
    status: str, code: int | None, signal: str, cause: Reason
) -> None:
    seen = in_queue(State="FAILED", exit_code=status)
    assert (seen.exit_code, seen.signal, seen.cause) == (code, signal, cause)


@pytest.mark.parametrize(
    ("status", "code", "signal", "cause"),
    [
        ("3:0", 3, "", Reason.PROGRAM_FAILED),
        ("9:0", 9, "", Reason.PROGRAM_FAILED),  # of 137: the history has it no better
        ("0:9", None, "SIGKILL", Reason.PROGRAM_FAILED),
        ("0:53", None, "", Reason.SETUP_FAILED),
        ("", 0, "", Reason.PROGRAM_FAILED),
    ],
)
def test_the_history_has_code_and_signal(
    status: str, code: int | None, signal: str, cause: Reason
) -> None:
    seen = in_history(State="FAILED", ExitCode=status)
    assert (seen.exit_code, seen.signal, seen.cause) == (code, signal, cause)


def test_an_end_by_slurm_has_no_exit_code() -> None:
    assert in_queue(State="TIMEOUT", exit_code="0").exit_code is None
    assert in_history(State="OUT_OF_MEMORY", ExitCode="0:125").exit_code is None


def test_a_success_has_code_0_and_its_times() -> None:
    assert in_history() == Observation(
        id="7", state=JobState.ENDED, word="COMPLETED", cause=Reason.SUCCEEDED, tag="htag",
        exit_code=0, host="n1", queued_at=100.0, started_at=110.0, ended_at=120.0,
    )  # fmt: skip


def test_a_job_that_could_not_be_started_says_what_to_look_at() -> None:
    assert in_queue(State="FAILED", exit_code="4021", Reason="JobLaunchFailure").message == (
        "Slurm could not start the script on the node (FAILED 0:53): the job folder or work_dir is"
        " not there, or cannot be written"
    )


def test_a_cancelled_job_says_by_whom_where_slurm_does() -> None:
    assert in_history(State="CANCELLED by 1001").message == "CANCELLED by 1001"
    assert in_queue(State="CANCELLED", Reason="JobHeldUser").message == ""


def test_a_job_that_slurm_gave_up_could_never_run() -> None:
    never = in_queue(State="FAILED", exit_code="1", Reason="BadConstraints")
    assert (never.state, never.cause) == (JobState.ENDED, Reason.CAN_NEVER_RUN)
    given_up = in_queue(State="CANCELLED", Reason="DependencyNeverSatisfied")
    assert (given_up.state, given_up.cause) == (JobState.ENDED, Reason.DEPENDENCY_NEVER_MET)


def test_a_waiting_job_has_not_started_although_slurm_knows_when_it_may() -> None:
    seen = in_queue(State="PENDING", BatchHost="n/a")
    assert (seen.queued_at, seen.started_at, seen.ended_at, seen.host) == (100.0, 0.0, 0.0, "")


# --- observing


def test_what_a_real_queue_lists_is_read() -> None:
    reply = recorded("squeue_ours")
    ids = [line.partition("|")[0] for line in reply.stdout.splitlines()]
    answer, _ = converse(SLURM.observe(ids, {}), reply)
    assert isinstance(answer, dict)
    seen = {each.tag: each for each in answer.values() if isinstance(each, Observation)}
    assert {tag: (each.state, each.cause) for tag, each in seen.items()} == {
        "hok": (JobState.ENDED, Reason.SUCCEEDED),
        "hthree": (JobState.ENDED, Reason.PROGRAM_FAILED),
        "hkill": (JobState.ENDED, Reason.PROGRAM_FAILED),
        "hcode137": (JobState.ENDED, Reason.PROGRAM_FAILED),
        "hnodir": (JobState.ENDED, Reason.SETUP_FAILED),
        "hcancel": (JobState.ENDED, Reason.CANCELLED),
        "hcancelrun": (JobState.ENDED, Reason.CANCELLED),
        "hheld": (JobState.HELD, None),
        "hbegin": (JobState.QUEUED, None),
        "hrun": (JobState.RUNNING, None),
    }
    assert (seen["hthree"].exit_code, seen["hcode137"].exit_code) == (3, 137)
    assert (seen["hkill"].signal, seen["hrun"].host) == ("SIGKILL", "n2")
    assert seen["hok"].ended_at == 1795558504.0


def rearranged(name: str, order: tuple[int, ...]) -> tuple[list[str], Reply]:
    """Ids and reply of a recording with other columns, in ours; times are of no matter there."""
    rows = [line.split("|") for line in recorded(name).stdout.splitlines()]
    text = "".join("|".join([*row, "N/A"][n] for n in order) + "\n" for row in rows)
    return [row[0] for row in rows], Reply(0, text)


def told(answer: Any, *ids: str) -> list[tuple[Reason | None, int | None, str]]:
    return [(answer[each].cause, answer[each].exit_code, answer[each].signal) for each in ids]


def test_the_recorded_words_of_the_queue_are_read() -> None:
    #        JobID, Name, State, exit_code, three times, BatchHost, Reason
    ids, reply = rearranged("squeue_O", (0, 0, 2, 4, 9, 9, 9, 9, 3))
    answer, _ = converse(SLURM.observe(ids, {}), reply)
    assert told(answer, "4", "16", "18", "20", "21") == [
        (Reason.SUCCEEDED, 0, ""),
        (Reason.PROGRAM_FAILED, 3, ""),
        (Reason.PROGRAM_FAILED, None, "SIGKILL"),
        (Reason.PROGRAM_FAILED, 127, ""),
        (Reason.PROGRAM_FAILED, 255, ""),
    ]
    assert [
        each[0] for each in told(answer, "14", "9", "7", "8", "33", "34", "35", "31", "27")
    ] == [
        *(Reason.SETUP_FAILED, Reason.CAN_NEVER_RUN, Reason.CAN_NEVER_RUN, Reason.CAN_NEVER_RUN),
        *(Reason.DEPENDENCY_NEVER_MET, Reason.DEPENDENCY_NEVER_MET, None, None, None),
    ]
    assert answer["31"].state is JobState.HELD  # type: ignore[index, union-attr]


def test_the_recorded_words_of_the_history_are_read() -> None:
    #        JobID, JobName, State, ExitCode, three times, NodeList, Reason
    ids, reply = rearranged("sacct_final_X", (0, 1, 2, 3, 6, 6, 7, 9, 5))
    answer, _ = converse(SLURM.observe(ids, {}), Reply(0, ""), reply)
    assert told(answer, "4", "16", "17", "24", "26", "29") == [
        (Reason.SUCCEEDED, 0, ""),
        (Reason.PROGRAM_FAILED, 3, ""),
        (Reason.PROGRAM_FAILED, None, "SIGSEGV"),
        (Reason.WALLTIME, None, ""),
        (Reason.CANCELLED, None, ""),
        (Reason.NODE_FAILURE, None, ""),
    ]
    assert {"7", "31", "33"}.isdisjoint(answer)  # PENDING
    assert answer["26"].host == ""  # type: ignore[index, union-attr]


def test_all_jobs_are_asked_about_in_one_question_and_with_times_in_seconds() -> None:
    command = next(SLURM.observe(["7", "8"], {}))
    fields = "JobID:|,Name:|,State:|,exit_code:|,SubmitTime:|,StartTime:|,EndTime:|,BatchHost:|"
    assert command.argv == (
        *("squeue", "--noheader", "--states=all", f"--Format={fields},Reason:|", "--jobs=7,8"),
    )
    assert command.environment == {"SLURM_TIME_FORMAT": "%s"}


def test_the_questions_are_those_that_were_recorded() -> None:
    argv = json.loads((FOLDER / "squeue_ours.json").read_text())["argv"]
    ids = argv[-1].removeprefix("--jobs=").split(",")
    assert list(next(SLURM.observe(ids, {})).argv) == argv


def test_a_queue_that_lists_all_leaves_the_history_alone() -> None:
    answer, commands = converse(SLURM.observe(["7", "8"], {}), Reply(0, row() + row(JobID="8")))
    assert isinstance(answer, dict)
    assert (set(answer), len(commands)) == ({"7", "8"}, 1)


def test_the_history_is_asked_about_what_the_queue_does_not_list_and_no_more() -> None:
    dialogue = SLURM.observe(["7", "8", "9"], {})
    answer, commands = converse(dialogue, Reply(0, row()), Reply(0, past(JobID="8")))
    assert isinstance(answer, dict)
    assert set(answer) == {"7", "8"}
    assert commands[1] == (
        "sacct --allocations --noheader --parsable2"
        " --format=JobID,JobName,State,ExitCode,Submit,Start,End,NodeList,Reason --jobs=8,9"
    )


def test_one_unknown_id_is_an_error_to_squeue_and_absent_to_us() -> None:
    gone = recorded("squeue_one_unknown")
    assert converse(SLURM.observe(["7"], {}), gone, recorded("sacct_unknown"))[0] == {}
    assert converse(SLURM.observe(["7"], ALONE), gone)[0] == {}
    assert converse(SLURM.observe(["7", "8"], ALONE), recorded("squeue_all_unknown"))[0] == {}


def test_without_accounting_the_queue_is_all_that_is_asked() -> None:
    answer, commands = converse(SLURM.observe(["7", "8"], ALONE), Reply(0, row()))
    assert isinstance(answer, dict)
    assert (set(answer), len(commands)) == ({"7"}, 1)


def test_a_history_that_nobody_keeps_is_no_failure() -> None:
    answer, _ = converse(SLURM.observe(["7", "8"], {}), Reply(0, row()), recorded("light_sacct"))
    assert isinstance(answer, dict)
    assert set(answer) == {"7"}


def test_while_the_history_does_not_answer_only_its_jobs_have_no_answer() -> None:
    down = recorded("dbd_down_sacct")
    answer, _ = converse(SLURM.observe(["7", "8", "9"], {}), Reply(0, row()), down)
    assert isinstance(answer, dict)
    assert isinstance(answer["7"], Observation)
    assert answer["8"] == answer["9"] == NoAnswer(down.said)


@pytest.mark.parametrize("word", ["RUNNING", "PENDING", "COMPLETING", "HIBERNATING", ""])
def test_what_the_history_does_not_list_as_ended_is_left_out(word: str) -> None:
    gone = recorded("squeue_one_unknown")
    assert converse(SLURM.observe(["7"], {}), gone, Reply(0, past(State=word)))[0] == {}


@pytest.mark.parametrize(
    "reply",
    [recorded("ctld_down_squeue"), recorded("ctld_hung_squeue"), Reply(None, row()), Reply(1)],
    ids=lambda reply: reply.said[:70],
)
def test_a_queue_that_does_not_answer_is_no_answer(reply: Reply) -> None:
    assert converse(SLURM.observe(["7"], {}), reply)[0] == NoAnswer(reply.said)
    assert converse(SLURM.find("htag", {}), reply)[0] == NoAnswer(reply.said)


def test_lines_that_are_no_rows_are_passed_over() -> None:
    noise = "slurm: welcome\n\n7|htag\n"
    answer, _ = converse(SLURM.observe(["7"], ALONE), Reply(0, noise + row()))
    assert isinstance(answer, dict)
    assert set(answer) == {"7"}
    answer, _ = converse(
        SLURM.observe(["7"], {}), recorded("squeue_one_unknown"), Reply(0, noise + past())
    )
    assert isinstance(answer, dict)
    assert set(answer) == {"7"}


CODES = st.none() | st.sampled_from([0, 1, 8, 127, 255, -9])
ENDS = {word for word, (state, _) in STATES.items() if state is JobState.ENDED}
WORDS = st.text() | st.sampled_from(["ENDED", "completed", "Failed", "COMPLETEDX", "9" * 5000])
FIELDS = st.tuples(*(WORDS for _ in range(9))).map("|".join)
REPLIES = st.builds(Reply, CODES, st.text() | FIELDS, st.text())


@given(st.lists(REPLIES, min_size=2, max_size=2), st.sampled_from(["observe", "find"]))
@example([Reply(0, "7|h|FAILED" + "|" + "9" * 5000 + "|1|1|1|n|r|")] * 2, "observe")
def test_no_answer_is_beyond_reading_and_garbage_is_no_end(
    replies: list[Reply], question: str
) -> None:
    dialogue = SLURM.observe(["7"], {}) if question == "observe" else SLURM.find("htag", {})
    next(dialogue)
    answer: Any = None
    try:
        for reply in replies:
            dialogue.send(reply)
    except StopIteration as stop:
        answer = stop.value
    for seen in () if isinstance(answer, NoAnswer) else answer.values():
        if isinstance(seen, Observation) and seen.state is JobState.ENDED:
            assert seen.word.split(" ")[0].removesuffix("+") in ENDS


@given(REPLIES)
def test_a_garbled_submission_is_never_taken_for_a_job(reply: Reply) -> None:
    outcome = submission(reply)
    if isinstance(outcome, Accepted):
        assert reply.code == 0
        assert outcome.id.isdecimal()
    if isinstance(outcome, Refused):
        assert "sbatch: " in reply.stderr


# --- finding, and cancelling (the rest of it is in test_slurm_cancel.py)


def test_a_job_is_looked_for_by_its_name_in_the_queue_first() -> None:
    answer, commands = converse(SLURM.find("htag", {}), Reply(0, row()))
    assert isinstance(answer, dict)
    assert answer["7"].tag == "htag"
    assert commands[0].endswith(" --name=htag")


def test_and_then_in_a_month_of_history() -> None:
    dialogue = SLURM.find("htag", {})
    answer, commands = converse(dialogue, Reply(0, ""), Reply(0, past()))
    assert isinstance(answer, dict)
    assert set(answer) == {"7"}
    assert commands[1].endswith(" --name=htag --starttime=now-30days")


def test_without_accounting_a_job_is_looked_for_in_the_queue_alone() -> None:
    assert converse(SLURM.find("htag", ALONE), Reply(0, ""))[0] == {}


def test_a_job_that_cannot_be_looked_for_in_the_history_may_be_there() -> None:
    down = recorded("dbd_down_sacct")
    assert converse(SLURM.find("htag", {}), Reply(0, ""), down)[0] == NoAnswer(down.said)


def test_a_controller_that_is_down_has_cancelled_nothing() -> None:
    down = recorded("ctld_down_scancel")
    both = SLURM.cancel({"7": "htag", "8": "hother"}, {})
    assert converse(both, down, Reply(0))[0] == NoAnswer(down.said)
    assert isinstance(converse(SLURM.cancel({"7": "htag"}, {}), Reply(None))[0], NoAnswer)


# --- Slurm's own lines in the job's output


@pytest.mark.parametrize(
    ("name", "reason", "words"),
    [
        ("time", Reason.WALLTIME, "DUE TO TIME LIMIT ***"),
        ("timesrun", Reason.WALLTIME, "DUE TO TIME LIMIT ***"),
        ("preempt", Reason.PREEMPTED, "DUE TO PREEMPTION ***"),
        ("node", Reason.NODE_FAILURE, "DUE TO NODE FAILURE, SEE SLURMCTLD LOG FOR DETAILS ***"),
        ("oomcg", Reason.OUT_OF_MEMORY, "killed by the cgroup out-of-memory handler."),
        ("oomcgsrun", Reason.OUT_OF_MEMORY, "srun: error: n1: task 0: Out Of Memory"),
        ("oompoll", Reason.OUT_OF_MEMORY, "slurmstepd-n1: error: Exceeded job memory limit"),
    ],
)
def test_what_slurm_writes_about_an_end_is_read(name: str, reason: Reason, words: str) -> None:
    told = SLURM.read_output((FOLDER / "output" / f"{name}.txt").read_text())
    assert told is not None
    assert told.reason is reason
    assert told.words.endswith(words)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "JOB 7 CANCELLED DUE TO TIME LIMIT",
        "error: Out Of Memory",
        "my slurmstepd: error: DUE TO PREEMPTION",
        "Exceeded job memory limit",
        (FOLDER / "output" / "cancel.txt").read_text(),
    ],
)
def test_what_a_program_writes_is_no_evidence(text: str) -> None:
    assert SLURM.read_output(text) is None


@given(st.text())
def test_any_output_can_be_read(text: str) -> None:
    SLURM.read_output(text)
    SLURM.read_output("slurmstepd: error: " + text)
