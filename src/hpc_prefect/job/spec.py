"""What is to run, fully resolved: no block, default or site has to be looked up any more."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from hpc_prefect.job.launcher import status_problems

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

ResourceClass = Literal["cpu", "gpu"]
Launch = Literal["single", "mpi"]

#: What a launcher line may ask for. `{command}` is the quoted program with its arguments; without
#: it the program follows the line.
LAUNCHER_PLACEHOLDERS = ("ranks", "nodes", "ranks_per_node", "threads", "gpus_per_node", "command")
#: What the line for held allocations may ask for in addition: the job's share of the nodes, as a
#: list with commas or as a file with a line for each rank, and its memory on each (`4096M`).
SHARE_PLACEHOLDERS = ("hosts", "hostfile", "memory")

T = TypeVar("T", bound="DataclassInstance")

#: `{name}`, but not the shell's `${name}`, which belongs to the site's own text.
_PLACEHOLDER = re.compile(r"(?<!\$)\{(\w*)\}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """The shape of the job: what the execution profile asks for, in plain units.

    `memory_per_node` is in bytes, 0 when nothing was asked; `walltime` in seconds.
    """

    resource_class: ResourceClass = "cpu"
    num_nodes: int = 1
    ranks_per_node: int = 1
    threads_per_rank: int = 1
    memory_per_node: int = 0
    gpus_per_node: int = 0
    walltime: int = 300
    launch: Launch = "single"

    @property
    def ranks(self) -> int:
        """MPI ranks in all."""
        return self.num_nodes * self.ranks_per_node

    @property
    def cores_per_node(self) -> int:
        """Cores that one node must have."""
        return self.ranks_per_node * self.threads_per_rank


@dataclass(frozen=True, slots=True, kw_only=True)
class Executable:
    """A program at one place: its path and what must be set up before it can run.

    `path` is absolute, or a bare name that is looked up on PATH after set-up. `setup` lines are the
    site owner's shell text. `path_prefixes` maps a variable (PATH, LD_LIBRARY_PATH, …) to folders
    that are put before its value.
    """

    path: str
    modules: tuple[str, ...] = ()
    setup: tuple[str, ...] = ()
    path_prefixes: dict[str, tuple[str, ...]] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """The part of an HPC profile that reaches the scheduler and the script.

    Attributes:
        cores_per_node, memory_per_node (bytes), gpus_per_node: what a node has; 0: not known.
        max_walltime: the longest that a job may ask for, in seconds; 0: not known.
        options: the scheduler's own, as its block sub-model dumps them (JSON values only).
    """

    scheduler: str
    queue: str = ""
    project: str = ""
    launcher: str = ""
    launcher_in_allocation: str = ""
    login_shell: bool = False
    modules: tuple[str, ...] = ()
    setup: tuple[str, ...] = ()
    teardown: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    cores_per_node: int = 0
    memory_per_node: int = 0
    gpus_per_node: int = 0
    max_walltime: int = 0
    options: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Site:
        """The place that `JobSpec.as_dict` described; unknown keys of a later version are ignored.

        Raises:
            KeyError, TypeError, ValueError, AttributeError: it is none.
        """
        return _made(cls, values)


@dataclass(frozen=True, slots=True, kw_only=True)
class Array:
    """The array of a job: `size` elements of one shape, numbered from 0, in one submission.

    `at_once`: elements that may run at the same time; 0 for as many as there is room for.
    """

    size: int
    at_once: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSpec:
    """One job, fully resolved. Frozen, made of JSON values, and the basis of the job's digest.

    Secrets are not in it: only the *names* of secret environment variables are.

    Attributes:
        name: what a person calls the job (the `script_filename` of the call).
        arguments: the program's arguments, byte for byte.
        environment: the program's own settings from the execution profile.
        work_dir: absolute; the program's working directory.
        inputs: declared input files, relative to `work_dir` or absolute.
        expected_outputs: files that a successful run leaves, relative to `work_dir` or absolute.
        array: its elements, if it is an array; `resources` are then those of each element.
        has_members: it runs members of an array (see `hpc_prefect.job.members`), or is one of them.
            Also true if there is only one element, which is submitted as a single job.
    """

    name: str
    command_name: str
    executable: Executable
    site: Site
    resources: Resources
    work_dir: str
    arguments: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    secret_names: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ()
    expected_outputs: tuple[str, ...] = ()
    array: Array | None = None
    has_members: bool = False

    kind = "batch"
    on_cancel = "cancel"
    writes_output = True

    @property
    def may_requeue(self) -> bool:
        """Whether its scheduler may start it again by itself, under the same id.

        Never with secrets: the script reads them once, so a second start would have none. Nor with
        members: those that failed are submitted again, and those that succeeded are not.
        """
        wanted = self.site.options.get("requeue") == "yes"
        return wanted and not self.secret_names and not self.has_members

    @property
    def words(self) -> str:
        """What it asks for, for people."""
        asked = self.resources
        parts = [
            f"{asked.num_nodes} nodes × {asked.ranks_per_node} ranks"
            f" × {asked.threads_per_rank} threads",
            f"{write_memory(asked.memory_per_node)} a node" if asked.memory_per_node else "",
            f"{asked.gpus_per_node} GPUs a node" if asked.gpus_per_node else "",
            f"walltime {write_walltime(asked.walltime)}",
            asked.resource_class,
            asked.launch,
        ]
        return ", ".join(part for part in parts if part)

    def facts(self) -> dict[str, Any]:
        """Its values in lists of jobs beside those of every job: none."""
        return {}

    def as_dict(self) -> dict[str, Any]:
        """JSON values only."""
        return _fields(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> JobSpec:
        """The job that `as_dict` described; unknown keys of a later version are ignored.

        Raises:
            KeyError, TypeError, ValueError, AttributeError: it is no job.
        """
        parts = {
            "executable": _made(Executable, values["executable"]),
            "site": _made(Site, values["site"]),
            "resources": _made(Resources, values["resources"]),
            "array": _made(Array, values["array"]) if values.get("array") else None,
        }
        return _made(cls, values | parts)

    def identity(self) -> dict[str, Any]:
        """The values that identify the job: what it computes, not where and for how long.

        After a failure for walltime or memory, or in a full queue, a person changes values that are
        left out here. The jobs that are done must not run again for that.

        The QPUs that the job asks the scheduler for (`slurm.qpu`) are included: they compute. A job
        without QPUs has the identity that older versions gave it. A profile's `qrmi` is included
        as part of the profile's environment; of an API key only the variable's name is.
        """
        values = self.as_dict()
        del values["array"], values["has_members"]
        kept = ("scheduler", "modules", "setup", "environment")
        values["site"] = {name: values["site"][name] for name in kept}
        if qpus := self.site.options.get("qpu"):
            values["site"]["qpu"] = qpus
        for name in ("walltime", "memory_per_node"):
            del values["resources"][name]
        return values


#: The kinds of dataclasses that a job's description has as parts.
_PARTS = (Resources, Executable, Site, Array)


@cache
def _names(kind: Any) -> tuple[str, ...]:
    """Those of a dataclass's fields."""
    return tuple(field.name for field in dataclasses.fields(kind))


