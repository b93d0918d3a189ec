"""The parts of an HPC profile: executables, the GPU side, and each scheduler's own options.

Every part always exists and every field has a plain default: Prefect's form shows an Optional or a
union as tabs.
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
    """A program at one place that needs more than its path."""

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
    """A value of `executables` as an `Executable`, or its problems."""
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
    """Checks that all values are valid and JSON; keeps them as they were written."""
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
    """The differences for `resource_class="gpu"`; empty fields are as on the CPU side.

    A list or text that is set replaces that of the profile; `executables` and `environment` are
    merged into the profile's, name by name.
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
    """Options for Slurm, which differ from site to site."""

    model_config = ConfigDict(title="Options for Slurm")

    cluster: str = ""
    """The cluster, if several share one accounting (`--clusters`); empty: that of this machine. All
    other fields are about its partitions, accounts and nodes."""
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
    """Type of the GPUs, such as `a100`, if a site has several types."""
    qpu: list[str] = Field(default_factory=list, examples=[["ibm_torino"]])
    """Quantum resources that the job may use (`--qpu`, if the site has that plug-in). They are part
    of a job's identity: other names make it another job."""
    site_qpus: list[str] = Field(default_factory=list, examples=[["ibm_torino", "ibm_brussels"]])
    """The quantum resources that the site has. `qpu` must be among them, because the plug-in
    ignores unknown names, and the job would run without a QPU."""
    requeue: Literal["no", "yes"] = "no"
    """Whether Slurm may restart the job itself, after a node failure or a preemption. Then a job
    succeeds only when Slurm says so too. Not with secrets, which a job can read only once."""
    accounting: bool = True
    """Ask `sacct` about jobs that the queue no longer lists; false if a site has no accounting,
    which saves a command at each question."""
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
    """Which of the job's resources each chunk of `select` names. Where whole nodes are allocated
    some must be left out; then say in the profile what a node has."""
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
    """Whether PBS may restart the job itself, after a node failure. Then a job succeeds only when
    PBS says so too. Not with secrets, which a job can read only once."""
    status_dialect: Literal["json", "text", "table"] = "json"
    """The format of `qstat`: JSON (or text if that cannot be read), full text records, or only a
    site's own table."""
    history_flag: Literal["-x", "-H", "none"] = "-x"
    """The option of `qstat` that also shows finished jobs."""
    one_connection: bool = True
    """Ask about many jobs over one connection (`-E`); false where `qstat` does not know that."""
    status_options: list[str] = Field(default_factory=list, examples=[["-ll"]])
    """Further options of `qstat`, such as `-ll` for a table that does not cut names."""
    max_array_size: int = Field(default=10_000, ge=0)
    """How many jobs one array may have; 0: jobs that are submitted together are single jobs. The
    default is PBS's own; no arrays are used if `status_dialect` is `table`."""
    directives: list[str] = Field(default_factory=list, examples=[["-k doe"]])
    """Further options of `qsub`, one each."""


class PJMOptions(StrictModel):
    """Options for PJM (Fujitsu Technical Computing Suite), whose sites differ in these."""

    model_config = ConfigDict(title="Options for PJM")

    rscunit: str = Field(default="", title="Resource unit")
    """Resource unit (`-L rscunit=`)."""
    allocation: Literal["node", "vnode", "none"] = "node"
    """What a job asks for: whole nodes (`-L node=N`), virtual nodes with cores and memory (`-L
    vnode=N,vnode-core=C`), or neither, if a site adds these to the GPUs."""
    node_shape: str = ""
    """The shape of the nodes, after their number (`:torus`), or with it (`2x3:torus`)."""
    gpu_item: str = ""
    """The `-L` item that counts GPUs, such as `gpu`; empty: the site has none, or always gives all
    of a node's."""
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
    """Whether PJM may restart the job itself, after a failure of the machine (`--restart`). Then a
    job succeeds only when PJM says so too. Not with secrets, which a job can read only once."""
    history_days: int = Field(default=30, ge=1, le=365)
    """How many days back `pjstat -H` is asked about jobs that the queue no longer lists."""
    max_array_size: int = Field(default=1000, ge=0, le=1_000_000)
    """How many jobs one bulk job may have; 0: jobs that are submitted together are single jobs, for
    a site that allows no bulk jobs."""
    command_options: list[str] = Field(default_factory=list, examples=[["--no-check-directory"]])
    """Options that must stand on the command line of `pjsub`, such as `--no-check-directory`."""
    directives: list[str] = Field(default_factory=list, examples=[["--mail-list me@example.org"]])
    """Further options in the script, one each."""
