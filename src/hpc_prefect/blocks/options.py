"""The parts of an HPC profile: executables, the GPU side, and each scheduler's own options.

Every part is always there and every field has a plain default: an Optional or a union is drawn as
tabs in Prefect's form.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, ConfigDict, Field, ValidationError
from pydantic_core import PydanticCustomError

from hpc_prefect.blocks.checks import (
    Environment,
    Launcher,
    LauncherInAllocation,
    Memory,
    Path,
    StrictModel,
    WalltimeLimit,
    field_errors,
    is_loading,
    sentence,
    variable_problems,
)
from hpc_prefect.job.spec import Executable


class ExecutableEntry(StrictModel):
    """A program at one place, when its path alone is not enough."""

    model_config = ConfigDict(title="Executable")

    path: Path
    """Absolute path, or a bare name that is looked up on PATH after set-up."""
    modules: list[str] = Field(default_factory=list)
    """Modules loaded for this program, after those of the profile."""
    setup: list[str] = Field(default_factory=list)
    """Shell lines run before this program, after those of the profile."""
    path_prefixes: dict[str, list[str]] = Field(default_factory=dict)
    """Folders put before a variable's value, such as `{"LD_LIBRARY_PATH": ["/opt/x/lib"]}`."""
    environment: Environment = Field(default_factory=dict)
    """Environment variables for this program; they win over those of the profile."""


def read_executable(value: object) -> tuple[Executable | None, list[str]]:
    """A value of `executables` as an `Executable`, or what is wrong with it."""
    if isinstance(value, str):
        value = {"path": value}
    if isinstance(value, ExecutableEntry):
        value = value.model_dump()
    if not isinstance(value, Mapping):
        kind = type(value).__name__
        return None, [f"must be a path, or an entry with path, modules, setup …, not {kind}"]
    try:
        entry = ExecutableEntry(**{str(key): item for key, item in value.items()})
    except ValidationError as error:
        return None, [sentence(*each) for each in field_errors(error)]
    problems = [text for name in entry.path_prefixes for text in variable_problems(name)]
    if problems:
        return None, [f"path_prefixes: {text}" for text in problems]
    prefixes = {name: tuple(folders) for name, folders in entry.path_prefixes.items()}
    executable = Executable(
        path=entry.path,
        modules=tuple(entry.modules),
        setup=tuple(entry.setup),
        path_prefixes=prefixes,
        environment=dict(entry.environment),
    )
    return executable, []


def _plain_executables(value: dict[str, Any]) -> dict[str, Any]:
    """JSON values only, each checked; kept as they were written."""
    if is_loading():
        return value
    plain, problems = {}, []
    for key, item in value.items():
        problems += [f"{key!r}: {text}" for text in read_executable(item)[1]]
        is_entry = isinstance(item, ExecutableEntry)
        plain[key] = item.model_dump(exclude_defaults=True) if is_entry else item
    if problems:
        raise PydanticCustomError("value", "; ".join(problems))
    return plain


Executables = Annotated[dict[str, Any], AfterValidator(_plain_executables)]


class GPUOverrides(StrictModel):
    """What is different for `resource_class="gpu"`; what is left empty is as on the CPU side.

    A list or text that is set replaces that of the profile; `executables` and `environment` are
    laid over the profile's, name by name.
    """

    model_config = ConfigDict(title="GPU side")

    launcher: Launcher = ""
    """Launcher line of the GPU side."""
    launcher_in_allocation: LauncherInAllocation = ""
    """The line used in a held allocation, on the GPU side."""
    modules: list[str] = Field(default_factory=list, examples=[["cuda/12.4"]])
    """Modules of the GPU side, instead of the profile's."""
    setup: list[str] = Field(default_factory=list, title="Set-up lines", examples=[["nvidia-smi"]])
    """Set-up lines of the GPU side, instead of the profile's."""
    teardown: list[str] = Field(
        default_factory=list, title="Tear-down lines", examples=[["rm -rf /scratch/me"]]
    )
    """Tear-down lines of the GPU side, instead of the profile's."""
    executables: Executables = Field(
        default_factory=dict, examples=[{"diag": "/work/me/bin/diag-gpu"}]
    )
    """Executables of the GPU side, over the profile's."""
    environment: Environment = Field(default_factory=dict, examples=[{"LEVEL": "3"}])
    """Environment of the GPU side, over the profile's."""
    cores_per_node: int = Field(default=0, ge=0)
    """Cores that a GPU node has; 0: as on the CPU side."""
    memory_per_node: Memory = ""
    """Memory that a GPU node has, such as `120G`; empty: as on the CPU side."""
    gpus_per_node: int = Field(default=0, ge=0)
    """GPUs that a GPU node has; 0: as on the CPU side."""
    max_walltime: WalltimeLimit = Field(default="", title="Longest walltime")
    """The longest walltime on the GPU side; empty: as on the CPU side."""


