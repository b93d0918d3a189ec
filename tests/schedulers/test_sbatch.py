"""Slurm's dialect as pure text: what a job asks for, what is refused, and sbatch's answers.

The recordings are of a real Slurm 22.05.
"""

from __future__ import annotations

import shlex
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hpc_prefect.job.dialogue import Reply
from hpc_prefect.job.spec import JobSpec
from hpc_prefect.schedulers import scheduler_for
from hpc_prefect.schedulers.base import Accepted, Refused, Ticket, Unclear
from hpc_prefect.schedulers.slurm import submit as sbatch
from hpc_prefect.schedulers.slurm.scheduler import SlurmScheduler

from .slurm_rig import SLURM, TICKET, recorded, spec, submission

ALWAYS = [
    *("--nodes=2", "--ntasks-per-node=4", "--cpus-per-task=8", "--time=0-01:30:00"),
    "--no-requeue",  # retries are ours
]


def directives(*given: Any, **changes: Any) -> list[str]:
    """The options in the script but those that every job has."""
    lines = SLURM.preamble(spec(*given, **changes), TICKET).directives
    assert all(line.startswith("#SBATCH --") for line in lines)
    return [line.removeprefix("#SBATCH ") for line in lines if line[8:] not in ALWAYS]


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
        ({"qpu": ["a", "b"], "site_qpus": ["b", "c", "a"]}, "--qpu=a,b"),
        ({"requeue": "yes"}, "--requeue"),
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
    assert directives({"requeue": "yes"}, secret_names=("TOKEN",)) == []
    asked = spec({"requeue": "yes"}, secret_names=("TOKEN",))
    assert SLURM.problems(asked) == [
        "slurm.requeue is 'yes', but the job has secrets: a job reads its secrets"
        " once, so a requeued one would have none; choose 'no', or use retries"
    ]


# --- what is refused


REFUSED = {
    "hpc-prefect sets the name, to find the job by it": [
        *("-J x", "-Jx", "-J=x", "-HJx", "--job-name=x", "--job=x", "--job x", "--jo=x", "--j=x"),
    ],
    "hpc-prefect puts all output into the job folder": [
        *("-o x", "-ox", "--output=x", "--output x", "--outp=x", "-e x", "-ex", "--error=x"),
        "--open-mode=append",
    ],
    "the program runs in work_dir": ["-D /x", "--chdir=/x"],
    "one call is one job; for many: run_jobs_from_blocks": [
        *("-a 1-2", "-a1-2", "--array=1-2", "--arr=1-2", "-Ha1-2", "--comment=x --array=1-2"),
        *('--comment=x "--array=1-2"', "--comment=x --ar'ra'y=1-2", "-\\a 1-2"),
    ],
    "set slurm.cluster, which all commands are given": [
        *("-M x", "-Mx", "--clusters=x", "--cluster=x", "--clus=x"),
    ],
    "a job has none of the flow's variables; set environment in the HPC profile": [
        *("--export=NONE", "--export NONE", "--exp=ALL", "--export=A=b", "--export-file=x"),
        *("--export-f=x", "--comment=x --export=NIL"),
    ],
    "set login_shell in the HPC profile": ["--get-user-env", "--get-u", "--get-user-env=10L"],
    "job and job folder must belong to you": ["--uid=1", "--uid 1", "--gid=1", "--gi=1"],
    "the job's script would then not be run": ["--external", "--exter"],
    "the flow itself waits for the job": ["-W", "-QW", "--wait"],
    "set ranks_per_node in the execution profile": [
        *("-n 4", "--ntasks=4", "--ntasks-per-node=4", "--tasks-per-node=4", "--tasks=4"),
    ],
    "set threads_per_rank in the execution profile": ["-c 4", "-c4", "--cpus-per-task=4"],
    "set walltime in the execution profile": ["-t 5", "-t5", "--time=5"],
    "set num_nodes in the execution profile": ["-N 5", "-N5", "--nodes=5"],
    "set project_cpu or project_gpu": ["-A x", "--account=x"],
    "set queue_cpu or queue_gpu": ["-p x", "--partition=x"],
    "set memory_per_node in the execution profile": [
        *("--mem=5G", "--mem-per-cpu=5G", "--mem-per-gpu=5G", "--mem-per=5G"),
    ],
    "set slurm.requeue": ["--requeue", "--no-requeue"],
    "set slurm.qpu, which is checked against slurm.site_qpus": ["--qpu=a", "--qpu a", "--qp=a"],
    "hpc-prefect writes the script": ["--wrap=true"],
    "then no job would be submitted": [
        *("--test-only", "--help", "-h", "-Hh", "--usage", "--us", "--version", "-V", "-QV"),
        "--autocomplete=x",
    ],
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
        *("--dependency=afterok:5", "--comment=x", "--cpus-per-gpu=2", "-k", "-x n1"),
        *("--extra=x", "--extra-node-info=1", "--use-min-nodes", "--cluster-constraint=x"),
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


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("--comment=a#b", "sbatch takes what follows a # for a comment"),
        ("--comment=x # --nice", "sbatch takes what follows a # for a comment"),
        ("--comment='x", "no closing quotation"),
        ("--comment=x\\", "no escaped character"),
        ("--", "sbatch reads no option after --"),
        ("--nice -- --comment=x", "sbatch reads no option after --"),
    ],
)
def test_a_directive_that_sbatch_would_not_read_whole_is_refused(line: str, why: str) -> None:
    assert SLURM.problems(spec({"directives": [line]})) == [f"slurm.directives {line!r}: {why}"]


