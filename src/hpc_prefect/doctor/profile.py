"""Checks an HPC profile by itself, and makes the jobs to try it with. Pure."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, replace
from typing import Literal

from hpc_prefect.blocks import Call, CommandBlock, ExecutionProfileBlock, HPCProfileBlock, resolve
from hpc_prefect.blocks.options import read_executable
from hpc_prefect.errors import InvalidJob
from hpc_prefect.job.spec import Executable, JobSpec
from hpc_prefect.schedulers.finding import Finding, ok, unknown, wrong

PROFILE = "profile"
EXECUTABLE = "executable"
LAUNCHER = "launcher"

#: What stands in for the program: the scripts need it anyway.
BASH = "/bin/bash"


@dataclass(frozen=True, kw_only=True)
class Side:
    """One side of a profile, CPU or GPU, ready to be tried.

    Attributes:
        spec: a job of one rank there that runs `BASH`, with no executable's own set-up.
        secrets: the values of its secret environment.
        executables: by key, those that can be read.
    """

    spec: JobSpec
    secrets: dict[str, str]
    executables: dict[str, Executable]


def read_side(
    hpc: HPCProfileBlock,
    resource_class: Literal["cpu", "gpu"],
    *,
    work_dir: str,
    walltime: str,
    machine_cores: int,
) -> tuple[Side | None, list[Finding]]:
    """The side, and its problems; None if no job can be made of it."""
    executables, found = _executables(hpc, resource_class)
    launcher = (resource_class == "gpu" and hpc.gpu.launcher) or hpc.launcher
    gpus = hpc.gpu.gpus_per_node or hpc.gpus_per_node
    gpu_side = resource_class == "gpu"
    bare = hpc.gpu.model_copy(update={"executables": {}})
    plain = hpc.model_copy(update={"executables": {"doctor": BASH}, "gpu": bare})
    execution = ExecutionProfileBlock(
        profile_name="doctor",
        command_name="doctor",
        resource_class=resource_class,
        gpus_per_node=1 if gpu_side and gpus else 0,
        walltime=walltime,
        # Only such a job has the launcher's line; the shape of one rank is the same.
        launch="mpi" if launcher.strip() else "single",
    )
    command = CommandBlock(command_name="doctor", executable_key="doctor")
    call = Call(script_filename="doctor", work_dir=work_dir)
    try:
        spec, secrets = resolve(command, execution, plain, call, machine_cores=machine_cores)
    except InvalidJob as invalid:
        remedy = "correct it in the HPC profile, then: hpc-prefect blocks apply FILE"
        return None, [*(wrong(PROFILE, text, remedy) for text in invalid.problems), *found]
    side = Side(spec=spec, secrets=secrets, executables=executables)
    return side, [ok(PROFILE, "a job can be made from it"), *found]


def _executables(
    hpc: HPCProfileBlock, resource_class: str
) -> tuple[dict[str, Executable], list[Finding]]:
    given = dict(hpc.executables)
    if resource_class == "gpu":
        given |= hpc.gpu.executables
    readable, found = {}, []
    for key, value in given.items():
        executable, problems = read_executable(value)
        remedy = "give an absolute path, or a bare name that is on PATH after set-up"
        if executable is not None and not problems:
            path = executable.path
            if not path.startswith("/") and "/" in path:
                problems = [f"{path!r} is neither absolute nor a bare name"]
        found += [wrong(f"{EXECUTABLE} {key}", text, remedy) for text in problems]
        if executable is not None and not problems:
            readable[key] = executable
    if not given:
        remedy = "add one line a program to the HPC profile's executables"
        found.append(unknown(EXECUTABLE, "the profile has none, so no command can run", remedy))
    return readable, found


def launcher_word(line: str) -> str:
    """The program that a launcher line starts; empty if only a shell could find it out."""
    try:
        words = shlex.split(line)
    except ValueError:
        return ""
    while words and words[0].partition("=")[0].isidentifier() and "=" in words[0]:
        words = words[1:]
    return "" if not words or any(char in words[0] for char in "$`{(<>|&;") else words[0]


def by_set_up(side: Side) -> list[tuple[JobSpec, dict[str, str]]]:
    """A job for each set-up that differs, and the paths by key that can be looked for in it."""
    groups: list[tuple[Executable, dict[str, str]]] = []
    for key, executable in side.executables.items():
        around = replace(executable, path=BASH)
        for known, paths in groups:
            if known == around:
                paths[key] = executable.path
                break
        else:
            groups.append((around, {key: executable.path}))
    if not groups:
        groups = [(Executable(path=BASH), {})]
    return [(replace(side.spec, executable=around), paths) for around, paths in groups]
