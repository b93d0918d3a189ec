"""CommandBlock (what), ExecutionProfileBlock (how) and HPCProfileBlock (where)."""

from __future__ import annotations

from typing import ClassVar, Literal

from prefect.blocks.core import Block
from prefect.types import SecretDict
from pydantic import ConfigDict, Field, HttpUrl, field_validator, model_validator
from pydantic_core import PydanticCustomError

from hpc_prefect.blocks.checks import (
    Environment,
    Launcher,
    LauncherInAllocation,
    Memory,
    StoredModel,
    Walltime,
    WalltimeLimit,
    environment_problems,
    is_loading,
)
from hpc_prefect.blocks.links import LOGO, documentation
from hpc_prefect.blocks.options import (
    Executables,
    GPUOverrides,
    LocalOptions,
    PBSOptions,
    PJMOptions,
    SlurmOptions,
)
from hpc_prefect.blocks.qrmi import QRMIResources, key_problems

SchedulerName = Literal["local", "pbs", "pjm", "slurm"]
SCHEDULER_NAMES: tuple[SchedulerName, ...] = ("local", "pbs", "pjm", "slurm")


class CommandBlock(StoredModel, Block):
    """WHAT to run: the identity of a command, the same at every place.

    Example:
        Run a job with it, in an async flow; or look at it:
        ```python
        from hpc_prefect import CommandBlock, run_job_from_blocks

        result = await run_job_from_blocks(
            command_block_name="BLOCK_NAME",
            execution_profile_block_name="exec-diag",
            hpc_profile_block_name="hpc-local",
            work_dir="./work",
            script_filename="diag",
        )
        command = CommandBlock.load("BLOCK_NAME")
        ```
    """

    # Not Prefect's "allow", which would accept a misspelt attribute silently.
    model_config = ConfigDict(extra="ignore")
    _block_type_name: ClassVar[str | None] = "HPC-Prefect Command"
    _block_type_slug: ClassVar[str | None] = "hpc-prefect-command"
    _documentation_url: ClassVar[HttpUrl | None] = documentation("jobs.html")
    _logo_url: ClassVar[HttpUrl | None] = LOGO

    command_name: str = Field(min_length=1)
    """The command's name, which its execution profiles name."""
    executable_key: str = Field(min_length=1)
    """Which of the HPC profile's `executables` runs it."""
    description: str = ""
    """What the command does, for people."""
    default_args: list[str] = Field(
        default_factory=list, title="Default arguments", examples=[["--level", "3"]]
    )
    """Arguments given at every call, before those of the call."""


class ExecutionProfileBlock(StoredModel, Block):
    """HOW to run it: the shape of the job and the program's own settings, at any place.

    Example:
        Run a job with it, in an async flow; or look at it:
        ```python
        from hpc_prefect import ExecutionProfileBlock, run_job_from_blocks

        result = await run_job_from_blocks(
            command_block_name="cmd-diag",
            execution_profile_block_name="BLOCK_NAME",
            hpc_profile_block_name="hpc-local",
            work_dir="./work",
            script_filename="diag",
        )
        execution = ExecutionProfileBlock.load("BLOCK_NAME")
        ```
    """

    # Not Prefect's "allow", which would accept a misspelt attribute silently.
    model_config = ConfigDict(extra="ignore")
    _block_type_name: ClassVar[str | None] = "HPC-Prefect Execution Profile"
    _block_type_slug: ClassVar[str | None] = "hpc-prefect-execution-profile"
    _documentation_url: ClassVar[HttpUrl | None] = documentation("jobs.html")
    _logo_url: ClassVar[HttpUrl | None] = LOGO

    profile_name: str = Field(min_length=1)
    """This profile's name, for people and messages."""
    command_name: str = ""
    """The `command_name` of the command that this profile is for; empty: for held nodes
    (`allocation`) and workers (`HPCTaskRunner`) only."""
    resource_class: Literal["cpu", "gpu"] = "cpu"
    """CPU or GPU: chooses queue, project and overrides of the HPC profile."""
    num_nodes: int = Field(default=1, ge=1, title="Nodes")
    """Number of nodes."""
    ranks_per_node: int = Field(default=1, ge=1)
    """MPI ranks on each node."""
    threads_per_rank: int = Field(default=1, ge=1)
    """Threads of each rank; also `OMP_NUM_THREADS`, unless an environment sets it."""
    memory_per_node: Memory = ""
    """Memory on each node, with a unit (`4G`, `512M`; powers of 1024); empty: not asked for."""
    gpus_per_node: int = Field(default=0, ge=0)
    """GPUs on each node."""
    walltime: Walltime = "00:05:00"
    """The longest the job may run, `HH:MM:SS` or `D-HH:MM:SS`."""
    launch: Literal["single", "mpi"] = "single"
    """`single`: one process, started directly. `mpi`: by the HPC profile's launcher line."""
    environment: Environment = Field(default_factory=dict, examples=[{"LEVEL": "3"}])
    """The program's own settings as environment variables."""


