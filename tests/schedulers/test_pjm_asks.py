"""PJM's dialect: what it asks for, and what it refuses before anything is submitted."""

from __future__ import annotations

import shlex
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpc_prefect.schedulers import scheduler_for
from hpc_prefect.schedulers.pjm.scheduler import PJMScheduler

from .pjm_rig import (
    ONCE,
    PJM,
    PLAIN,
    SECRETS,
    TICKET,
    directives,
    spec,
)

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


def test_a_profile_says_whether_a_job_may_be_started_again() -> None:
    """Retries are ours."""
    assert directives({"requeue": "yes"})[-1] == "--restart"
    for options in ({}, {"requeue": "no"}):
        assert f"#PJM {ONCE}" in PJM.preamble(spec(options), TICKET).directives


def test_a_job_with_secrets_is_not_started_again() -> None:
    """It has read and removed them."""
    assert "--restart" not in directives({"requeue": "yes"}, secret_names=("TOKEN",))
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
            "pjm.node_shape is set, but pjm.allocation is 'vnode': set it to 'node', which alone"
            " has a shape, or remove the shape",
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
            "cores_per_node 48 cannot be asked for, because pjm.allocation is 'none': if each job"
            " of this site gets as much unasked, set cores_per_node of the HPC profile",
        ),
        (
            {"allocation": "none", "nodes": 1, "memory": 2**30},
            {"cores_per_node": 48},
            "memory_per_node 1G cannot be asked for, because pjm.allocation is 'none': if each"
            " job of this site gets as much unasked, set memory_per_node of the HPC profile",
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
        (
            {"resources": {"a b": "1"}},
            {},
            "pjm.resources 'a b': this is not the name of an item of pjsub's -L",
        ),
        (
            {"resources": {"freq": "2200,node=1"}},
            {},
            "pjm.resources 'freq' is '2200,node=1': give a value without a comma",
        ),
        (
            {"resources": {"freq": ""}},
            {},
            "pjm.resources 'freq' is '': give a value without a comma",
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
            "pjm.command_options '--no-check-directory x': give each option of pjsub as one word in"
            " its long form, such as --no-check-directory",
        ),
        (
            {"command_options": ["other.sh"]},
            {},
            "pjm.command_options 'other.sh': give each option of pjsub as one word in its long"
            " form, such as --no-check-directory",
        ),
        (
            {"command_options": ["--comment"]},
            {},
            "pjm.command_options '--comment': this option needs a value, and pjsub would take the"
            " script for it; write option and value in pjm.directives",
        ),
        (
            {"command_options": ["--name=x"]},
            {},
            "pjm.command_options '--name=x' cannot be given: hpc-prefect sets the name, to find the"
            " job by it",
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
        ("-N other", "hpc-prefect sets the name, to find the job by it"),
        ("--name other", "hpc-prefect sets the name, to find the job by it"),
        ("-o /x", "hpc-prefect puts all output into the job folder"),
        ("--err=/x", "hpc-prefect puts all output into the job folder"),
        ("-j", "hpc-prefect puts all output into the job folder"),
        ("-S", "hpc-prefect puts the statistics into the job folder"),
        ("--spath /x", "hpc-prefect puts the statistics into the job folder"),
        ('--bulk --sparam "0-9"', "one call is one job; for many: run_jobs_from_blocks"),
        ("--step", "one call is one job; for many: run_jobs_from_blocks"),
        ("--mswk", "one call is one job; for many: run_jobs_from_blocks"),
        ("--interact", "nobody types in an interactive job of a flow"),
        ("-z", "pjsub would then not print the job's id as hpc-prefect reads it"),
        ("--verbose", "pjsub would then not print the job's id as hpc-prefect reads it"),
        ("--help", "then no job would be submitted"),
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
            "work_dir is '/w/%j': in the path of an output PJM replaces %j and similar by values of"
            " the job; choose another work_dir",
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
    ours = lines[: len(lines) - free]
    assert ours[-1] == f"#PJM {ONCE}"
    for line in ours[:-1]:
        assert len(shlex.split(line.removeprefix("#PJM "))) == 2  # an option and its value