class LocalOptions(StrictModel):
    """This machine as a small batch system."""

    model_config = ConfigDict(title="Options for local")

    slots: int = Field(default=0, ge=0)
    """Cores that all local jobs share; a job waits until its cores are free. 0: the machine's."""
    spool: str = ""
    """Folder of the queue; empty: one per user. Profiles with the same folder share the slots."""
    kill_grace: float = Field(default=5.0, ge=0)
    """Seconds between SIGTERM and SIGKILL when a job is cancelled or over its limit."""
    max_array_size: int = Field(default=10000, ge=0)
    """How many elements one array may have; 0: small jobs are submitted one by one."""


class SlurmOptions(StrictModel):
    """Used when the scheduler is Slurm: what only its commands have, and what a site has."""

    model_config = ConfigDict(title="Options for Slurm")

    cluster: str = ""
    """The cluster where several share one accounting (`--clusters`); empty: that of this machine.
    Its partitions, accounts and nodes are meant by all the rest."""
    qos: str = ""
    """Quality of service (`--qos`)."""
    reservation: str = ""
    """Reservation (`--reservation`)."""
    constraint: str = ""
    """Node features (`--constraint`)."""
    exclusive: bool = False
    """Whole nodes (`--exclusive`)."""
    gpu_option: Literal["gpus-per-node", "gres"] = "gpus-per-node"
    """How GPUs are asked for: `--gpus-per-node=N` or `--gres=gpu:N`."""
    gpu_type: str = ""
    """Type of the GPUs where a site has several, such as `a100`."""
    qpu: list[str] = Field(default_factory=list, examples=[["ibm_torino"]])
    """Quantum resources that the job may use (`--qpu`, where the site has that plug-in). Which QPU
    computes is part of what a job is: other names make it another job."""
    site_qpus: list[str] = Field(default_factory=list, examples=[["ibm_torino", "ibm_brussels"]])
    """The quantum resources that the site has. `qpu` must be among them, because the plug-in says
    nothing about a name that it does not know, and the job would run without a QPU."""
    requeue: Literal["no", "yes"] = "no"
    """Whether Slurm may start the job again by itself, after a node failure or a preemption. A
    success is then told only when Slurm says so itself. Not with secrets: a job reads them once."""
    accounting: bool = True
    """Ask `sacct` about jobs that the queue no longer lists; false where a site has no accounting,
    to spare one command a question."""
    max_array_size: int = Field(default=1001, ge=0)
    """How many elements one array may have: the site's `MaxArraySize` (`scontrol show config`), or
    less, such as what a QOS lets a user submit. 0: small jobs are submitted one by one."""
    directives: list[str] = Field(default_factory=list, examples=[["--licenses=fluent"]])
    """Further options of `sbatch`, one each."""


ChunkItem = Literal["ncpus", "mpiprocs", "ompthreads", "mem", "ngpus"]


