"""PBS's dialect: what it asks for, and what it refuses before anything is submitted."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpc_prefect.job.spec import Executable
from hpc_prefect.schedulers import scheduler_for
from hpc_prefect.schedulers.pbs.scheduler import PBSScheduler

from .pbs_rig import (
    ONCE,
    PBS,
    TICKET,
    directives,
    spec,
)

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


def test_a_profile_says_whether_a_job_may_be_started_again() -> None:
    """Retries are ours."""
    assert directives({"requeue": "yes"})[-1] == "#PBS -r y"
    for options in ({}, {"requeue": "no"}):
        assert f"{ONCE}" in PBS.preamble(spec(options), TICKET).directives


def test_a_job_with_secrets_is_not_started_again() -> None:
    """It has read and removed them."""
    assert "#PBS -r y" not in directives({"requeue": "yes"}, secret_names=("TOKEN",))
    assert PBS.problems(spec({"requeue": "yes"}, secret_names=("TOKEN",))) == [
        "pbs.requeue is 'yes', but the job has secrets: a job reads its secrets"
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
            "pbs.extra_select 'system' is 'a:ncpus=1': give a value without any of :+,",
        ),
        (
            {"extra_l": {"x": "1,mem=2gb"}},
            {},
            "pbs.extra_l 'x' is '1,mem=2gb': give a value without any of ,",
        ),
        (
            {"extra_l": {"x": ""}},
            {},
            "pbs.extra_l 'x' is '': give a value without any of ,",
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
        ("-N other", "hpc-prefect sets the name, to find the job by it"),
        ("-Nother", "hpc-prefect sets the name, to find the job by it"),
        ("-o /x", "hpc-prefect puts all output into the job folder"),
        ("-e /x", "hpc-prefect puts all output into the job folder"),
        ("-j oe", "hpc-prefect puts all output into the job folder"),
        ("-R oe", "hpc-prefect puts all output into the job folder"),
        ("-J 0-3", "one call is one job; for many: run_jobs_from_blocks"),
        ("-I", "nobody types in an interactive job of a flow"),
        ("-X", "nobody types in an interactive job of a flow"),
        ("-z", "qsub would then not print the job's id"),
        ("-fz", "qsub would then not print the job's id"),
        ("-m n -z", "qsub would then not print the job's id"),
        ("-C '#X'", "the other #PBS lines would no longer be read"),
        ("-S /bin/csh", "the script itself says that it is one for bash"),
        ("-V", "PBS damages the values of variables; set environment in the HPC profile"),
        ("-l mem=1gb", "set the execution profile, or pbs.extra_l, pbs.extra_select or pbs.place"),
        ("-q debug", "set queue_cpu or queue_gpu"),
        ("-r y", "set pbs.requeue"),
        ("-A x", "set project_cpu or project_gpu"),
        ("-W block=true", "qsub would wait for the job's end"),
        ("-W umask=22,block=true", "qsub would wait for the job's end"),
        ("-W interactive=true", "nobody types in an interactive job of a flow"),
        ("-W stageout=a@b:c", "declare inputs and expected_outputs"),
        ("-W Output_Path=/x", "hpc-prefect puts all output into the job folder"),
        ("-W Job_Name=x", "hpc-prefect sets the name, to find the job by it"),
        ("-W job_name=x", "hpc-prefect sets the name, to find the job by it"),
        ("-W BLOCK=TRUE", "qsub would wait for the job's end"),
        ("-Wumask=22,Block=true", "qsub would wait for the job's end"),
        ("-W ARRAY_indices_submitted=1-3", "one call is one job; for many: run_jobs_from_blocks"),
        ("-W max_run_subjobs=3", "one call is one job; for many: run_jobs_from_blocks"),
        ("-W join_path=oe", "hpc-prefect puts all output into the job folder"),
        ("-W output_path=/x", "hpc-prefect puts all output into the job folder"),
        ("-W sandbox=PRIVATE", "hpc-prefect puts all output into the job folder"),
        ("-W QUEUE=x", "set queue_cpu or queue_gpu"),
        ("-W Shell_Path_List=/bin/sh", "the script itself says that it is one for bash"),
        (
            "-W variable_list=A=1",
            "PBS damages the values of variables; set environment in the HPC profile",
        ),
        ("-v EVIL", "the flow's own value would be taken, whatever it holds; write NAME=value"),
        ("-v A=1,EVIL", "the flow's own value would be taken, whatever it holds; write NAME=value"),
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
        ("-m", "pbs.directives is '-m': qsub cannot read this (option -m requires argument)"),
        ("-t 0-3", "pbs.directives is '-t 0-3': qsub cannot read this (option -t not recognized)"),
        ("-m 'n", 'pbs.directives is "-m \'n": qsub cannot read this (No closing quotation)'),
        (
            "-m n x",
            "pbs.directives is '-m n x': give options only; hpc-prefect writes the script",
        ),
        (
            "-m n -- x",
            "pbs.directives is '-m n -- x': give options only; hpc-prefect writes the script",
        ),
        ("--", "pbs.directives is '--': give options only; hpc-prefect writes the script"),
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


CRLF = "a\r\nb"


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"arguments": (CRLF,)}, "an argument"),
        ({"environment": {"A": CRLF}}, "environment A"),
        ({"expected_outputs": (CRLF,)}, "an expected output"),
        (
            {"executable": Executable(path="/bin/true", setup=("module load x\r",))},
            "a line of setup",
        ),
        ({"executable": Executable(path="/bin/true", environment={"B": CRLF})}, "environment B"),
    ],
)
def test_the_end_of_a_windows_line_is_refused_by_the_name_of_its_value(
    changes: dict[str, Any], what: str
) -> None:
    (problem,) = PBS.problems(dataclasses.replace(spec(), **changes))
    assert problem.startswith(f"{what} is ")
    assert "qsub takes no script that holds CR-LF" in problem


@given(st.text(st.characters(exclude_characters="\r")), st.text())
def test_a_value_without_it_is_taken(value: str, other: str) -> None:
    given_ = dataclasses.replace(
        spec(), arguments=(value, other.replace("\n", "\r")), environment={"A": value}
    )
    assert PBS.problems(given_) == []