def _fields(value: Any) -> dict[str, Any]:
    """As `dataclasses.asdict`, but without copies of the values, in a fifth of the time."""
    return {
        name: _fields(part) if type(part) in _PARTS else part
        for name in _names(value.__class__)
        for part in [getattr(value, name)]
    }


def _made(kind: type[T], values: dict[str, Any]) -> T:
    """A dataclass from what JSON made of its fields: lists where there were tuples."""
    known = {field.name for field in dataclasses.fields(kind)}
    given = {name: _frozen(value) for name, value in values.items() if name in known}
    # Each value of path_prefixes is a tuple of folders; lists in other dicts stay lists.
    if "path_prefixes" in given:
        prefixes = given["path_prefixes"].items()
        given["path_prefixes"] = {name: tuple(folders) for name, folders in prefixes}
    return kind(**given)


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def launcher_problems(template: str) -> list[str]:
    """Say what is wrong with a launcher line; empty when it can be used."""
    return _line_problems("launcher", template, LAUNCHER_PLACEHOLDERS)


def share_launcher_problems(template: str) -> list[str]:
    """The same of the line that is used in a held allocation."""
    known = (*LAUNCHER_PLACEHOLDERS, *SHARE_PLACEHOLDERS)
    return _line_problems("launcher_in_allocation", template, known)


