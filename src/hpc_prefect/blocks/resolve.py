"""From three blocks and a call to one `JobSpec`, or to all their problems."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from hpc_prefect.blocks.call import Call, name_problems, read_arguments, read_files
from hpc_prefect.blocks.checks import (
    environment_problems,
    field_errors,
    memory_problems,
    sentence,
    suggestion,
    walltime_limit_problems,
    walltime_problems,
)
from hpc_prefect.blocks.options import read_executable
from hpc_prefect.blocks.profiles import CommandBlock, ExecutionProfileBlock, HPCProfileBlock
from hpc_prefect.blocks.qrmi import key_problems, qrmi_environment, qrmi_secrets, resource_problems
from hpc_prefect.errors import InvalidJob
from hpc_prefect.job.spec import (
    Executable,
    JobSpec,
    Resources,
    Site,
    launcher_problems,
    parse_memory,
    parse_walltime,
    share_launcher_problems,
    write_memory,
    write_walltime,
)

#: Fields that an override may not change, because they identify the profile.
_IDENTITY = ("profile_name", "command_name")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """The CPU or the GPU side of an HPC profile, with the overrides merged in."""

    queue: str
    project: str
    launcher: str
    launcher_in_allocation: str
    modules: list[str]
    setup: list[str]
    teardown: list[str]
    cores_per_node: int
    memory_per_node: str
    gpus_per_node: int
    max_walltime: str
    executables: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)


def resolve(
    command: CommandBlock,
    execution: ExecutionProfileBlock,
    hpc: HPCProfileBlock,
    call: Call,
    *,
    machine_cores: int,
) -> tuple[JobSpec, dict[str, str]]:
    """Make the job's spec, and the values of its secret environment variables.

    Pure: reads no file and asks no server. `machine_cores` is the value for `local.slots = 0`.

    Raises:
        InvalidJob: with every problem of blocks and call at once.
    """
    problems = _pair_problems(command, execution)
    execution = _overridden(execution, call.overrides, problems)
    place = _side(hpc, execution.resource_class)
    executable = _executable(command.executable_key, place.executables, call.program, problems)
    resources = _resources(execution, problems)
    problems += _launch_problems(resources, place.launcher)
    in_allocation = share_launcher_problems(place.launcher_in_allocation)
    problems += [f"HPC profile, {text}" for text in in_allocation]
    problems += _node_problems(resources, place)
    options = getattr(hpc, hpc.scheduler).model_dump(mode="json")
    if hpc.scheduler == "local":
        options["slots"] = options["slots"] or machine_cores
    secrets = _secrets(hpc, problems)
    wrong_wait = walltime_limit_problems(hpc.queue_full_wait)
    problems += _in("HPC profile, queue_full_wait", wrong_wait)
    problems += _in("HPC profile, environment", environment_problems(place.environment))
    problems += _in("execution profile, environment", environment_problems(execution.environment))
    problems += name_problems(call.script_filename)
    arguments = read_arguments(command.default_args, call.user_args, problems)
    inputs = read_files("inputs", call.inputs, problems)
    outputs = read_files("expected_outputs", call.expected_outputs, problems)
    spec = JobSpec(
        name=call.script_filename,
        command_name=command.command_name,
        executable=executable or Executable(path=""),
        site=_site(hpc, place, resources.launch, options),
        resources=resources,
        work_dir=call.work_dir,
        arguments=arguments,
        environment=dict(execution.environment),
        secret_names=tuple(sorted(secrets)),
        inputs=inputs,
        expected_outputs=outputs,
    )
    problems += _scheduler_problems(hpc, spec)
    if problems:
        raise InvalidJob(call.subject, problems)
    return spec, secrets


def _secrets(hpc: HPCProfileBlock, problems: list[str]) -> dict[str, str]:
    """The secret variables of the job; `secret_environment` wins."""
    secrets = hpc.secret_environment.get_secret_value()
    keys = hpc.qrmi_api_keys.get_secret_value()
    problems += _in("HPC profile, secret_environment", environment_problems(secrets))
    problems += _in("HPC profile, qrmi", resource_problems(hpc.qrmi))
    problems += _in("HPC profile, qrmi_api_keys", key_problems(hpc.qrmi, keys))
    return qrmi_secrets(keys) | secrets


def _pair_problems(command: CommandBlock, execution: ExecutionProfileBlock) -> list[str]:
    if execution.command_name == command.command_name:
        return []
    if not execution.command_name:
        return [
            f"execution profile {execution.profile_name!r} names no command, so it is for"
            f" allocations and workers only; to run this command with it, set its command_name to"
            f" {command.command_name!r}"
        ]
    return [
        f"execution profile {execution.profile_name!r} is for command "
        f"{execution.command_name!r}, but the command block is {command.command_name!r}"
    ]


def _in(where: str, texts: list[str]) -> list[str]:
    return [f"{where}: {text}" for text in texts]


def _overridden(
    execution: ExecutionProfileBlock, overrides: Mapping[str, Any] | None, problems: list[str]
) -> ExecutionProfileBlock:
    """The profile with the call's overrides; adds a problem for each that is not possible."""
    if not overrides:
        return execution
    where = "execution_profile_overrides"
    if not isinstance(overrides, Mapping):
        problems.append(f"{where}: must be a mapping of fields, not {type(overrides).__name__}")
        return execution
    known = [name for name in type(execution).model_fields if name not in _IDENTITY]
    accepted = {}
    for name, value in overrides.items():
        if name in known:
            accepted[name] = value
        elif name in _IDENTITY:
            problems.append(f"{where}.{name}: cannot be overridden; choose another profile")
        else:
            near = suggestion(str(name), known)
            problems.append(f"{where}.{name}: there is no such field{near}")
    if isinstance(accepted.get("environment"), Mapping):
        accepted["environment"] = execution.environment | dict(accepted["environment"])
    # Only the overridden values are checked here; the profile's own are checked later.
    neutral: dict[str, Any] = {"profile_name": "-", "command_name": "-"}
    try:
        checked = ExecutionProfileBlock(**neutral | accepted)
    except ValidationError as error:
        problems += [f"{where}.{sentence(*each)}" for each in _override_errors(error)]
        return execution
    return execution.model_copy(update={name: getattr(checked, name) for name in accepted})