class HPCProfileBlock(StoredModel, Block):
    """WHERE to run it: everything that differs between one place and another.

    Example:
        Run a job with it, in an async flow; or look at it:
        ```python
        from hpc_prefect import HPCProfileBlock, run_job_from_blocks

        result = await run_job_from_blocks(
            command_block_name="cmd-diag",
            execution_profile_block_name="exec-diag",
            hpc_profile_block_name="BLOCK_NAME",
            work_dir="./work",
            script_filename="diag",
        )
        hpc = HPCProfileBlock.load("BLOCK_NAME")
        ```
    """

    # Not Prefect's "allow", which would accept a misspelt attribute silently.
    model_config = ConfigDict(extra="ignore")
    _block_type_name: ClassVar[str | None] = "HPC-Prefect HPC Profile"
    _block_type_slug: ClassVar[str | None] = "hpc-prefect-hpc-profile"
    _documentation_url: ClassVar[HttpUrl | None] = documentation("jobs.html")
    _logo_url: ClassVar[HttpUrl | None] = LOGO

    scheduler: SchedulerName
    """The batch scheduler there; `local` is this machine."""
    queue_cpu: str = Field(default="", title="Queue of CPU jobs")
    """Queue (partition, resource group) for `resource_class="cpu"`; empty: the scheduler's own."""
    queue_gpu: str = Field(default="", title="Queue of GPU jobs")
    """Queue for `resource_class="gpu"`; empty: the scheduler's own."""
    project_cpu: str = Field(default="", title="Project of CPU jobs")
    """Project (account, group) charged for `resource_class="cpu"`."""
    project_gpu: str = Field(default="", title="Project of GPU jobs")
    """Project charged for `resource_class="gpu"`."""
    executables: Executables = Field(default_factory=dict, examples=[{"diag": "/work/me/bin/diag"}])
    """By executable key: a path, or an entry with `path`, `modules`, `setup`, `path_prefixes`,
    `environment`. A path is absolute, or a bare name found on PATH after set-up."""
    launcher: Launcher = ""
    """Line that starts an MPI program, such as `mpiexec -n {ranks} {command}`. Placeholders:
    `{ranks}` `{nodes}` `{ranks_per_node}` `{threads}` `{gpus_per_node}` `{command}`; without
    `{command}` the program follows the line."""
    launcher_in_allocation: LauncherInAllocation = ""
    """Launcher line for programs in a held allocation, which get a share of its nodes; more
    placeholders: `{hosts}` (comma-separated), `{hostfile}` and `{memory}`. Empty: `srun` on Slurm;
    elsewhere `launcher`, with which a program of several ranks takes the whole allocation, unless
    that is one node."""
    modules: list[str] = Field(default_factory=list, examples=[["gcc/12", "openmpi"]])
    """Modules loaded for every program."""
    setup: list[str] = Field(
        default_factory=list, title="Set-up lines", examples=[["ulimit -s unlimited"]]
    )
    """Shell lines run before every program, as written."""
    teardown: list[str] = Field(
        default_factory=list, title="Tear-down lines", examples=[["rm -rf /scratch/me"]]
    )
    """Shell lines run after every program, as written."""
    environment: Environment = Field(default_factory=dict, examples=[{"LEVEL": "3"}])
    """Environment variables for every program there."""
    secret_environment: SecretDict = Field(
        default_factory=lambda: SecretDict({}), examples=[{"MY_TOKEN": "its value"}]
    )
    """Environment variables whose values are never shown, logged or written into a script."""
    qrmi: QRMIResources = Field(
        default_factory=dict, examples=[{"ibm_torino": {"session_mode": "batch"}}]
    )
    """Quantum resources for programs that use QRMI inside the job, by name: `endpoint`,
    `iam_endpoint`, `service_crn`, `session_mode`, `session_max_ttl`, `timeout_seconds`. They become
    environment variables; `environment` wins over them."""
    qrmi_api_keys: SecretDict = Field(
        default_factory=lambda: SecretDict({}), examples=[{"ibm_torino": "its key"}]
    )
    """The API key of each resource in `qrmi`, by its name; kept as `secret_environment` is."""
    login_shell: bool = False
    """Run the script in a login shell (`bash -l`), for sites that define `module` only there."""
    cores_per_node: int = Field(default=0, ge=0)
    """Cores that a node has; 0: not known, so no job is refused because of it."""
    memory_per_node: Memory = ""
    """Memory that a node has, such as `118G`; empty: not known."""
    gpus_per_node: int = Field(default=0, ge=0)
    """GPUs that a node has; 0: not known."""
    max_walltime: WalltimeLimit = Field(default="", title="Longest walltime")
    """The longest walltime that a job may ask for, such as `48:00:00`; empty: not known."""
    gpu: GPUOverrides = Field(default_factory=GPUOverrides)
    """The differences for `resource_class="gpu"`."""
    poll_interval: float = Field(default=10.0, ge=0.1)
    """Seconds between two questions to the scheduler, each for all jobs of your flows on this host.
    A job's end is usually seen earlier, by its exit record; on `local` always."""
    on_sigterm: Literal["leave", "cancel"] = "leave"
    """When the flow's process gets SIGTERM: `leave` its jobs running, to be attached by the next
    run, or `cancel` them."""
    max_jobs_in_queue: int = Field(default=0, ge=0, title="Most jobs in a queue")
    """How many jobs of your flows on this host may wait or run in one queue at once; further ones
    are submitted as others end. It counts on each login node by itself. 0: no limit."""
    queue_full_wait: WalltimeLimit = Field(
        default="1-00:00:00", title="Wait while the queue is full"
    )
    """How long to repeat a submission while the scheduler says that too many jobs wait; empty: for
    ever."""
    rebuilt_program: Literal["warn", "rerun"] = "warn"
    """If the program of a finished job was rebuilt at the same path: `warn` uses the result and
    says so in the log; `rerun` runs the job again."""
    local: LocalOptions = Field(default_factory=LocalOptions)
    """Options for `scheduler="local"`."""
    slurm: SlurmOptions = Field(default_factory=SlurmOptions)
    """Options for `scheduler="slurm"`."""
    pbs: PBSOptions = Field(default_factory=PBSOptions)
    """Options for `scheduler="pbs"`."""
    pjm: PJMOptions = Field(default_factory=PJMOptions)
    """Options for `scheduler="pjm"`."""

    @field_validator("secret_environment")
    @classmethod
    def _check_secrets(cls, secrets: SecretDict) -> SecretDict:
        problems = environment_problems(secrets.get_secret_value())
        if problems and not is_loading():
            raise PydanticCustomError("value", "; ".join(problems))
        return secrets

    @model_validator(mode="after")
    def _check_keys(self) -> HPCProfileBlock:
        problems = key_problems(self.qrmi, self.qrmi_api_keys.get_secret_value())
        if problems and not is_loading():
            raise PydanticCustomError("value", "qrmi_api_keys: " + "; ".join(problems))
        return self

    @model_validator(mode="after")
    def _refuse_foreign_options(self) -> HPCProfileBlock:
        if not is_loading() and (problems := self.foreign_options()):
            raise PydanticCustomError("value", "; ".join(problems))
        return self

    def foreign_options(self) -> list[str]:
        """A sentence for each option that is set for another scheduler than the chosen one."""
        others = [name for name in SCHEDULER_NAMES if name != self.scheduler]
        problems = []
        for name in others:
            options = getattr(self, name)
            plain = type(options)()
            problems += [
                f"{name}.{field} is set, but the scheduler is {self.scheduler!r}: "
                f"remove it, or choose scheduler {name!r}"
                for field in type(options).model_fields
                if getattr(options, field) != getattr(plain, field)
            ]
        return problems