def _line_problems(field: str, template: str, there: tuple[str, ...]) -> list[str]:
    unknown = [name for name in _PLACEHOLDER.findall(template) if name not in there]
    known = ", ".join("{" + name + "}" for name in there)
    problems = [f"unknown placeholder {{{name}}}; there are {known}" for name in unknown]
    return [f"{field}: {problem}" for problem in problems + status_problems(template)]


def launch_line(template: str, resources: Resources, command: str) -> str:
    """The shell line that starts the program: the site's launcher around the quoted `command`."""
    values = {
        "ranks": str(resources.ranks),
        "nodes": str(resources.num_nodes),
        "ranks_per_node": str(resources.ranks_per_node),
        "threads": str(resources.threads_per_rank),
        "gpus_per_node": str(resources.gpus_per_node),
        # Told by the agent of the allocation, when it starts the job.
        "hosts": '"$HPC_ALLOCATION_HOSTS"',
        "hostfile": '"$HPC_ALLOCATION_HOSTFILE"',
        "command": command,
    }
    line = _PLACEHOLDER.sub(lambda match: values[match[1]], template.strip())
    return line if "command" in _PLACEHOLDER.findall(template) else f"{line} {command}"


_WALLTIME = re.compile(r"(?:(\d+)-)?(?:(\d+):)?(\d{1,2}):(\d{2})", re.ASCII)


def parse_walltime(text: str) -> int:
    """Seconds of `HH:MM:SS`, `MM:SS` or `D-HH:MM:SS`.

    Raises:
        ValueError: the text is none of these, or no time at all.
    """
    match = _WALLTIME.fullmatch(text.strip())
    if match is None or (match[1] is not None and match[2] is None):
        raise ValueError(f"walltime {text!r}: write HH:MM:SS (or D-HH:MM:SS), such as 01:30:00")
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    # 60 minutes and more are allowed, as an old habit ("90:00"), but only without hours.
    if seconds > 59 or (match[2] is not None and minutes > 59) or (match[1] and hours > 23):
        raise ValueError(f"walltime {text!r}: a part is too large; write HH:MM:SS, as in 01:30:00")
    total = ((days * 24 + hours) * 60 + minutes) * 60 + seconds
    if total == 0:
        raise ValueError(f"walltime {text!r}: must be longer than nothing")
    return total


def write_walltime(seconds: int) -> str:
    """`HH:MM:SS`, as PBS, PJM and people read it; hours may have more than two digits."""
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"


_MEMORY = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(i?B?)", re.IGNORECASE | re.ASCII)


def parse_memory(text: str) -> int:
    """Bytes of `4G`, `4GiB`, `512M` …; powers of 1024 throughout, as the schedulers mean them.

    An empty text is 0: nothing asked. A bare number is refused, because Slurm would read MiB, PBS
    bytes and PJM MiB.

    Raises:
        ValueError: the text is not a size with a unit.
    """
    text = text.strip()
    if not text:
        return 0
    match = _MEMORY.fullmatch(text)
    if match is None or not match[2]:
        raise ValueError(f"memory {text!r}: write a number with K, M, G or T, such as 4G")
    size = int(Fraction(match[1]) * 1024 ** ("KMGT".index(match[2].upper()) + 1))
    if size == 0:
        raise ValueError(f"memory {text!r}: must be more than nothing")
    return size


def write_memory(size: int) -> str:
    """A size in the largest unit that is not more than it, for people: `1.5G`."""
    for unit, power in (("T", 4), ("G", 3), ("M", 2), ("K", 1)):
        if size >= 1024**power:
            return f"{round(size / 1024**power, 2):g}{unit}"
    return f"{size} bytes"