VALUES = ["queue", "project", "slurm.qos", "slurm.reservation", "slurm.constraint"]


def with_value(what: str, value: Any, **changes: Any) -> JobSpec:
    """A job whose field of that name has this value."""
    name = what.removeprefix("slurm.")
    return spec({name: value} if "." in what else {}, {} if "." in what else {name: value})


@pytest.mark.parametrize(
    "value", ["a\n#SBATCH --array=1-9", "a b", "a'b", 'a"b', "a\\b", "$a", "é"]
)
@pytest.mark.parametrize("what", [*VALUES, "slurm.gpu_type", "slurm.cluster"])
def test_a_value_that_is_no_plain_word_is_refused(what: str, value: str) -> None:
    assert SLURM.problems(with_value(what, value)) == [
        f"{what} is {value!r}: a name or value for the scheduler has no blanks, quotes or other"
        " special characters"
    ]


def test_each_qpu_is_a_plain_word() -> None:
    there = ["good", "b ad"]
    (problem,) = SLURM.problems(spec({"qpu": there, "site_qpus": there}))
    assert problem.startswith("slurm.qpu is 'b ad': ")


@pytest.mark.parametrize(
    ("qpu", "end"),
    [
        ("ibm_tornio", "which is not in slurm.site_qpus; did you mean 'ibm_torino'?"),
        ("zz", "which is not in slurm.site_qpus; there are: ibm_brussels, ibm_torino"),
        ("", "write one name in each item"),
    ],
)
def test_a_qpu_that_the_site_has_not_is_refused_with_the_near_one(qpu: str, end: str) -> None:
    there = ["ibm_torino", "ibm_brussels"]
    (problem,) = SLURM.problems(spec({"qpu": ["ibm_torino", qpu], "site_qpus": there}))
    assert problem.startswith(f"slurm.qpu has {qpu!r}")
    assert problem.endswith(end)


def test_two_qpus_in_one_name_are_refused_even_if_the_site_lists_them_so() -> None:
    assert SLURM.problems(spec({"qpu": ["a,b"], "site_qpus": ["a,b"]})) == [
        "slurm.qpu has 'a,b': write one name in each item"
    ]


def test_a_qpu_is_refused_where_nobody_said_what_the_site_has() -> None:
    assert SLURM.problems(spec({"qpu": ["a"]})) == [
        "slurm.qpu is ['a'], but slurm.site_qpus is empty: list there what the site has, because"
        " Slurm does not say when it does not know a name"
    ]