def _override_errors(error: ValidationError) -> list[tuple[str, str]]:
    # The field's name follows the dot, so it is not left out as elsewhere.
    return [("", f"{name}: {text}") for name, text in field_errors(error)]


def _side(hpc: HPCProfileBlock, resource_class: str) -> _Place:
    side = _Place(
        queue=hpc.queue_cpu,
        project=hpc.project_cpu,
        launcher=hpc.launcher,
        launcher_in_allocation=hpc.launcher_in_allocation,
        modules=hpc.modules,
        setup=hpc.setup,
        teardown=hpc.teardown,
        executables=hpc.executables,
        environment=qrmi_environment(hpc.qrmi, by_plugin=bool(hpc.slurm.qpu)) | hpc.environment,
        cores_per_node=hpc.cores_per_node,
        memory_per_node=hpc.memory_per_node,
        gpus_per_node=hpc.gpus_per_node,
        max_walltime=hpc.max_walltime,
    )
    if resource_class == "cpu":
        return side
    gpu = hpc.gpu
    return _Place(
        queue=hpc.queue_gpu,
        project=hpc.project_gpu,
        launcher=gpu.launcher or side.launcher,
        # It belongs to the launcher: with the CPU side's launcher the CPU side's line is used.
        launcher_in_allocation=gpu.launcher_in_allocation
        or ("" if gpu.launcher else side.launcher_in_allocation),
        modules=gpu.modules or side.modules,
        setup=gpu.setup or side.setup,
        teardown=gpu.teardown or side.teardown,
        executables=side.executables | gpu.executables,
        environment=side.environment | gpu.environment,
        cores_per_node=gpu.cores_per_node or side.cores_per_node,
        memory_per_node=gpu.memory_per_node or side.memory_per_node,
        gpus_per_node=gpu.gpus_per_node or side.gpus_per_node,
        max_walltime=gpu.max_walltime or side.max_walltime,
    )


def _site(hpc: HPCProfileBlock, place: _Place, launch: str, options: dict[str, Any]) -> Site:
    return Site(
        scheduler=hpc.scheduler,
        queue=place.queue,
        project=place.project,
        # Left out for a single-process job: another launcher must not make it another job.
        launcher=place.launcher if launch == "mpi" else "",
        launcher_in_allocation=place.launcher_in_allocation,
        login_shell=hpc.login_shell,
        modules=tuple(place.modules),
        setup=tuple(place.setup),
        teardown=tuple(place.teardown),
        environment=dict(place.environment),
        cores_per_node=place.cores_per_node,
        memory_per_node=_bytes(place.memory_per_node),
        gpus_per_node=place.gpus_per_node,
        max_walltime=_seconds(place.max_walltime),
        options=options,
    )


