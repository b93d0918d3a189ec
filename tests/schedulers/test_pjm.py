"""PJM's dialect: what it asks for, what it refuses, and what it makes of printed answers."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpc_prefect.blocks import PJMOptions
from hpc_prefect.executor.ledger import JobFolder
from hpc_prefect.job.dialogue import Reply
from hpc_prefect.job.failure import Reason
from hpc_prefect.job.folder import SCHEDULER_STATISTICS
from hpc_prefect.job.spec import Executable, JobSpec, Resources, Site
from hpc_prefect.job.state import JobState, Observation
from hpc_prefect.schedulers import scheduler_for
from hpc_prefect.schedulers.base import (
    Accepted,
    NoAnswer,
    Refused,
    Submission,
    Ticket,
    Told,
    Unclear,
)
from hpc_prefect.schedulers.pjm import PJMScheduler
from hpc_prefect.transports.local import LocalTransport

from .recorded import converse
from .test_pjstat import HEADER, STATISTICS, printed, row

PJM = PJMScheduler()
TAG = "hq7k2m9x1abcdef"
TICKET = Ticket(
    tag=TAG, folder="/w/f", script="/w/f/s.sh", scheduler_out="/w/f/o", scheduler_err="/w/f/e"
)
DEFAULT = PJMOptions().model_dump(mode="json")
ASK = "-v --choose jid,jnam,st,lst,ec,pc,sn,ermsg --filter"
NONE = Reply(0, HEADER)
DOWN = Reply(1, "", "[ERR.] PJM 0290 pjstat PJM daemon is not present.\n")
SECRETS = (
    "pjm.requeue is 'yes', but the profile has a secret_environment: a job reads its secrets once,"
    " so a requeued one would have none; choose 'no', or use retries"
)
PLAIN = ": a name or value for the scheduler has no blanks, quotes or other special characters"


def spec(
    options: dict[str, Any] | None = None, site: dict[str, Any] | None = None, **changes: Any
) -> JobSpec:
    """An MPI job of 2 nodes × 4 ranks × 12 threads; `site` and shape with changes."""
    shape = {"num_nodes": 2, "ranks_per_node": 4, "threads_per_rank": 12, "walltime": 5400}
    work_dir = changes.pop("work_dir", "/w")
    names = changes.pop("secret_names", ())
    return JobSpec(
        name="n",
        command_name="c",
        executable=Executable(path="/bin/true"),
        site=Site(scheduler="pjm", options=DEFAULT | (options or {}), **(site or {})),
        resources=Resources(**{"launch": "mpi"} | shape | changes),
        work_dir=work_dir,
        secret_names=names,
    )


def directives(*given: Any, **changes: Any) -> list[str]:
    lines = PJM.preamble(spec(*given, **changes), TICKET).directives
    return [line.removeprefix("#PJM ") for line in lines]


def table(*rows: tuple[str, ...]) -> Reply:
    return Reply(0, HEADER + "".join(row(*each) for each in rows))


def listed(job_id: str, word: str, name: str = TAG[:10], codes: str = "0 0 0") -> tuple[str, ...]:
    return (job_id, name, word, "QUE", *codes.split(), "-")


# --- what is asked for


def test_the_scheduler_is_registered_under_its_name_and_runs_elsewhere() -> None:
    found = scheduler_for("pjm")
    assert isinstance(found, PJMScheduler)
    assert (found.name, found.runs_here) == ("pjm", False)


def test_whole_nodes_time_and_ranks_are_asked_for() -> None:
    assert directives() == [
        '-L "node=2"',
        '-L "elapse=01:30:00"',
        '--mpi "proc=8,max-proc-per-node=4"',
    ]
    assert PJM.problems(spec()) == []


def test_every_directive_is_a_line_of_pjms() -> None:
    lines = PJM.preamble(spec(), TICKET).directives
    assert lines[0] == '#PJM -L "node=2"'


def test_a_program_without_mpi_asks_for_no_ranks() -> None:
    single = {"launch": "single", "ranks_per_node": 1, "num_nodes": 1}
    assert directives({"mpi": ["rank-map-bychip"]}, **single) == [
        '-L "node=1"',
        '-L "elapse=01:30:00"',
    ]


def test_resource_unit_group_and_project_are_named() -> None:
    site = {"queue": "small", "project": "hp000000"}
    found = directives({"rscunit": "rscunit_ft01"}, site)
    assert found[:2] == ['-L "rscunit=rscunit_ft01"', '-L "rscgrp=small"']
    assert found[-1] == "-g hp000000"


def test_memory_is_that_of_a_node_in_mebibytes_rounded_up() -> None:
    assert directives(memory_per_node=28 * 2**30)[1] == '-L "node-mem=28672Mi"'
    assert directives(memory_per_node=2**20 + 1)[1] == '-L "node-mem=2Mi"'


@pytest.mark.parametrize(
    ("shape", "nodes", "item"),
    [
        ("2x3:torus", 6, "node=2x3:torus"),
        ("2x3x2:torus:strict", 12, "node=2x3x2:torus:strict"),
        (":noncont", 5, "node=5:noncont"),
        ("4", 4, "node=4"),
    ],
)
def test_nodes_may_have_a_shape(shape: str, nodes: int, item: str) -> None:
    options = {"node_shape": shape}
    assert directives(options, num_nodes=nodes)[0] == f'-L "{item}"'
    assert PJM.problems(spec(options, num_nodes=nodes)) == []


def test_virtual_nodes_are_asked_for_with_their_cores_and_memory() -> None:
    options = {"allocation": "vnode", "gpu_item": "gpu"}
    assert directives(options, memory_per_node=2**30, gpus_per_node=2) == [
        '-L "vnode=2"',
        '-L "vnode-core=48"',
        '-L "vnode-mem=1024Mi"',
        '-L "gpu=2"',
        '-L "elapse=01:30:00"',
        '--mpi "proc=8"',
    ]
    assert PJM.problems(spec(options, gpus_per_node=2)) == []


def test_a_site_may_give_what_belongs_to_its_gpus() -> None:
    options, has = {"allocation": "none", "gpu_item": "gpu"}, {"cores_per_node": 16}
    shape = {"num_nodes": 1, "ranks_per_node": 1, "gpus_per_node": 1, "launch": "single"}
    assert directives(options, has, **shape) == ['-L "gpu=1"', '-L "elapse=01:30:00"']
    assert PJM.problems(spec(options, has, **shape)) == []


def test_gpus_that_every_node_has_need_no_item() -> None:
    has = {"gpus_per_node": 8}
    assert PJM.problems(spec({}, has, gpus_per_node=8)) == []
    assert not any("gpu" in line for line in directives({}, has, gpus_per_node=8))


def test_further_items_volumes_and_directives_follow() -> None:
    options = {
        "resources": {"freq": "2200", "jobenv": "singularity"},
        "mpi": ["rank-map-bychip", "assign-online-node"],
        "gfscache": ["/vol0004", "/vol0005"],
        "llio": ["localtmp-size=30Gi", "cn-read-cache=on"],
        "directives": ['--mail-list "me@example.org"', "-m e"],
    }
    assert directives(options) == [
        '-L "node=2"',
        '-L "elapse=01:30:00"',
        '-L "freq=2200"',
        '-L "jobenv=singularity"',
        '--mpi "proc=8,max-proc-per-node=4,rank-map-bychip,assign-online-node"',
        '-x "PJM_LLIO_GFSCACHE=/vol0004:/vol0005"',
        '--llio "localtmp-size=30Gi,cn-read-cache=on"',
        '--mail-list "me@example.org"',
        "-m e",
    ]
    assert PJM.problems(spec(options)) == []


@pytest.mark.parametrize(("requeue", "line"), [("yes", "--restart"), ("no", "--norestart")])
def test_a_profile_says_whether_a_job_may_be_started_again(requeue: str, line: str) -> None:
    assert directives({"requeue": requeue})[-1] == line
    assert not any("restart" in each for each in directives({"requeue": "site"}))


def test_a_job_with_secrets_is_not_started_again() -> None:
    """It has read and removed them."""
    assert directives(secret_names=("TOKEN",))[-1] == "--norestart"
    assert PJM.problems(spec({"requeue": "yes"}, secret_names=("TOKEN",))) == [SECRETS]


def test_the_script_learns_its_id_from_pjm() -> None:
    assert PJM.preamble(spec(), TICKET).id_expression == '"$PJM_JOBID"'


# --- what is refused before anything is submitted


@pytest.mark.parametrize(
    ("options", "site", "problem"),
    [
        ({}, {"queue": "a b"}, f"queue is 'a b'{PLAIN}"),
        ({}, {"project": "a\nb"}, f"project is 'a\\nb'{PLAIN}"),
        ({"rscunit": 'a"b'}, {}, f"pjm.rscunit is 'a\"b'{PLAIN}"),
        ({"gpu_item": "g u", "gpus": 1}, {}, f"pjm.gpu_item is 'g u'{PLAIN}"),
        ({"mpi": ["a\n#PJM -X"]}, {}, f"pjm.mpi is 'a\\n#PJM -X'{PLAIN}"),
        ({"llio": ["a`b`"]}, {}, f"pjm.llio is 'a`b`'{PLAIN}"),
        (
            {"mpi": ["proc=3"]},
            {},
            "pjm.mpi 'proc=3': set ranks_per_node in the execution profile",
        ),
        (
            {"mpi": ["assign-online-node,max-proc-per-node=1"]},
            {},
            "pjm.mpi 'assign-online-node,max-proc-per-node=1': set ranks_per_node in the execution"
            " profile",
        ),
        (
            {"node_shape": "2x3"},
            {},
            "pjm.node_shape is '2x3', which is 6 nodes, but the job has 2: set num_nodes in the"
            " execution profile, or leave the numbers out of the shape",
        ),
        (
            {"node_shape": "torus"},
            {},
            "pjm.node_shape is 'torus': write it as 2x3, :torus or 2x3x2:torus:strict",
        ),
        (
            {"node_shape": ":torus", "allocation": "vnode"},
            {},
            "pjm.node_shape is set, but pjm.allocation is 'vnode': only 'node' has a shape",
        ),
        (
            {"gpus": 4},
            {"gpus_per_node": 2},
            "4 GPUs are asked for, but pjm.gpu_item is not set and the HPC profile does not say"
            " that a node has them: set pjm.gpu_item to the site's -L item for GPUs, or"
            " gpus_per_node of the HPC profile",
        ),
        (
            {"allocation": "none"},
            {"cores_per_node": 48},
            "num_nodes is 2, but pjm.allocation is 'none', which asks for no nodes: choose 'node'"
            " or 'vnode', or one node",
        ),
        (
            {"allocation": "none", "nodes": 1},
            {},
            "48 is asked for (cores_per_node), but pjm.allocation is 'none' and the HPC profile"
            " does not say that a job is given it: set cores_per_node of the HPC profile",
        ),
        (
            {"allocation": "none", "nodes": 1, "memory": 2**30},
            {"cores_per_node": 48},
            "1G is asked for (memory_per_node), but pjm.allocation is 'none' and the HPC profile"
            " does not say that a job is given it: set memory_per_node of the HPC profile",
        ),
        (
            {"gfscache": ["/vol0004:/vol0005"]},
            {},
            "pjm.gfscache '/vol0004:/vol0005': write one volume, such as /vol0004",
        ),
        (
            {"gfscache": ['/v" -X "']},
            {},
            "pjm.gfscache '/v\" -X \"': write one volume, such as /vol0004",
        ),
        ({"resources": {"a b": "1"}}, {}, "pjm.resources 'a b': this is no name of a -L item"),
        (
            {"resources": {"freq": "2200,node=1"}},
            {},
            "pjm.resources 'freq' is '2200,node=1': a value is not empty and has no comma",
        ),
        (
            {"resources": {"freq": ""}},
            {},
            "pjm.resources 'freq' is '': a value is not empty and has no comma",
        ),
        ({"resources": {"freq": "$X"}}, {}, f"pjm.resources 'freq' is '$X'{PLAIN}"),
        (
            {"resources": {"elapse": "60"}},
            {},
            "pjm.resources 'elapse': set walltime in the execution profile",
        ),
        ({"resources": {"rg": "a"}}, {}, "pjm.resources 'rg': set queue_cpu or queue_gpu"),
        ({"resources": {"ru": "a"}}, {}, "pjm.resources 'ru': set pjm.rscunit"),
        (
            {"resources": {"node": "9"}},
            {},
            "pjm.resources 'node': set num_nodes in the execution profile, and pjm.node_shape",
        ),
        (
            {"resources": {"core-mem": "1Gi"}},
            {},
            "pjm.resources 'core-mem': set memory_per_node in the execution profile",
        ),
        (
            {"resources": {"gpu": "1"}, "gpu_item": "gpu"},
            {},
            "pjm.resources 'gpu': set gpus_per_node in the execution profile",
        ),
        (
            {"command_options": ["--no-check-directory x"]},
            {},
            "pjm.command_options '--no-check-directory x': write one long option of pjsub in one"
            " word, such as --no-check-directory",
        ),
        (
            {"command_options": ["other.sh"]},
            {},
            "pjm.command_options 'other.sh': write one long option of pjsub in one word, such as"
            " --no-check-directory",
        ),
        (
            {"command_options": ["--comment"]},
            {},
            "pjm.command_options '--comment': it wants a value, and would take the script for it;"
            " write both in pjm.directives",
        ),
        (
            {"command_options": ["--name=x"]},
            {},
            "pjm.command_options '--name=x' cannot be given: the job's name is how it is found"
            " again",
        ),
    ],
)
def test_what_pjm_cannot_honour_is_refused_in_a_sentence(
    options: dict[str, Any], site: dict[str, Any], problem: str
) -> None:
    shape = {
        "memory_per_node": options.pop("memory", 0),
        "gpus_per_node": options.pop("gpus", 0),
        "num_nodes": options.pop("nodes", 2),
    }
    assert PJM.problems(spec(options, site, **shape)) == [problem]


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("-N other", "the job's name is how it is found again"),
        ("--name other", "the job's name is how it is found again"),
        ("-o /x", "output goes to the job folder"),
        ("--err=/x", "output goes to the job folder"),
        ("-j", "output goes to the job folder"),
        ("-S", "statistics go to the job folder"),
        ("--spath /x", "statistics go to the job folder"),
        ('--bulk --sparam "0-9"', "one call is one job"),
        ("--step", "one call is one job"),
        ("--mswk", "one call is one job"),
        ("--interact", "nobody would be there to type"),
        ("-z", "pjsub would not tell of the job as it is read"),
        ("--verbose", "pjsub would not tell of the job as it is read"),
        ("--help", "the job would not be submitted"),
        ("-C X", "the other #PJM lines would no longer be read"),
        ("-g other", "set project_cpu or project_gpu"),
        ('-L "node=9"', "set the execution profile, or pjm.resources"),
        ("-m e -Lnode=9", "set the execution profile, or pjm.resources"),
        ("--rsc-list node=9", "set the execution profile, or pjm.resources"),
        ("--mpi proc=9", "set pjm.mpi"),
        ("--llio perf", "set pjm.llio"),
        ("--restart", "set pjm.requeue"),
        ("--norest", "set pjm.requeue"),
        (
            "-X",
            "the flow's own environment, with its keys, would be in the job; set environment in"
            " the HPC profile",
        ),
    ],
)
def test_a_directive_that_would_undo_something_cannot_be_given(line: str, why: str) -> None:
    assert PJM.problems(spec({"directives": [line]})) == [
        f"pjm.directives {line!r} cannot be given: {why}"
    ]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("", "pjm.directives is '': write one option on one line"),
        ("-m e\n-X", "pjm.directives is '-m e\\n-X': write one option on one line"),
        ("m e", "pjm.directives is 'm e': it must begin with - (the prefix is added)"),
        (
            "--comment " + "x" * 4090,
            f"pjm.directives '--comment {'x' * 30}...': pjsub reads lines of up to 4095 bytes",
        ),
    ],
)
def test_a_directive_that_pjsub_would_not_read_cannot_be_given(line: str, problem: str) -> None:
    assert problem in PJM.problems(spec({"directives": [line]}))


@pytest.mark.parametrize(
    ("work_dir", "problem"),
    [
        (
            "/w/%j",
            "work_dir is '/w/%j': PJM replaces %j and its like in paths of output; choose another"
            " work_dir",
        ),
        ("/w/\n", "work_dir is '/w/\\n': pjsub takes no path with control characters"),
    ],
)
def test_a_path_that_pjm_would_not_take_as_it_is_is_refused_here(
    work_dir: str, problem: str
) -> None:
    assert PJM.problems(spec(work_dir=work_dir)) == [problem]


VALUES = st.text(st.sampled_from("a1=:,x-/ \n\r\x0b\u2028\"'`$#\\"), min_size=1, max_size=12)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "rscunit": VALUES,
            "node_shape": VALUES,
            "gpu_item": VALUES,
            "resources": st.dictionaries(VALUES, VALUES, max_size=1),
            **{name: st.lists(VALUES, max_size=2) for name in ("mpi", "gfscache", "llio")},
            "directives": st.lists(VALUES, max_size=2),
        },
    ),
    st.fixed_dictionaries({}, optional={"queue": VALUES, "project": VALUES}),
)
def test_no_value_can_bring_a_line_or_an_option_of_its_own(
    options: dict[str, Any], site: dict[str, Any]
) -> None:
    job = spec(options, site, gpus_per_node=1)
    if PJM.problems(job):
        return
    free = len(options.get("directives", ()))
    lines = PJM.preamble(job, TICKET).directives
    assert all(line.startswith("#PJM -") and len(line.splitlines()) == 1 for line in lines)
    for line in lines[: len(lines) - free]:
        assert len(shlex.split(line.removeprefix("#PJM "))) == 2  # an option and its value


# --- submitting


def submitted(reply: Reply, **changes: Any) -> Submission:
    return converse(PJM.submit(spec(**changes), TICKET), reply)[0]


def test_a_job_is_handed_over_with_its_name_and_its_files_from_where_it_runs() -> None:
    job = spec({"command_options": ["--no-check-directory"]}, work_dir="/vol0004/a b")
    command = next(PJM.submit(job, TICKET))
    assert command.argv == (
        *("pjsub", "-N", TAG, "-o", "/w/f/o", "-e", "/w/f/e"),
        *("-s", "--spath", "/w/f/scheduler.stats"),
        *("--no-check-directory", "/w/f/s.sh"),
    )
    assert (command.cwd, len(TAG) <= 63) == ("/vol0004/a b", True)
    assert PJM.problems(job) == []


@pytest.mark.parametrize(
    "text",
    [
        "[INFO] PJM 0000 pjsub Job 167661 submitted.\n",
        "[INFO.] PJM 0000 pjsub Job 167661 submitted.\n",
        "Welcome\n[INFO] PJM 0000 pjsub Job 167661 submitted.\n",
    ],
)
def test_the_id_is_read_from_pjsubs_sentence(text: str) -> None:
    assert submitted(Reply(0, text)) == Accepted("167661")


@pytest.mark.parametrize(
    "said",
    [
        "[ERR.] PJM 0054 pjsub node=1 is less than the lower limit (385).",
        "[ERR.] PJM 0057 pjsub node=32 is greater than the upper limit (24).",
        "[ERR] PJM 0058 pjsub rscgrp=nix does not exist.",
        "[ERR.] PJM 0059 pjsub rscunit=x is disabled.",
        "[ERR.] PJM 0069 pjsub rscgrp in -L option is not specified.",
        "[ERR.] PJM 0070 pjsub No execute permission: pjsub-bulk.",
        "[ERR.] PJM 0071 pjsub Group not authorized to submit a job: group(59999)",
        "[ERR.] PJM 0079 pjsub Computing resources shortage occurred.[group] (ACC->QUE)",
        "[ERR.] PJM 0045 pjsub path isn't on the global file system.",
    ],
)
def test_a_refusal_is_told_in_pjms_words(said: str) -> None:
    assert submitted(Reply(1, "", f"{said}\n")) == Refused(said)


def test_the_hint_at_the_help_is_left_out() -> None:
    said = "[ERR.] PJM 0001 pjsub Unknown option or no option argument: --x."
    reply = Reply(1, "", f"{said}\nTry `pjsub --help` for more information.\n")
    assert submitted(reply) == Refused(said)


def test_too_many_accepted_jobs_are_a_full_queue() -> None:
    said = "[ERR.] PJM 0072 pjsub Job exceeded the accept limit: ru-accept."
    assert submitted(Reply(1, "", said)) == Refused(said, full=True)


@pytest.mark.parametrize(
    "reply",
    [
        Reply(1, "", "[ERR.] PJM 0090 pjsub PJM daemon is not present.\n"),
        Reply(1, "", "[ERR.] PJM 0091 pjsub Internal error: code=1.\n"),
        Reply(1, "", "[ERR.] PJM 0068 pjsub System configuration has been changed.\n"),
        Reply(1, "", "[ERR.] PJM 0072 pjsub x\n[ERR.] PJM 0091 pjsub Internal error: y.\n"),
        Reply(1, "", "[ERR.] PJM 0057 pjsub x\n[ERR.] PJM 0099 pjsub y\n"),
        Reply(1, "", "[ERR.] PJM 0007 pjsub Staging option error (3).\n"),
        Reply(0, "", "[ERR.] PJM 0057 pjsub node=32 is greater than the upper limit (24).\n"),
        Reply(1, "[INFO] PJM 0000 pjsub Job 7 submitted.\n", "[ERR.] PJM 0057 pjsub x\n"),
        Reply(1, "[INFO] PJM 0000 pjsub Job 7 submitted.\n"),
        Reply(0, "[INFO] PJM 0000 pjsub Job 7_0 submitted.\n"),
        Reply(
            0, "[INFO] PJM 0000 pjsub Job 7 submitted.\n[INFO] PJM 0000 pjsub Job 8 submitted.\n"
        ),
        Reply(None, "", "[ERR.] PJM 0057 pjsub x\n"),
        Reply(0, "7\n"),
        Reply(127, "", "pjsub: command not found"),
        Reply(0),
        Reply(1),
    ],
)
def test_any_other_answer_leaves_open_whether_the_job_exists(reply: Reply) -> None:
    assert submitted(reply) == Unclear(reply.said)


@given(
    st.integers(0, 3) | st.none(), st.text("[ERINFO.] PJM0579pjsub Job7submitted\n", max_size=80)
)
def test_garbage_is_never_a_refusal_and_never_an_id(code: int | None, text: str) -> None:
    assert isinstance(submitted(Reply(code, text, text)), Unclear | Refused)
    if "[ERR" not in text:
        assert submitted(Reply(code, text, text)) == Unclear(Reply(code, text, text).said)


# --- asking


def test_queue_and_history_are_asked_in_one_round() -> None:
    answer, commands = converse(
        PJM.observe(["1", "2", "3"], {}),
        table(listed("1", "RUN")),
        table(listed("2", "EXT", codes="3 0 0")),
    )
    assert commands == [f"pjstat {ASK} jid=1+2+3", f"pjstat -H day=30 {ASK} jid=2+3"]
    assert isinstance(answer, dict)
    assert answer["1"] == Observation(id="1", state=JobState.RUNNING, word="RUN")
    ended = answer["2"]
    assert isinstance(ended, Observation)
    assert (ended.cause, ended.exit_code) == (Reason.PROGRAM_FAILED, 3)
    assert "3" not in answer


def test_when_the_queue_lists_all_the_history_is_not_asked() -> None:
    answer, commands = converse(PJM.observe(["1"], {}), table(listed("1", "QUE")))
    assert isinstance(answer, dict)
    assert (list(answer), len(commands)) == (["1"], 1)


def test_the_real_listings_of_fugaku_answer_a_question() -> None:
    answer, commands = converse(
        PJM.observe(["6291500", "49047939"], {"history_days": 3}),
        Reply(0, printed("fugaku_queue")),
        Reply(0, printed("fugaku_history")),
    )
    assert commands[1].startswith("pjstat -H day=3 ")
    assert isinstance(answer, dict)
    late = answer["49047939"]
    assert isinstance(late, Observation)
    assert late.cause is Reason.WALLTIME
    assert set(answer) == {"6291500", "49047939"}


def test_jobs_that_were_not_asked_for_are_not_in_the_answer() -> None:
    assert converse(PJM.observe(["1"], {}), table(listed("11", "RUN")), NONE)[0] == {}


@pytest.mark.parametrize(
    "reply",
    [
        DOWN,
        Reply(1, "", "[ERR.] PJM 0291 pjstat Internal error: code=99 detail=110.\n"),
        Reply(1, "", "[ERR.] PJM 0211 pjstat Invalid jobid: r1.\n"),
        Reply(1, HEADER, ""),
        Reply(0, HEADER, "[ERR.] PJM 0290 pjstat PJM daemon is not present.\n"),
        Reply(0, "[ERR.] PJM 0290 pjstat PJM daemon is not present.\n"),
        Reply(None, HEADER),
    ],
)
def test_a_question_that_failed_is_no_answer(reply: Reply) -> None:
    assert converse(PJM.observe(["1"], {}), reply)[0] == NoAnswer(reply.said)
    assert converse(PJM.find(TAG, {}), reply)[0] == NoAnswer(reply.said)
    assert converse(PJM.find(TAG, {}), NONE, reply)[0] == NoAnswer(reply.said)
    answer, _ = converse(PJM.observe(["1", "2"], {}), table(listed("1", "RUN")), reply)
    assert isinstance(answer, dict)
    assert isinstance(answer["1"], Observation)
    assert answer["2"] == NoAnswer(reply.said)


def test_an_answer_that_is_no_table_is_no_answer() -> None:
    assert converse(PJM.observe(["1"], {}), Reply(0, "hello\n"))[0] == NoAnswer(
        "an answer of pjstat cannot be used: it is no table with the columns JOB_ID and ST:"
        " 'hello\\n'"
    )


@given(st.integers(0, 2) | st.none(), st.text("JOB_ID ST\n7 EXTCL0-x[R.", max_size=60))
def test_garbage_is_never_a_success(code: int | None, text: str) -> None:
    dialogue = PJM.observe(["7"], {})
    next(dialogue)
    answer: Any = None
    try:
        for _ in range(3):
            dialogue.send(Reply(code, text))
    except StopIteration as stop:
        answer = stop.value
    assert answer is not None
    for each in {} if isinstance(answer, NoAnswer) else answer.values():
        assert isinstance(each, NoAnswer) or each.cause is not Reason.SUCCEEDED


# --- finding by name


def test_a_job_is_found_by_its_whole_name_though_the_column_cuts_it() -> None:
    answer, commands = converse(PJM.find(TAG, {}), table(listed("7", "QUE")))
    assert commands == [f"pjstat {ASK} jnam={TAG}"]
    assert answer == {"7": Observation(id="7", state=JobState.QUEUED, word="QUE")}


def test_a_job_that_has_ended_meanwhile_is_found_in_the_history() -> None:
    answer, commands = converse(PJM.find(TAG, {}), NONE, table(listed("7", "EXT")))
    assert commands[1] == f"pjstat -H day=30 {ASK} jnam={TAG}"
    assert isinstance(answer, dict)
    assert list(answer) == ["7"]


def test_two_jobs_of_one_name_are_both_found() -> None:
    answer, _ = converse(PJM.find(TAG, {}), table(listed("7", "QUE"), listed("8", "RUN")))
    assert isinstance(answer, dict)
    assert list(answer) == ["7", "8"]


def test_no_job_of_that_name_is_an_answer_of_queue_and_history() -> None:
    assert converse(PJM.find(TAG, {}), NONE, NONE)[0] == {}


def test_a_command_that_does_not_know_the_filter_answers_nothing() -> None:
    for other in ("other", ""):
        answer, _ = converse(PJM.find(TAG, {}), table(listed("7", "RUN", other)))
        assert answer == NoAnswer(
            f"pjstat --filter jnam={TAG} also lists jobs of other names, or names that cannot be"
            " read; this site's command does not seem to know that filter"
        )


# --- cancelling


def test_jobs_are_cancelled_in_one_command_that_is_only_taken_in() -> None:
    reply = Reply(
        0, "[INFO] PJM 0100 pjdel Accepted job 1.\n[INFO] PJM 0100 pjdel Accepted job 2.\n"
    )
    assert converse(PJM.cancel({"1": TAG, "2": "hother"}, {}), reply) == (None, ["pjdel 1 2"])


@pytest.mark.parametrize(
    "reply",
    [
        Reply(1, "", "[ERR.] PJM 0112 pjdel Job 1 does not exist.\n"),
        Reply(
            1, "", "[ERR.] PJM 0113 pjdel Job 1 is not in the state that pjdel can be accepted.\n"
        ),
        Reply(0, "[INFO] PJM 0119 pjdel Already accepted job 1.\n"),
        Reply(
            1,
            "[INFO] PJM 0100 pjdel Accepted job 2.\n",
            "[ERR.] PJM 0112 pjdel Job 1 does not exist.\n",
        ),
    ],
)
def test_a_job_that_is_over_need_not_be_cancelled(reply: Reply) -> None:
    assert converse(PJM.cancel({"1": TAG}, {}), reply)[0] is None


@pytest.mark.parametrize(
    "reply",
    [
        Reply(1, "", "[ERR.] PJM 0190 pjdel PJM daemon is not present.\n"),
        Reply(1, "", "[ERR.] PJM 0112 pjdel x\n[ERR.] PJM 0171 pjdel No permission: 2.\n"),
        Reply(0, "", "[ERR.] PJM 0191 pjdel Internal error: x.\n"),
        Reply(None, "", "[ERR.] PJM 0112 pjdel Job 1 does not exist.\n"),
        Reply(1),
    ],
)
def test_a_cancellation_that_pjm_did_not_take_in_is_told(reply: Reply) -> None:
    assert converse(PJM.cancel({"1": TAG}, {}), reply)[0] == NoAnswer(reply.said)


# --- the job's own output


def test_the_statistics_in_the_job_folder_are_read_with_the_output(tmp_path: Path) -> None:
    folder = JobFolder(LocalTransport(), str(tmp_path))
    assert PJM.read_output(folder.scheduler_words()) is None
    many = "".join(f" ITEM {number:<20}: -\n" for number in range(500))  # more than a tail
    text = STATISTICS.format(ec=0, pc=20, reason="-") + many
    (tmp_path / SCHEDULER_STATISTICS).write_text(text)
    assert PJM.read_output(folder.scheduler_words()) == Told(
        Reason.NODE_FAILURE, "PJM code 20, a node went down"
    )