def test_the_qpus_asked_for_are_part_of_the_identity_and_the_list_of_the_sites_is_not() -> None:
    def identity(**options: Any) -> dict[str, Any]:
        return spec(options).identity()

    assert "qpu" not in identity()["site"]
    assert identity(site_qpus=["a"]) == identity()
    assert identity(qpu=["a"]) != identity()
    assert identity(qpu=["a"], site_qpus=["a", "b"]) == identity(qpu=["a"], site_qpus=["a"])
    assert identity(qpu=["a"]) != identity(qpu=["b"])


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


# --- the flow's environment


@pytest.mark.parametrize("name", ["SLURM_EXPORT_ENV", "SRUN_EXPORT_ENV"])
@pytest.mark.parametrize("secret", [False, True])
def test_a_variable_that_hides_all_others_from_the_program_is_refused(
    name: str, secret: bool
) -> None:
    given = {"secret_names": (name,)} if secret else {"site": {"environment": {name: "NONE"}}}
    assert SLURM.problems(spec(**given)) == [
        f"{name} is in the environment of the profiles: srun would keep all other variables from"
        " the program; leave it out"
    ]


@pytest.mark.parametrize(
    ("launcher", "value"),
    [
        ("srun --export=NONE {command}", "NONE"),
        ("srun -n {ranks} --export NIL {command}", "NIL"),
        ("env A=b srun --exp=A {command}", "A"),
        ("srun --export=ALL,A=b {command}", ""),
        ("srun --export  all {command}", ""),
        ("mpirun --export=NONE {command}", ""),
        ("srun -n {ranks} {command}", ""),
    ],
)
def test_a_launcher_that_hides_the_environment_from_the_program_is_refused(
    launcher: str, value: str
) -> None:
    assert SLURM.problems(spec(site={"launcher": launcher})) == (
        [
            f"launcher has srun with --export={value}, which keeps environment and secrets from the"
            " program: leave it out, or write --export=ALL,NAME=value"
        ]
        if value
        else []
    )


HEEDED = {
    "SBATCH_ACCOUNT": "project_cpu or project_gpu of the HPC profile",
    "SBATCH_PARTITION": "queue_cpu or queue_gpu of the HPC profile",
    "SBATCH_QOS": "slurm.qos",
    "SBATCH_RESERVATION": "slurm.reservation",
    "SBATCH_CONSTRAINT": "slurm.constraint",
    "SBATCH_EXCLUSIVE": "slurm.exclusive",
    "SBATCH_MEM_PER_NODE": "memory_per_node in the execution profile",
    "SBATCH_MEM_PER_CPU": "memory_per_node in the execution profile",
    "SBATCH_GPUS_PER_NODE": "gpus_per_node in the execution profile",
    "SBATCH_GRES": "slurm.directives ('--gres' …)",
    "SBATCH_WCKEY": "slurm.directives ('--wckey' …)",
    "SBATCH_SIGNAL": "slurm.directives ('--signal' …)",
    "SBATCH_BURST_BUFFER": "slurm.directives ('--bb' …)",
    "SBATCH_CPU_FREQ_REQ": "slurm.directives ('--cpu-freq' …)",
}


@pytest.mark.parametrize("name", HEEDED)
def test_a_setting_of_the_users_that_is_not_given_to_sbatch_is_told(name: str) -> None:
    assert SLURM.environment_problems(spec(), {name: "x", "HOME": "/h"}) == [
        f"{name} is 'x' where the flow runs, but a job is what its profiles say: set"
        f" {HEEDED[name]}, or unset {name}"
    ]