def _bytes(memory: str) -> int:
    return 0 if memory_problems(memory) else parse_memory(memory)


def _seconds(walltime: str) -> int:
    return 0 if walltime_problems(walltime) else parse_walltime(walltime)


def _scheduler_problems(hpc: HPCProfileBlock, spec: JobSpec) -> list[str]:
    # Imported here, so that a Prefect server that only registers block types loads no schedulers.
    from hpc_prefect.schedulers import scheduler_for

    problems = [f"HPC profile: {text}" for text in hpc.foreign_options()]
    return problems + scheduler_for(hpc.scheduler).problems(spec)


def _executable(
    key: str, known: Mapping[str, Any], program: str, problems: list[str]
) -> Executable | None:
    if key not in known and program:
        known = {key: program}
    if key not in known:
        keys = ", ".join(repr(name) for name in sorted(known)) or "none"
        problems.append(
            f"executable {key!r} is not in the HPC profile; its executables: {keys}."
            " Add its path to `executables` in the profile's file, and apply that again"
        )
        return None
    executable, found = read_executable(known[key])
    problems += [f"HPC profile, executables, {key!r}: {text}" for text in found]
    return executable


def _resources(execution: ExecutionProfileBlock, problems: list[str]) -> Resources:
    """The shape in plain units; a value that cannot be read becomes a problem."""
    wrong_time = walltime_problems(execution.walltime)
    wrong_memory = memory_problems(execution.memory_per_node)
    problems += [f"execution profile, {text}" for text in wrong_time]
    problems += [f"execution profile, {sentence('memory_per_node', t)}" for t in wrong_memory]
    if execution.gpus_per_node and execution.resource_class != "gpu":
        problems.append(
            f"gpus_per_node is {execution.gpus_per_node}, but resource_class is "
            f"{execution.resource_class!r}: choose resource_class='gpu'"
        )
    return Resources(
        resource_class=execution.resource_class,
        num_nodes=execution.num_nodes,
        ranks_per_node=execution.ranks_per_node,
        threads_per_rank=execution.threads_per_rank,
        memory_per_node=_bytes(execution.memory_per_node),
        gpus_per_node=execution.gpus_per_node,
        walltime=_seconds(execution.walltime),
        launch=execution.launch,
    )


def _launch_problems(resources: Resources, launcher: str) -> list[str]:
    problems = [f"HPC profile, {text}" for text in launcher_problems(launcher)]
    if resources.launch == "mpi" and not launcher.strip():
        problems.append(
            "launch is 'mpi', but the HPC profile has no launcher; "
            "set one, such as 'mpiexec -n {ranks} {command}'"
        )
    if resources.launch == "single" and resources.ranks > 1:
        problems.append(
            f"launch is 'single', but {resources.num_nodes} nodes × {resources.ranks_per_node} "
            f"ranks_per_node = {resources.ranks} ranks: choose launch='mpi', or one rank"
        )
    return problems


def _node_problems(resources: Resources, place: _Place) -> list[str]:
    problems = []
    wrong_memory = memory_problems(place.memory_per_node)
    problems += [f"HPC profile, {sentence('memory_per_node', text)}" for text in wrong_memory]
    has_memory = _bytes(place.memory_per_node)
    wrong_time = walltime_limit_problems(place.max_walltime)
    problems += [f"HPC profile, {sentence('max_walltime', text)}" for text in wrong_time]
    longest = _seconds(place.max_walltime)
    if 0 < longest < resources.walltime:
        problems.append(
            f"walltime is {write_walltime(resources.walltime)}, but the longest that this HPC "
            f"profile allows (max_walltime) is {write_walltime(longest)}"
        )
    cores = resources.cores_per_node
    if 0 < place.cores_per_node < cores:
        problems.append(
            f"{resources.ranks_per_node} ranks_per_node × {resources.threads_per_rank} "
            f"threads_per_rank = {cores} cores, but a node has {place.cores_per_node}"
        )
    if 0 < has_memory < resources.memory_per_node:
        problems.append(
            f"memory_per_node is {write_memory(resources.memory_per_node)}, "
            f"but a node has {write_memory(has_memory)}"
        )
    if 0 < place.gpus_per_node < resources.gpus_per_node:
        problems.append(
            f"gpus_per_node is {resources.gpus_per_node}, but a node has {place.gpus_per_node}"
        )
    return problems
