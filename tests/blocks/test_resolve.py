"""Three blocks and a call become one spec, or every reason why not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prefect.types import SecretDict

from hpc_prefect.blocks import (
    Call,
    CommandBlock,
    ExecutionProfileBlock,
    GPUOverrides,
    HPCProfileBlock,
    LocalOptions,
    resolve,
)
from hpc_prefect.blocks.profiles import SCHEDULER_NAMES
from hpc_prefect.errors import InvalidJob
from hpc_prefect.job.spec import Executable, JobSpec, Resources
from hpc_prefect.schedulers import scheduler_for

CALL = Call(script_filename="diag", work_dir="/work/me")
#: What to do about an executable that the profile does not have.
ADD = "Add its path to `executables` in the profile's file, and apply that again"


def command(**fields: Any) -> CommandBlock:
    return CommandBlock(**{"command_name": "diag", "executable_key": "diag"} | fields)


def execution(**fields: Any) -> ExecutionProfileBlock:
    return ExecutionProfileBlock(**{"profile_name": "exec-diag", "command_name": "diag"} | fields)


def hpc(**fields: Any) -> HPCProfileBlock:
    given = {"scheduler": "local", "executables": {"diag": "/opt/diag"}, "launcher": "mpiexec"}
    return HPCProfileBlock(**given | fields)


def loaded(block: Any, **fields: Any) -> Any:
    """The block as it comes from the server with such values, which nobody has judged yet."""
    return type(block).model_validate(block.model_dump() | fields)


def resolved(
    what: CommandBlock | None = None,
    how: ExecutionProfileBlock | None = None,
    where: HPCProfileBlock | None = None,
    call: Call = CALL,
) -> JobSpec:
    return resolve(what or command(), how or execution(), where or hpc(), call, machine_cores=8)[0]


def problems(*args: Any, **kwargs: Any) -> list[str]:
    with pytest.raises(InvalidJob) as caught:
        resolved(*args, **kwargs)
    assert caught.value.subject.startswith("job ")
    return list(caught.value.problems)


def test_a_spec_holds_what_the_blocks_and_the_call_say() -> None:
    how = execution(
        num_nodes=2, ranks_per_node=2, threads_per_rank=2, memory_per_node="1G", launch="mpi",
        walltime="01:00:00", environment={"DIAG_LEVEL": "3"},
    )  # fmt: skip
    where = hpc(
        launcher="mpiexec -n {ranks}", launcher_in_allocation="mpiexec -hosts {hosts}",
        queue_cpu="q", modules=["m"],
        setup=["ulimit -s unlimited"], teardown=["sync"], environment={"SITE": "1"},
        login_shell=True, local={"slots": 8}, cores_per_node=4, memory_per_node="2G",
        max_walltime="48:00:00",
    )  # fmt: skip
    call = replace(CALL, user_args=["-x"], inputs=["a.npz"], expected_outputs=[Path("b.npz")])

    spec = resolved(command(default_args=["--fast"]), how, where, call)

    assert spec.as_dict() == {
        "name": "diag",
        "command_name": "diag",
        "executable": {
            "path": "/opt/diag", "modules": (), "setup": (), "path_prefixes": {}, "environment": {},
        },
        "site": {
            "scheduler": "local", "queue": "q", "project": "", "launcher": "mpiexec -n {ranks}",
            "launcher_in_allocation": "mpiexec -hosts {hosts}",
            "login_shell": True, "modules": ("m",), "setup": ("ulimit -s unlimited",),
            "teardown": ("sync",), "environment": {"SITE": "1"},
            "cores_per_node": 4, "memory_per_node": 2**31, "gpus_per_node": 0,
            "max_walltime": 48 * 3600,
            "options": {"slots": 8, "spool": "", "kill_grace": 5.0, "max_array_size": 10000},
        },
        "resources": {
            "resource_class": "cpu", "num_nodes": 2, "ranks_per_node": 2, "threads_per_rank": 2,
            "memory_per_node": 2**30, "gpus_per_node": 0, "walltime": 3600, "launch": "mpi",
        },
        "work_dir": "/work/me",
        "arguments": ("--fast", "-x"),
        "environment": {"DIAG_LEVEL": "3"},
        "secret_names": (),
        "inputs": ("a.npz",),
        "expected_outputs": ("b.npz",),
        "array": None,
        "has_members": False,
    }  # fmt: skip


def test_secrets_are_handed_over_beside_the_spec_and_only_their_names_are_in_it() -> None:
    where = hpc(secret_environment={"TOKEN": "hunter2", "A": "b"})

    spec, secrets = resolve(command(), execution(), where, CALL, machine_cores=8)

    assert secrets == {"TOKEN": "hunter2", "A": "b"}
    assert spec.secret_names == ("A", "TOKEN")
    assert "hunter2" not in str(spec.as_dict())


def test_an_executable_entry_keeps_its_modules_setup_prefixes_and_environment() -> None:
    entry = {
        "path": "diag",
        "modules": ["hdf5"],
        "setup": ["ulimit -c 0"],
        "path_prefixes": {"LD_LIBRARY_PATH": ["/opt/lib"]},
        "environment": {"A": "1"},
    }

    spec = resolved(where=hpc(executables={"diag": entry}))

    assert spec.executable == Executable(
        path="diag",
        modules=("hdf5",),
        setup=("ulimit -c 0",),
        path_prefixes={"LD_LIBRARY_PATH": ("/opt/lib",)},
        environment={"A": "1"},
    )


def test_the_gpu_class_takes_the_gpu_queue_and_the_overrides() -> None:
    gpu = GPUOverrides(
        launcher="mpirun", modules=["cuda"], executables={"diag": "/opt/gpu/diag"},
        environment={"B": "gpu"}, cores_per_node=72, memory_per_node="100G", gpus_per_node=1,
    )  # fmt: skip
    where = hpc(
        queue_cpu="qc", queue_gpu="qg", gpu=gpu,
        modules=["intel"], setup=["umask 027"], environment={"A": "cpu", "B": "cpu"},
        cores_per_node=1,
    )  # fmt: skip
    how = execution(resource_class="gpu", gpus_per_node=1, threads_per_rank=2, launch="mpi")

    spec = resolved(how=how, where=where)

    assert spec.site.queue == "qg"
    assert (spec.site.launcher, spec.site.modules) == ("mpirun", ("cuda",))
    assert spec.site.setup == ("umask 027",)
    assert spec.site.environment == {"A": "cpu", "B": "gpu"}
    assert spec.executable.path == "/opt/gpu/diag"


def test_the_launcher_of_a_single_process_job_is_not_part_of_its_spec() -> None:
    assert resolved(where=hpc(launcher="mpiexec -n {ranks}")).site.launcher == ""


def test_overrides_change_the_profile_for_one_call_and_lay_the_environment_over() -> None:
    how = execution(environment={"A": "1", "B": "1"}, memory_per_node="1G")
    call = replace(
        CALL, overrides={"walltime": "00:10:00", "threads_per_rank": 4, "environment": {"B": "2"}}
    )

    spec = resolved(how=how, call=call)

    assert spec.resources == Resources(threads_per_rank=4, memory_per_node=2**30, walltime=600)
    assert spec.environment == {"A": "1", "B": "2"}
    assert how.walltime == "00:05:00"


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ("it's $HOME\n", "it's $HOME\n"),
        (7, "7"),
        (0.1, "0.1"),
        (1e-12, "1e-12"),
        (np.float64(0.5), "0.5"),
        (np.int32(3), "3"),
        (Path("a/b"), "a/b"),
    ],
)
def test_an_argument_may_be_text_a_number_or_a_path(given: object, text: str) -> None:
    assert resolved(call=replace(CALL, user_args=[given])).arguments == (text,)


def test_a_whole_node_and_a_whole_machine_may_be_asked_for() -> None:
    how = execution(
        ranks_per_node=2, threads_per_rank=4, memory_per_node="2G", launch="mpi",
        resource_class="gpu", gpus_per_node=4,
    )  # fmt: skip

    resolved(how=how, where=hpc(cores_per_node=8, memory_per_node="2G", gpus_per_node=4))


def test_no_slots_given_stand_for_the_cores_of_the_machine() -> None:
    assert resolved().site.options["slots"] == 8


def test_more_slots_than_the_machine_has_cores_are_the_owners_decision() -> None:
    resolved(how=execution(threads_per_rank=16), where=hpc(local=LocalOptions(slots=16)))


BAD_BLOCKS: dict[str, tuple[Callable[[], dict[str, Any]], str]] = {
    "pair": (
        lambda: {"how": execution(command_name="prep")},
        "execution profile 'exec-diag' is for command 'prep', but the command block is 'diag'",
    ),
    "no command": (
        lambda: {"how": execution(command_name="")},
        "execution profile 'exec-diag' names no command, so it is for allocations and workers "
        "only; to run this command with it, set its command_name to 'diag'",
    ),
    "key": (
        lambda: {
            "what": command(executable_key="dig"),
            "where": hpc(executables={"b": "b", "a": "a"}),
        },
        "executable 'dig' is not in the HPC profile; its executables: 'a', 'b'. " + ADD,
    ),
    "no keys": (
        lambda: {"where": hpc(executables={})},
        "executable 'diag' is not in the HPC profile; its executables: none. " + ADD,
    ),
    "relative path": (
        lambda: {"where": loaded(hpc(), executables={"diag": "bin/diag"})},
        "HPC profile, executables, 'diag': path: 'bin/diag' is relative: "
        "write an absolute path, or a bare name found on PATH",
    ),
    "no path": (
        lambda: {"where": loaded(hpc(), executables={"diag": " "})},
        "HPC profile, executables, 'diag': path: the path is empty",
    ),
    "entry typo": (
        lambda: {"where": loaded(hpc(), executables={"diag": {"path": "/d", "modulse": ["m"]}})},
        "HPC profile, executables, 'diag': modulse: there is no such field; "
        "did you mean 'modules'?",
    ),
    "entry kind": (
        lambda: {"where": loaded(hpc(), executables={"diag": 3})},
        "HPC profile, executables, 'diag': must be a path, or an entry with path, modules, "
        "setup …, not int",
    ),
    "entry prefix": (
        lambda: {
            "where": loaded(
                hpc(), executables={"diag": {"path": "/d", "path_prefixes": {"A-B": []}}}
            )
        },
        "HPC profile, executables, 'diag': path_prefixes: 'A-B' is no name for a variable: "
        "use letters, digits and _, no digit first",
    ),
    "walltime": (
        lambda: {"how": loaded(execution(), walltime="5 minutes")},
        "execution profile, walltime '5 minutes': write HH:MM:SS (or D-HH:MM:SS), such as 01:30:00",
    ),
    "memory": (
        lambda: {"how": loaded(execution(), memory_per_node="4000")},
        "execution profile, memory_per_node: memory '4000': "
        "write a number with K, M, G or T, such as 4G",
    ),
    "node memory": (
        lambda: {"where": loaded(hpc(), memory_per_node="much")},
        "HPC profile, memory_per_node: memory 'much': write a number with K, M, G or T, such as 4G",
    ),
    "gpu on cpu": (
        lambda: {"how": execution(gpus_per_node=1)},
        "gpus_per_node is 1, but resource_class is 'cpu': choose resource_class='gpu'",
    ),
    "cores": (
        lambda: {
            "how": execution(ranks_per_node=2, threads_per_rank=3, launch="mpi"),
            "where": hpc(cores_per_node=4),
        },
        "2 ranks_per_node × 3 threads_per_rank = 6 cores, but a node has 4",
    ),
    "too much memory": (
        lambda: {"how": execution(memory_per_node="2G"), "where": hpc(memory_per_node="1536M")},
        "memory_per_node is 2G, but a node has 1.5G",
    ),
    "gpus": (
        lambda: {
            "how": execution(resource_class="gpu", gpus_per_node=8),
            "where": hpc(gpus_per_node=4),
        },
        "gpus_per_node is 8, but a node has 4",
    ),
    "gpu side": (
        lambda: {
            "how": execution(resource_class="gpu", gpus_per_node=2),
            "where": hpc(gpus_per_node=4, gpu={"gpus_per_node": 1}),
        },
        "gpus_per_node is 2, but a node has 1",
    ),
    "machine": (
        lambda: {"how": execution(num_nodes=3, threads_per_rank=4, launch="mpi")},
        "3 nodes × 4 cores = 12 cores, but this machine has 8 slots; "
        "ask for less, or set local.slots in the HPC profile",
    ),
    "slots": (
        lambda: {"how": execution(threads_per_rank=3), "where": hpc(local={"slots": 2})},
        "1 nodes × 3 cores = 3 cores, but this machine has 2 slots; "
        "ask for less, or set local.slots in the HPC profile",
    ),
    "no launcher": (
        lambda: {"how": execution(launch="mpi"), "where": hpc(launcher="")},
        "launch is 'mpi', but the HPC profile has no launcher; "
        "set one, such as 'mpiexec -n {ranks} {command}'",
    ),
    "single": (
        lambda: {"how": execution(num_nodes=2, ranks_per_node=2)},
        "launch is 'single', but 2 nodes × 2 ranks_per_node = 4 ranks: "
        "choose launch='mpi', or one rank",
    ),
    "launcher": (
        lambda: {"where": loaded(hpc(), launcher="mpiexec -n {procs}")},
        "HPC profile, launcher: unknown placeholder {procs}; there are {ranks}, {nodes}, "
        "{ranks_per_node}, {threads}, {gpus_per_node}, {command}",
    ),
    "foreign option": (
        lambda: {"where": loaded(hpc(), slurm={"qos": "high"})},
        "HPC profile: slurm.qos is set, but the scheduler is 'local': "
        "remove it, or choose scheduler 'slurm'",
    ),
    "variable name": (
        lambda: {"how": loaded(execution(), environment={"2ND": "x"})},
        "execution profile, environment: '2ND' is no name for a variable: "
        "use letters, digits and _, no digit first",
    ),
    "shell variable": (
        lambda: {"where": loaded(hpc(), environment={"UID": "0"})},
        "HPC profile, environment: 'UID' belongs to the shell and cannot be set; "
        "choose another name",
    ),
    "variable that changes the shell": (
        lambda: {"how": loaded(execution(), environment={"POSIXLY_CORRECT": "1"})},
        "execution profile, environment: 'POSIXLY_CORRECT' belongs to the shell and cannot be set; "
        "choose another name",
    ),
    "launcher that hides the end": (
        lambda: {"where": loaded(hpc(), launcher="{command}; echo done")},
        "HPC profile, launcher: ; hides the program's exit code; put it into setup or teardown, "
        "or into a script that is the launcher",
    ),
    "script variable": (
        lambda: {"where": loaded(hpc(), environment={"_hp_dir": "/"})},
        "HPC profile, environment: '_hp_dir' belongs to the job script and cannot be set; "
        "choose another name",
    ),
    "NUL in environment": (
        lambda: {"how": loaded(execution(), environment={"A": "x\0y"})},
        "execution profile, environment: the value of 'A' has a NUL byte, "
        "which no program can be given",
    ),
    "secret that is no text": (
        lambda: {"where": loaded(hpc(), secret_environment=SecretDict({"PIN": 1234}))},
        "HPC profile, secret_environment: 'PIN' must be text, not int: put it in quotes",
    ),
    "NUL in default argument": (
        lambda: {"what": command(default_args=["a\0"])},
        "command block, default_args[0] has a NUL byte, which no program can be given",
    ),
}


@pytest.mark.parametrize("case", BAD_BLOCKS)
def test_what_is_wrong_with_the_blocks_is_said(case: str) -> None:
    blocks, message = BAD_BLOCKS[case]
    assert problems(**blocks()) == [message]


BAD_CALLS: list[tuple[dict[str, Any], str]] = [
    ({"user_args": "-v"}, "user_args: must be a list, not str"),
    ({"user_args": ["a", None]}, "user_args[1]: must be text, a number or a path, not NoneType"),
    ({"user_args": [True]}, "user_args[0]: must be text, a number or a path, not bool"),
    ({"user_args": [b"x"]}, "user_args[0]: must be text, a number or a path, not bytes"),
    ({"user_args": ["a\0b"]}, "user_args[0] has a NUL byte, which no program can be given"),
    (
        {"user_args": ["\ud800"]},
        "user_args[0] has a lone surrogate (half of a character), which cannot be written",
    ),
    ({"inputs": "a.npz"}, "inputs: must be a list, not str"),
    ({"inputs": ["a", ""]}, "inputs[1]: is empty; write the name of a file"),
    ({"inputs": [3]}, "inputs[0]: must be a path, not int"),
    ({"expected_outputs": [" "]}, "expected_outputs[0]: is empty; write the name of a file"),
    (
        {"expected_outputs": ["a\0"]},
        "expected_outputs[0] has a NUL byte, which no program can be given",
    ),
    ({"script_filename": ""}, "script_filename '': is empty; give the job a name"),
    ({"script_filename": "a/b"}, "script_filename 'a/b': must be a plain name, no path"),
    ({"script_filename": ".."}, "script_filename '..': must be a plain name, no path"),
    (
        {"script_filename": "a\nb"},
        "script_filename 'a\\nb': has a character that cannot be printed",
    ),
    ({"script_filename": None}, "script_filename None: must be text"),
    (
        {"script_filename": "é" * 101},
        f"script_filename '{'é' * 101}': is longer than 200 bytes",
    ),
    (
        {"overrides": {"wall_time": "01:00:00"}},
        "execution_profile_overrides.wall_time: there is no such field; did you mean 'walltime'?",
    ),
    (
        {"overrides": {"walltime": "1 h"}},
        "execution_profile_overrides.walltime: walltime '1 h': "
        "write HH:MM:SS (or D-HH:MM:SS), such as 01:30:00",
    ),
    (
        {"overrides": {"memory_per_node": "4"}},
        "execution_profile_overrides.memory_per_node: memory '4': "
        "write a number with K, M, G or T, such as 4G",
    ),
    (
        {"overrides": {"num_nodes": 0}},
        "execution_profile_overrides.num_nodes: Input should be greater than or equal to 1",
    ),
    (
        {"overrides": {"environment": {"A B": "1"}}},
        "execution_profile_overrides.environment: 'A B' is no name for a variable: "
        "use letters, digits and _, no digit first",
    ),
    (
        {"overrides": {"command_name": "other"}},
        "execution_profile_overrides.command_name: cannot be overridden; choose another profile",
    ),
    (
        {"overrides": ["walltime"]},
        "execution_profile_overrides: must be a mapping of fields, not list",
    ),
    (
        {"overrides": {"threads_per_rank": 9}},
        "1 nodes × 9 cores = 9 cores, but this machine has 8 slots; "
        "ask for less, or set local.slots in the HPC profile",
    ),
]


@pytest.mark.parametrize(("fields", "message"), BAD_CALLS, ids=[text for _, text in BAD_CALLS])
def test_what_is_wrong_with_the_call_is_said(fields: dict[str, Any], message: str) -> None:
    assert problems(call=replace(CALL, **fields)) == [message]


def test_all_problems_are_told_at_once_in_one_message() -> None:
    with pytest.raises(InvalidJob) as caught:
        resolved(
            command(executable_key="dig"),
            loaded(execution(command_name="prep", launch="mpi"), walltime="x"),
            hpc(launcher=""),
            replace(CALL, user_args=[None]),
        )

    assert str(caught.value) == (
        "job 'diag': 5 problems, nothing was submitted:\n"
        "  - execution profile 'exec-diag' is for command 'prep', but the command block is 'diag'\n"
        "  - executable 'dig' is not in the HPC profile; its executables: 'diag'. "
        f"{ADD}\n"
        "  - execution profile, walltime 'x': write HH:MM:SS (or D-HH:MM:SS), such as 01:30:00\n"
        "  - launch is 'mpi', but the HPC profile has no launcher; "
        "set one, such as 'mpiexec -n {ranks} {command}'\n"
        "  - user_args[0]: must be text, a number or a path, not NoneType"
    )


def test_a_problem_with_a_secret_does_not_tell_its_value() -> None:
    where = loaded(hpc(), secret_environment=SecretDict({"A B": "hunter2", "C": "hunter2\0"}))

    assert "hunter2" not in "".join(problems(where=where))


def test_a_project_is_refused_where_there_are_none() -> None:
    with pytest.raises(InvalidJob, match="project 'pg': the queue of this machine has no projects"):
        resolved(where=hpc(project_gpu="pg", project_cpu="pc"), how=execution(resource_class="gpu"))


def test_a_walltime_beyond_what_the_profile_allows_is_refused_on_its_side() -> None:
    where = hpc(max_walltime="02:00:00", gpu={"max_walltime": "00:30:00"})
    assert resolved(how=execution(walltime="02:00:00"), where=where).resources.walltime == 7200
    assert problems(how=execution(walltime="02:00:01"), where=where) == [
        "walltime is 02:00:01, but the longest that this HPC profile allows (max_walltime) is "
        "02:00:00"
    ]
    on_gpu = execution(walltime="00:31:00", resource_class="gpu")
    assert problems(how=on_gpu, where=where) == [
        "walltime is 00:31:00, but the longest that this HPC profile allows (max_walltime) is "
        "00:30:00"
    ]


@pytest.mark.parametrize("name", SCHEDULER_NAMES)
def test_every_scheduler_that_a_profile_can_name_has_a_dialect(name: str) -> None:
    assert scheduler_for(name).name == name


def test_a_share_of_the_nodes_can_be_named_in_a_held_allocation_alone() -> None:
    where = hpc()
    where.launcher = "mpiexec -hosts {hosts} {command}"
    where.launcher_in_allocation = "mpiexec -hosts {host} {command}"
    found = problems(where=where)
    assert [text.partition(";")[0] for text in found] == [
        "HPC profile, launcher: unknown placeholder {hosts}",
        "HPC profile, launcher_in_allocation: unknown placeholder {host}",
    ]


def test_the_gpu_sides_launcher_is_not_given_the_cpu_sides_line_for_allocations() -> None:
    where = hpc(
        launcher="mpiexec -n {ranks}",
        launcher_in_allocation="mpiexec -hosts {hosts}",
        gpu={"launcher": "mpirun -n {ranks}"},
    )
    spec = resolved(how=execution(resource_class="gpu"), where=where)
    assert spec.site.launcher_in_allocation == ""