class PBSOptions(StrictModel):
    """Options for PBS Professional, OpenPBS and Torque, whose sites differ in these."""

    model_config = ConfigDict(title="Options for PBS")

    account_flag: Literal["-A", "-P", "-W group_list"] = "-A"
    """How the project is named to `qsub`."""
    resource_style: Literal["select", "flat", "nodes_ppn"] = "select"
    """How nodes are asked for: `select=N:…`, `ncpus=N` in all, or `nodes=N:ppn=P`."""
    chunk: list[ChunkItem] = Field(
        default_factory=lambda: list(get_args(ChunkItem)), examples=[list(get_args(ChunkItem))]
    )
    """What each chunk of `select` names, of what the job asks for. A site that hands out whole
    nodes wants some left out; the profile then says what a node has."""
    extra_select: dict[str, str] = Field(default_factory=dict, examples=[{"system": "name"}])
    """Further items of each `select` chunk."""
    extra_l: dict[str, str] = Field(
        default_factory=dict, title="Extra -l resources", examples=[{"filesystems": "home:scratch"}]
    )
    """Further `-l` resources."""
    place: str = ""
    """Placement (`-l place=`), such as `scatter`: each chunk on a node of its own. Empty: as the
    site has it, which may put several chunks on one node."""
    requeue: Literal["no", "yes"] = "no"
    """Whether PBS may start the job again by itself, after a node failure. A success is then told
    only when PBS says so itself. Not with secrets: a job reads them once."""
    status_dialect: Literal["json", "text", "table"] = "json"
    """What `qstat` answers: JSON (and text where that cannot be read), the full text records, or
    only a site's own table."""
    history_flag: Literal["-x", "-H", "none"] = "-x"
    """The option of `qstat` that also shows finished jobs."""
    one_connection: bool = True
    """Ask about many jobs over one connection (`-E`); false where `qstat` does not know that."""
    status_options: list[str] = Field(default_factory=list, examples=[["-ll"]])
    """Further options of `qstat`, such as `-ll` for a table that does not cut names."""
    max_array_size: int = Field(default=10_000, ge=0)
    """How many jobs one array may have, of those that are submitted together; 0: each is a job of
    its own. The default is PBS's own; none are made where `status_dialect` is `table`."""
    directives: list[str] = Field(default_factory=list, examples=[["-k doe"]])
    """Further options of `qsub`, one each."""


class PJMOptions(StrictModel):
    """Options for PJM (Fujitsu Technical Computing Suite), whose sites differ in these."""

    model_config = ConfigDict(title="Options for PJM")

    rscunit: str = Field(default="", title="Resource unit")
    """Resource unit (`-L rscunit=`)."""
    allocation: Literal["node", "vnode", "none"] = "node"
    """What is asked for: whole nodes (`-L node=N`), virtual nodes with cores and memory
    (`-L vnode=N,vnode-core=C`), or neither, where a site gives what belongs to its GPUs."""
    node_shape: str = ""
    """How the nodes lie, after their number (`:torus`), or with it (`2x3:torus`)."""
    gpu_item: str = ""
    """The `-L` item that counts GPUs, such as `gpu`; empty: a site has none, or gives all that a
    node has."""
    resources: dict[str, str] = Field(default_factory=dict, examples=[{"freq": "2200"}])
    """Further `-L` items."""
    mpi: list[str] = Field(default_factory=list, examples=[["rank-map-bychip"]])
    """Further items of `--mpi`, such as `rank-map-bychip`, for programs that are launched by MPI;
    the number of ranks is always given."""
    gfscache: list[str] = Field(default_factory=list, examples=[["/vol0004"]])
    """Volumes of layered storage that the job needs (`PJM_LLIO_GFSCACHE`), such as `/vol0004`:
    that of `work_dir`, and those of the program and its data."""
    llio: list[str] = Field(default_factory=list, examples=[["localtmp-size=30Gi"]])
    """Items of `--llio`."""
    requeue: Literal["no", "yes"] = "no"
    """Whether PJM may start the job again by itself, after a failure of the machine (`--restart`).
    A success is then told only when PJM says so itself. Not with secrets: a job reads them once."""
    history_days: int = Field(default=30, ge=1, le=365)
    """How many days back `pjstat -H` is asked about jobs that the queue no longer lists."""
    max_array_size: int = Field(default=1000, ge=0, le=1_000_000)
    """How many jobs one bulk job may have, of those that are submitted together; 0: each is a job
    of its own, as where a site does not let its users submit bulk jobs."""
    command_options: list[str] = Field(default_factory=list, examples=[["--no-check-directory"]])
    """Options that must stand on the command line of `pjsub`, such as `--no-check-directory`."""
    directives: list[str] = Field(default_factory=list, examples=[["--mail-list me@example.org"]])
    """Further options in the script, one each."""
