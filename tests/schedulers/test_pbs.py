"""PBS's dialect: what it asks for, what it refuses, and what it makes of recorded answers."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpc_prefect.blocks import PBSOptions
from hpc_prefect.job.dialogue import Reply
from hpc_prefect.job.failure import Reason
from hpc_prefect.job.spec import Executable, JobSpec, Resources, Site
from hpc_prefect.job.state import JobState, Observation
from hpc_prefect.schedulers import scheduler_for
from hpc_prefect.schedulers.base import Accepted, NoAnswer, Refused, Submission, Ticket, Unclear
from hpc_prefect.schedulers.pbs import PBSScheduler

from .recorded import converse, recorded

PBS = PBSScheduler()
TICKET = Ticket(
    tag="htag", folder="/w/f", script="/w/f/s.sh", scheduler_out="/w/f/o", scheduler_err="/w/f/e"
)
DEFAULT = PBSOptions().model_dump(mode="json")
TABLE = {"status_dialect": "table", "history_flag": "-H"}
EMPTY_QUEUE = Reply(0, "Stop time: never\n\nNo unfinished job found. \n")
EMPTY_HISTORY = Reply(0, "Stop time: never\n\nNo matching job found. \n")


def spec(
    options: dict[str, Any] | None = None, site: dict[str, Any] | None = None, **changes: Any
) -> JobSpec:
    """A job of 2 nodes × 4 ranks × 8 threads; `site` and shape with changes."""
    shape = {"num_nodes": 2, "ranks_per_node": 4, "threads_per_rank": 8, "walltime": 5400}
    work_dir = changes.pop("work_dir", "/w")
    names = changes.pop("secret_names", ())
    return JobSpec(
        name="n",
        command_name="c",
        executable=Executable(path="/bin/true"),
        site=Site(scheduler="pbs", options=DEFAULT | (options or {}), **(site or {})),
        resources=Resources(**shape | changes),
        work_dir=work_dir,
        secret_names=names,
    )


def directives(*given: Any, **changes: Any) -> list[str]:
    return list(PBS.preamble(spec(*given, **changes), TICKET).directives)


def table(*rows: str) -> Reply:
    head = "JOB_ID JOB_NAME STATUS PROJECT QUEUE START_DATE"
    return Reply(0, "\n".join(["", head, *rows, ""]))


# --- what is asked for


def test_the_scheduler_is_registered_under_its_name_and_runs_elsewhere() -> None:
    found = scheduler_for("pbs")
    assert isinstance(found, PBSScheduler)
    assert (found.name, found.runs_here) == ("pbs", False)


def test_a_chunk_says_what_each_node_must_have() -> None:
    assert directives(memory_per_node=3 * 1024**2 + 1, gpus_per_node=2) == [
        "#PBS -l select=2:ncpus=32:mpiprocs=4:ompthreads=8:mem=3073kb:ngpus=2",
        "#PBS -l walltime=01:30:00",
    ]


def test_what_was_not_asked_for_is_not_in_the_chunk() -> None:
    assert directives(num_nodes=1)[0] == "#PBS -l select=1:ncpus=32:mpiprocs=4:ompthreads=8"


def test_a_site_with_whole_nodes_leaves_out_what_they_have_anyway() -> None:
    options = {"chunk": ["mpiprocs", "ompthreads"]}
    has = {"cores_per_node": 112, "memory_per_node": 2**36}
    assert directives(options, has, memory_per_node=2**30)[0] == (
        "#PBS -l select=2:mpiprocs=4:ompthreads=8"
    )
    assert PBS.problems(spec(options, has, memory_per_node=2**30)) == []


def test_without_any_item_a_chunk_is_a_number_of_nodes() -> None:
    assert directives({"chunk": []}, {"cores_per_node": 32})[0] == "#PBS -l select=2"


def test_queue_and_project_are_named_as_the_site_wants_it() -> None:
    site = {"queue": "regular-c", "project": "gz00"}
    assert directives({}, site)[:2] == ["#PBS -q regular-c", "#PBS -A gz00"]
    assert directives({"account_flag": "-P"}, site)[1] == "#PBS -P gz00"
    assert directives({"account_flag": "-W group_list"}, site)[1] == "#PBS -W group_list=gz00"


def test_place_and_further_resources_and_directives_follow() -> None:
    options = {
        "place": "scatter:excl",
        "extra_select": {"system": "polaris"},
        "extra_l": {"filesystems": "home:eagle"},
        "directives": ["-k doe", "-m n"],
    }
    assert directives(options) == [
        "#PBS -l select=2:ncpus=32:mpiprocs=4:ompthreads=8:system=polaris",
        "#PBS -l walltime=01:30:00",
        "#PBS -l place=scatter:excl",
        "#PBS -l filesystems=home:eagle",
        "#PBS -k doe",
        "#PBS -m n",
    ]
    assert PBS.problems(spec(options)) == []


def test_the_flat_style_asks_for_cores_memory_and_gpus_in_all() -> None:
    flat = {"resource_style": "flat"}
    assert directives(flat, num_nodes=1, memory_per_node=2**30, gpus_per_node=1) == [
        "#PBS -l ncpus=32",
        "#PBS -l mem=1048576kb",
        "#PBS -l ngpus=1",
        "#PBS -l walltime=01:30:00",
    ]


def test_the_flat_style_asks_for_several_nodes_whole() -> None:
    flat, has = {"resource_style": "flat"}, {"cores_per_node": 48}
    assert directives(flat, has, memory_per_node=2**30)[:2] == [
        "#PBS -l ncpus=96",
        "#PBS -l mem=2097152kb",
    ]
    assert PBS.problems(spec(flat, has)) == []


def test_the_old_style_asks_for_nodes_and_their_cores() -> None:
    old = {"resource_style": "nodes_ppn"}
    assert directives(old, gpus_per_node=1, memory_per_node=2**20)[:2] == [
        "#PBS -l nodes=2:ppn=32:gpus=1",
        "#PBS -l mem=2048kb",
    ]
    assert directives(old)[0] == "#PBS -l nodes=2:ppn=32"


@pytest.mark.parametrize(("requeue", "line"), [("yes", "#PBS -r y"), ("no", "#PBS -r n")])
def test_a_profile_says_whether_a_job_may_be_started_again(requeue: str, line: str) -> None:
    assert directives({"requeue": requeue})[-1] == line
    assert not any("-r" in each for each in directives({"requeue": "site"}))


def test_a_job_with_secrets_is_not_started_again() -> None:
    """It has read and removed them."""
    assert directives(secret_names=("TOKEN",))[-1] == "#PBS -r n"
    assert PBS.problems(spec({"requeue": "yes"}, secret_names=("TOKEN",))) == [
        "pbs.requeue is 'yes', but the profile has a secret_environment: a job reads its secrets"
        " once, so a requeued one would have none; choose 'no', or use retries"
    ]


def test_the_script_learns_its_id_from_pbs() -> None:
    assert PBS.preamble(spec(), TICKET).id_expression == '"$PBS_JOBID"'


# --- what is refused before anything is submitted


@pytest.mark.parametrize(
    ("options", "site", "problem"),
    [
        (
            {},
            {"queue": "a b"},
            "queue is 'a b': a name or value for the scheduler has no blanks, quotes or other"
            " special characters",
        ),
        (
            {},
            {"project": "a\nb"},
            "project is 'a\\nb': a name or value for the scheduler has no blanks, quotes or other"
            " special characters",
        ),
        (
            {"place": "a#b"},
            {},
            "pbs.place is 'a#b': a name or value for the scheduler has no blanks, quotes or other"
            " special characters",
        ),
        (
            {"chunk": ["mpiprocs"]},
            {},
            "32 is asked for (cores_per_node), but pbs.chunk leaves out 'ncpus' and the HPC profile"
            " does not say that a node has it: set cores_per_node of the HPC profile",
        ),
        (
            {"chunk": ["ncpus"], "memory": 2**30},
            {"memory_per_node": 2**29},
            "1G is asked for (memory_per_node), but pbs.chunk leaves out 'mem' and the HPC profile"
            " does not say that a node has it: set memory_per_node of the HPC profile",
        ),
        (
            {"chunk": ["ncpus"], "gpus": 4},
            {"gpus_per_node": 2},
            "4 is asked for (gpus_per_node), but pbs.chunk leaves out 'ngpus' and the HPC profile"
            " does not say that a node has it: set gpus_per_node of the HPC profile",
        ),
        (
            {"resource_style": "flat", "place": "scatter"},
            {"cores_per_node": 32},
            "pbs.place is set, but pbs.resource_style is 'flat': only 'select' has it",
        ),
        (
            {"resource_style": "nodes_ppn", "extra_select": {"a": "b"}},
            {},
            "pbs.extra_select is set, but pbs.resource_style is 'nodes_ppn': only 'select' has it",
        ),
        (
            {"resource_style": "flat"},
            {},
            "num_nodes is 2, but pbs.resource_style 'flat' asks for cores in all: set"
            " cores_per_node of the HPC profile, so that whole nodes can be asked for",
        ),
        (
            {"extra_select": {"ncpus": "4"}},
            {},
            "pbs.extra_select 'ncpus': it is written from the execution profile; remove it",
        ),
        (
            {"extra_l": {"walltime": "1"}},
            {},
            "pbs.extra_l 'walltime': it is written from the execution profile; remove it",
        ),
        (
            {"extra_l": {"a b": "1"}},
            {},
            "pbs.extra_l 'a b': this is no name of a PBS resource",
        ),
        (
            {"extra_select": {"system": "a:ncpus=1"}},
            {},
            "pbs.extra_select 'system' is 'a:ncpus=1': a value is not empty and has none of :+,",
        ),
        (
            {"extra_l": {"x": "1,mem=2gb"}},
            {},
            "pbs.extra_l 'x' is '1,mem=2gb': a value is not empty and has none of ,",
        ),
        (
            {"extra_l": {"x": ""}},
            {},
            "pbs.extra_l 'x' is '': a value is not empty and has none of ,",
        ),
        (
            {"extra_l": {"x": "$HOME"}},
            {},
            "pbs.extra_l 'x' is '$HOME': a name or value for the scheduler has no blanks, quotes or"
            " other special characters",
        ),
        (
            {"status_options": ["-l l"]},
            {},
            "pbs.status_options '-l l': write one option of qstat, such as -ll",
        ),
        (
            {"status_options": ["12.opbs"]},
            {},
            "pbs.status_options '12.opbs': write one option of qstat, such as -ll",
        ),
    ],
)
def test_what_pbs_cannot_honour_is_refused_in_a_sentence(
    options: dict[str, Any], site: dict[str, Any], problem: str
) -> None:
    shape = {"memory_per_node": options.pop("memory", 0), "gpus_per_node": options.pop("gpus", 0)}
    assert PBS.problems(spec(options, site, **shape)) == [problem]


def test_one_core_is_in_every_chunk() -> None:
    single = {"num_nodes": 1, "ranks_per_node": 1, "threads_per_rank": 1}
    assert PBS.problems(spec({"chunk": ["mem"]}, **single)) == []


@pytest.mark.parametrize("work_dir", ["/w/é", "/w/a\tb", "/w/\n"])
def test_a_path_that_qsub_refuses_is_refused_here(work_dir: str) -> None:
    assert PBS.problems(spec(work_dir=work_dir)) == [
        f"work_dir is {work_dir!r}: PBS takes no path with other characters than printable ASCII;"
        " choose another work_dir"
    ]


def test_a_path_that_pbs_would_cut_is_refused_here() -> None:
    assert PBS.problems(spec(work_dir="/" + "w" * 900)) == [
        "work_dir has 901 characters, and PBS cuts long paths: choose one of at most 800"
    ]


def test_odd_but_printable_paths_are_handed_over_as_they_are() -> None:
    """Each of these was taken by a real qsub, and its output arrived."""
    odd = "/w/a b:c,d'e\"f;g&(h)*\\i$HOME^array_index^%J"
    assert PBS.problems(spec(work_dir=odd)) == []
    ticket = dataclasses.replace(
        TICKET, script=f"{odd}/s", scheduler_out=f"{odd}/o", scheduler_err=f"{odd}/e"
    )
    command = next(PBS.submit(spec(work_dir=odd), ticket))
    assert command.argv == (
        *("qsub", "-N", "htag", "-o", f"{odd}/o", "-e", f"{odd}/e"),
        f"{odd}/s",
    )


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("-N other", "the job's name is how it is found again"),
        ("-Nother", "the job's name is how it is found again"),
        ("-o /x", "output goes to the job folder"),
        ("-e /x", "output goes to the job folder"),
        ("-j oe", "output goes to the job folder"),
        ("-R oe", "output goes to the job folder"),
        ("-J 0-3", "one call is one job"),
        ("-I", "nobody would be there to type"),
        ("-X", "nobody would be there to type"),
        ("-z", "qsub would not tell the job's id"),
        ("-fz", "qsub would not tell the job's id"),
        ("-m n -z", "qsub would not tell the job's id"),
        ("-C '#X'", "the other #PBS lines would no longer be read"),
        ("-S /bin/csh", "the script is one for bash and says so itself"),
        ("-V", "PBS damages the values of variables; set environment in the HPC profile"),
        ("-l mem=1gb", "set the execution profile, or pbs.extra_l, pbs.extra_select or pbs.place"),
        ("-q debug", "set queue_cpu or queue_gpu"),
        ("-r y", "set pbs.requeue"),
        ("-A x", "set project_cpu or project_gpu"),
        ("-W block=true", "qsub would wait for the job's end"),
        ("-W umask=22,block=true", "qsub would wait for the job's end"),
        ("-W interactive=true", "nobody would be there to type"),
        ("-W stageout=a@b:c", "declare inputs and expected_outputs"),
        ("-W Output_Path=/x", "output goes to the job folder"),
        ("-W Job_Name=x", "the job's name is how it is found again"),
        ("-W Rerunable=y", "set pbs.requeue"),
        ("-W Account_Name=x", "set project_cpu or project_gpu"),
        ("-k oe", "the output would stay on the node; with d (as in doe) it is written directly"),
    ],
)
def test_a_directive_that_would_undo_something_cannot_be_given(line: str, why: str) -> None:
    assert PBS.problems(spec({"directives": [line]})) == [
        f"pbs.directives {line!r} cannot be given: {why}"
    ]


def test_a_project_cannot_be_named_twice() -> None:
    for flag, line in (
        ("-P", "-P x"),
        ("-P", "-W project=x"),
        ("-W group_list", "-W group_list=x"),
    ):
        assert PBS.problems(spec({"account_flag": flag, "directives": [line]})) == [
            f"pbs.directives {line!r} cannot be given: set project_cpu or project_gpu"
        ]
    assert PBS.problems(spec({"account_flag": "-P", "directives": ["-A x"]})) == []


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("", "pbs.directives is '': write one option on one line"),
        ("-m n\n-z", "pbs.directives is '-m n\\n-z': write one option on one line"),
        ("m n", "pbs.directives is 'm n': it must begin with - (the prefix is added)"),
        ("-m", "pbs.directives is '-m': qsub would not read it (option -m requires argument)"),
        ("-t 0-3", "pbs.directives is '-t 0-3': qsub would not read it (option -t not recognized)"),
        ("-m 'n", 'pbs.directives is "-m \'n": qsub would not read it (No closing quotation)'),
        ("-m n x", "pbs.directives is '-m n x': only options can be given, the script is ours"),
        (
            "-m n -- x",
            "pbs.directives is '-m n -- x': only options can be given, the script is ours",
        ),
        ("--", "pbs.directives is '--': only options can be given, the script is ours"),
    ],
)
def test_a_directive_that_qsub_would_not_read_cannot_be_given(line: str, problem: str) -> None:
    assert PBS.problems(spec({"directives": [line]})) == [problem]


@pytest.mark.parametrize(
    "line",
    ["-k doe", "-k oed", "-k n", "-m abe", "-M a@b", "-p 5", "-a 2359", "-v A=1,B=2", "-c n",
     "-h", "-W depend=afterok:1.s", "-W umask=022", "-u x", "-P x"],
)  # fmt: skip
def test_other_directives_are_the_site_owners(line: str) -> None:
    assert PBS.problems(spec({"directives": [line]})) == []
    assert directives({"directives": [line]})[-1] == f"#PBS {line}"


@given(
    st.dictionaries(
        st.sampled_from(["queue", "project", "place", "name", "value", "directive", "key"]),
        st.text("ab :+,=#-'\"\\$`\n\r\x0b\u2028é\0", max_size=6),
    )
)
def test_no_accepted_value_begins_a_line_of_its_own(values: dict[str, str]) -> None:
    options: dict[str, Any] = {"place": values.get("place", "")}
    if "name" in values:
        options["extra_select"] = {values["name"]: values.get("value", "")}
        options["extra_l"] = {values["name"]: values.get("value", "")}
    if "directive" in values:
        options["directives"] = [values["directive"]]
    site = {name: values.get(name, "") for name in ("queue", "project")}
    job = spec(options, site)
    if not PBS.problems(job):
        for line in PBS.preamble(job, TICKET).directives:
            assert len(line.splitlines()) == 1
            assert line.startswith("#PBS -")
            assert line.isprintable()


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
        PBS.find("htag", {}), PBS.cancel({"1.s": "htag"}, {}),
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
    )
    assert isinstance(answer, dict)
    assert answer.keys() == {"68.opbs", "69.opbs"}


@pytest.mark.parametrize("broken", ["", "{", '{"pbs_server": "s", "Jobs": {"68.opbs": {"a": \\x'])
def test_json_that_cannot_be_parsed_is_asked_for_as_text(broken: str) -> None:
    answer, commands = converse(
        PBS.observe(["68.opbs", "69.opbs"], {}),
        Reply(0, broken),
        recorded("multi_ids", "qstat_xf_both"),
    )
    assert commands[1] == "qstat -E -x -f 68.opbs 69.opbs"
    assert isinstance(answer, dict)
    assert answer.keys() == {"68.opbs", "69.opbs"}


def test_the_text_dialect_asks_for_text_at_once() -> None:
    answer, commands = converse(
        PBS.observe(["68.opbs", "69.opbs"], {"status_dialect": "text"}),
        recorded("multi_ids", "qstat_xf_both"),
    )
    assert commands == ["qstat -E -x -f 68.opbs 69.opbs"]
    assert isinstance(answer, dict)
    assert answer.keys() == {"68.opbs", "69.opbs"}


def test_an_old_qstat_is_asked_for_text_about_many_and_for_json_about_one() -> None:
    old = {"one_connection": False}
    _, commands = converse(
        PBS.observe(["68.opbs", "69.opbs"], old), recorded("multi_ids", "qstat_xf_both")
    )
    assert commands == ["qstat -x -f 68.opbs 69.opbs"]
    one = recorded("end_exit0", "finished_qstat_xf_json")
    _, commands = converse(PBS.observe(["29.opbs"], old), one)
    assert commands == ["qstat -x -f -F json 29.opbs"]


def test_without_one_connection_only_the_jobs_that_pbs_names_are_absent() -> None:
    old = {"one_connection": False, "status_dialect": "text"}
    both = recorded("multi_ids", "qstat_xf_both")
    reply = Reply(153, both.stdout, "qstat: Unknown Job Id 888888.opbs\n")
    answer, _ = converse(PBS.observe(["68.opbs", "69.opbs", "888888.opbs"], old), reply)
    assert isinstance(answer, dict)
    assert answer.keys() == {"68.opbs", "69.opbs"}
    answer, _ = converse(PBS.observe(["68.opbs", "70.opbs"], old), reply)
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
    cut = whole[: whole.index("    Exit_status")]
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


def test_a_server_that_keeps_no_history_is_named() -> None:
    reply = Reply(0, "", "qstat: PBS is not configured to maintain job history\n")
    answer, _ = converse(PBS.observe(["37.opbs"], {}), reply)
    assert answer == NoAnswer(
        "exit status 0, qstat: PBS is not configured to maintain job history; set"
        " pbs.history_flag of the HPC profile to 'none'"
    )


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


# --- a site's own table


def test_a_sites_table_is_asked_for_queue_history_and_records() -> None:
    record = recorded("end_walltime_exceeded", "finished_qstat_xf")
    options = TABLE | {"status_options": ["-ll"]}
    answer, commands = converse(
        PBS.observe(["41.opbs", "42.opbs", "43.opbs"], options),
        table("41 htag RUNNING p q 10/08 18:55:33"),
        table("42 hother FINISH p q 10/08 18:55:33"),
        Reply(0, "Stop time: never\n" + record.stdout),
    )
    assert commands == ["qstat -ll", "qstat -ll -H", "qstat -H -f 42.opbs"]
    assert isinstance(answer, dict)
    assert answer["41.opbs"] == Observation(id="41.opbs", state=JobState.RUNNING, word="RUNNING")
    assert answer["42.opbs"].cause is Reason.WALLTIME  # type: ignore[union-attr]
    assert "43.opbs" not in answer


def test_a_table_is_enough_where_the_site_prints_no_records() -> None:
    rows = table("42 htag FINISH p q -- 0")
    for reply in (Reply(1, "", "qstat: no"), Reply(0, "nothing"), Reply(0, ""), Reply(None)):
        answer, _ = converse(PBS.observe(["42.opbs"], TABLE), EMPTY_QUEUE, rows, reply)
        assert answer == {"42.opbs": Observation(id="42.opbs", state=JobState.ENDED, word="FINISH")}


def test_a_job_that_neither_table_lists_is_absent() -> None:
    assert converse(PBS.observe(["42.opbs"], TABLE), EMPTY_QUEUE, EMPTY_HISTORY)[0] == {}


def test_a_table_without_history_is_one_question() -> None:
    options = {"status_dialect": "table", "history_flag": "none"}
    answer, commands = converse(PBS.observe(["42.opbs"], options), EMPTY_QUEUE)
    assert (answer, commands) == ({}, ["qstat"])


def test_a_table_that_fails_or_is_empty_tells_nothing() -> None:
    assert converse(PBS.observe(["42.opbs"], TABLE), Reply(0, ""))[0] == NoAnswer(
        "an answer of qstat cannot be used: it is no table with the columns JOB_ID, JOB_NAME and"
        " STATUS: ''"
    )
    assert converse(PBS.observe(["42.opbs"], TABLE), Reply(None))[0] == NoAnswer(
        "no answer in time, nothing"
    )
    refused = converse(PBS.observe(["42.opbs"], TABLE), Reply(2, "", "qstat: -ll?\nusage: x"))[0]
    assert isinstance(refused, NoAnswer)
    assert refused.said.startswith("exit status 2, qstat: -ll?; this site's command does not know")
    answer, _ = converse(
        PBS.observe(["41.opbs", "42.opbs"], TABLE), table("41 htag RUNNING p q -- 0"), Reply(1)
    )
    assert isinstance(answer, dict)
    assert answer["42.opbs"] == NoAnswer("exit status 1, nothing")


# --- finding by name


def test_a_job_is_found_by_its_whole_name() -> None:
    answer, commands = converse(
        PBS.find("htag", {}),
        Reply(0, "29.opbs\n"),
        recorded("end_exit0", "finished_qstat_xf_json"),
    )
    assert commands == ["qselect -x -N htag", "qstat -E -x -f -F json 29.opbs"]
    assert isinstance(answer, dict)
    assert answer["29.opbs"].queued_at == 1795344666.0


def test_no_job_of_that_name_is_an_answer_of_one_command() -> None:
    assert converse(PBS.find("htag", {}), Reply(0, ""))[0] == {}


def test_a_search_that_failed_is_no_answer() -> None:
    down = recorded("server_down", "qselect")
    assert converse(PBS.find("htag", {}), down)[0] == NoAnswer(down.said)
    for qstat in (recorded("server_down", "qstat_f_json"), Reply(None)):
        assert converse(PBS.find("htag", {}), Reply(0, "1.s\n"), qstat)[0] == NoAnswer(qstat.said)
    refused = Reply(2, "", "qselect: invalid option -- 'x'\nusage: qselect")
    answer = converse(PBS.find("htag", {}), refused)[0]
    assert isinstance(answer, NoAnswer)
    assert "see pbs.one_connection (-E), pbs.history_flag (-x, -H)" in answer.said
    quiet = Reply(0, "", "qselect: PBS is not configured to maintain job history")
    assert isinstance(converse(PBS.find("htag", {}), quiet)[0], NoAnswer)


def test_a_job_that_was_found_but_cannot_be_told_of_makes_the_search_fail() -> None:
    options = {"one_connection": False, "status_dialect": "text"}
    answer, _ = converse(PBS.find("htag", options), Reply(0, "1.s\n"), Reply(0, ""))
    assert answer == NoAnswer("exit status 0, nothing")


def test_a_job_that_was_found_and_left_the_list_meanwhile_was_there() -> None:
    answer, _ = converse(
        PBS.find("htag", {}),
        Reply(0, "888888.opbs\n"),
        recorded("unknown_id", "x_x_f_json"),
        recorded("unknown_id", "x_f"),
    )
    unknown = Observation(id="888888.opbs", state=JobState.UNKNOWN, tag="htag")
    assert answer == {"888888.opbs": unknown}


TAG = "hq7k2m9x1abcdef"


def named(tag: str = TAG) -> Reply:
    found = recorded("end_exit0", "finished_qstat_xf")
    return Reply(0, found.stdout.replace("end_exit0.sh", tag, 1))


def test_in_a_table_that_cuts_names_the_full_record_tells_name_and_id() -> None:
    answer, commands = converse(
        PBS.find(TAG, TABLE),
        table("29 hq7k2m9x1a QUEUED p q --", "30 other QUEUED p q --"),
        named(),
        EMPTY_HISTORY,
    )
    assert commands == ["qstat", "qstat -f 29", "qstat -H"]
    assert isinstance(answer, dict)
    assert list(answer) == ["29.opbs"]


def test_another_job_whose_name_begins_like_the_tag_is_not_ours() -> None:
    rows = table(f"29 {TAG[:10]} FINISH p q --")
    answer, _ = converse(PBS.find(TAG, TABLE), EMPTY_QUEUE, rows, named(TAG[:10] + "zzz"))
    assert answer == {}


def test_without_a_record_only_whole_names_and_ids_are_believed() -> None:
    whole = table(f"29.opbs {TAG} QUEUED p q --")
    answer, _ = converse(PBS.find(TAG, TABLE), whole, Reply(1), EMPTY_HISTORY)
    assert isinstance(answer, dict)
    assert list(answer) == ["29.opbs"]
    for row in (f"29 {TAG} QUEUED p q --", f"29.opbs {TAG[:10]} QUEUED p q --"):
        answer, _ = converse(PBS.find(TAG, TABLE), table(row), Reply(0, "?"))
        job, name = row.split()[:2]
        assert answer == NoAnswer(
            f"qstat lists job {job} as {name!r}, which may be {TAG!r}, but no full record of it can"
            " be read: look at it, and set pbs.status_options of the HPC profile to what shows"
            " whole names and ids"
        )


def test_a_table_without_our_job_is_searched_in_queue_and_history() -> None:
    answer, commands = converse(PBS.find(TAG, TABLE), EMPTY_QUEUE, EMPTY_HISTORY)
    assert (answer, commands) == ({}, ["qstat", "qstat -H"])
    assert isinstance(converse(PBS.find(TAG, TABLE), EMPTY_QUEUE, Reply(0, ""))[0], NoAnswer)


# --- cancelling


def test_jobs_are_cancelled_in_one_command() -> None:
    said, commands = converse(PBS.cancel({"1.s": "htag", "2.s": "hother"}, {}), Reply(0))
    assert (said, commands) == (None, ["qdel 1.s 2.s"])


@pytest.mark.parametrize(
    "reply",
    [
        recorded("qdel_running", "qdel_again_finished"),
        recorded("unknown_id", "x_qdel"),
        Reply(35, "", "qdel: Job has finished 1.s\nqdel: Unknown Job Id 2.s\n"),
        Reply(168, "", "qdel: Request invalid for state of job 1.s\n"),
        Reply(221, "", "qdel: Delete already in progress 1.s\n"),
    ],
)
def test_a_job_that_is_over_need_not_be_cancelled(reply: Reply) -> None:
    assert converse(PBS.cancel({"1.s": "htag"}, {}), reply)[0] is None


@pytest.mark.parametrize(
    "reply",
    [
        recorded("server_down", "qdel"),
        recorded("unknown_id", "x_qdel_foo"),
        Reply(None, "", "qdel: Unknown Job Id 1.s"),
        Reply(159, "", "qdel: Unknown Job Id 1.s\nqdel: Unauthorized Request  2.s\n"),
        Reply(1, "", ""),
    ],
)
def test_a_cancellation_that_pbs_did_not_take_in_is_told(reply: Reply) -> None:
    assert converse(PBS.cancel({"1.s": "htag"}, {}), reply)[0] == NoAnswer(reply.said)


# --- the job's own output


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("=>> PBS: job killed: walltime 10 exceeded limit 5", Reason.WALLTIME),
        ("=>> PBS: job killed: mem 1348968kb exceeded limit 102400kb", Reason.OUT_OF_MEMORY),
        ("=>> PBS: job killed: vmem 2kb exceeded limit 1kb", Reason.OUT_OF_MEMORY),
        ("=>> PBS: job killed: node 1 (n2) requested job die, code 15009", Reason.NODE_FAILURE),
        (
            "Cgroup mem limit exceeded: Killed process 1234 (a.out) in /jobs/1.s",
            Reason.OUT_OF_MEMORY,
        ),
    ],
)
def test_pbs_own_words_in_the_output_tell_the_reason(line: str, reason: Reason) -> None:
    told = PBS.read_output(f"some output\n{line}\nmore\n")
    assert told is not None
    assert (told.reason, told.words) == (reason, line)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Killed",
        "he said: =>> PBS: job killed: walltime 10 exceeded limit 5",
        "=>> PBS: job killed: cput 10 exceeded limit 5",
        "=>> PBS: job killed: ",
        "Cgroup mem limit exceeded: ",
    ],
)
def test_other_output_tells_nothing(text: str) -> None:
    assert PBS.read_output(text) is None


@given(st.text("=>> PBS: job killed: memwalltime\n", max_size=80))
def test_any_output_can_be_read(text: str) -> None:
    PBS.read_output(text)