@pytest.mark.parametrize(
    ("name", "job"),
    [
        ("SBATCH_ACCOUNT", spec(site={"project": "p"})),
        ("SBATCH_PARTITION", spec(site={"queue": "q"})),
        ("SBATCH_QOS", spec({"qos": "long"})),
        ("SBATCH_EXCLUSIVE", spec({"exclusive": True})),
        ("SBATCH_REQUEUE", spec()),
        ("SBATCH_NO_REQUEUE", spec(secret_names=("TOKEN",))),
        ("SBATCH_MEM_PER_CPU", spec(memory_per_node=1024**3)),
        ("SBATCH_GRES", spec({"directives": ["--gres=fpga:1"]})),
        ("SBATCH_WCKEY", spec({"directives": ["--wckey x"]})),
        ("SBATCH_CLUSTERS", spec({"cluster": "b"})),
        ("SLURM_CLUSTERS", spec({"cluster": "b"})),
        ("SBATCH_GET_USER_ENV", spec(site={"login_shell": True})),
    ],
)
def test_what_a_profile_says_itself_needs_no_word_about_the_environment(
    name: str, job: JobSpec
) -> None:
    assert SLURM.environment_problems(job, {name: "x"}) == []


@pytest.mark.parametrize(
    ("name", "value", "end"),
    [
        ("SBATCH_EXPORT", "ALL", "set environment in the HPC profile, or unset it"),
        ("SBATCH_EXPORT", "HOME,TOKEN", "set environment in the HPC profile, or unset it"),
        ("SBATCH_CLUSTERS", "b", "set slurm.cluster, or unset SBATCH_CLUSTERS"),
        ("SLURM_CLUSTERS", "b", "set slurm.cluster, or unset SLURM_CLUSTERS"),
        ("SBATCH_GET_USER_ENV", "", "set login_shell in the HPC profile, or unset it"),
    ],
)
def test_a_setting_about_environment_or_cluster_is_told(name: str, value: str, end: str) -> None:
    (problem,) = SLURM.environment_problems(spec(), {name: value})
    assert problem.startswith(name)
    assert problem.endswith(end)


def test_all_that_the_environment_says_is_told_at_once() -> None:
    said = {"SBATCH_QOS": "a", "SBATCH_GRES": "b", "SLURM_CLUSTERS": "c", "SBATCH_EXPORT": "d"}
    assert len(SLURM.environment_problems(spec(), said)) == 4


def test_what_is_always_ours_or_agrees_with_us_needs_no_word() -> None:
    ours = ("JOB_NAME", "OUTPUT", "ERROR", "OPEN_MODE", "ARRAY_INX", "WAIT", "TIMELIMIT", "DEBUG")
    said = {f"SBATCH_{name}": "x" for name in ours} | {"SQUEUE_PARTITION": "x", "SRUN_DEBUG": "3"}
    assert SLURM.environment_problems(spec(), said | {"SBATCH_EXPORT": "none"}) == []
    assert SLURM.environment_problems(spec(), {"SBATCH_EXPORT": "NIL", "SLURM_JOB_ID": "7"}) == []


def test_sbatch_inherits_nothing_but_what_every_process_has_and_what_proves_who_asks() -> None:
    command = next(SLURM.submit(spec(), TICKET))
    assert command.inherits == sbatch.INHERITS
    assert not [name for name in sbatch.INHERITS if name in ("*", "SLURM_*") or "KEY" in name]


def test_the_job_forgets_the_token_and_what_hides_its_environment() -> None:
    unset = SLURM.preamble(spec(), TICKET).unset
    assert unset == ("SLURM_JWT", "SLURM_EXPORT_ENV", "SRUN_EXPORT_ENV")


# --- submitting


def test_a_job_is_submitted_to_the_profiles_cluster_alone() -> None:
    command = next(SLURM.submit(spec({"cluster": "b"}), TICKET))
    assert command.argv[:3] == ("sbatch", "--clusters=b", "--parsable")
    assert SLURM.problems(spec({"cluster": "b"})) == []
    assert SLURM.problems(spec({"cluster": "a,b"})) == ["slurm.cluster is 'a,b': write one cluster"]


def test_sbatch_that_cannot_be_loaded_has_submitted_nothing() -> None:
    text = "sbatch: error while loading shared libraries: libx.so: cannot open shared object file"
    assert submission(Reply(127, stderr=text)) == Refused(text)
    assert isinstance(submission(Reply(127, stderr="sh: sbatch: not found")), Unclear)
    assert isinstance(submission(Reply(1, stderr=text.replace("sbatch", "x"))), Unclear)


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
