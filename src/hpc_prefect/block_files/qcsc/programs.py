"""Converts commands and execution profiles of qcsc-prefect."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from hpc_prefect.block_files.qcsc.fates import Outcome, QcscFields, may_hold_a_secret
from hpc_prefect.block_files.qcsc.launching import Shape, launcher_line, told_ranks
from hpc_prefect.block_files.qcsc.places import TARGETS, Place
from hpc_prefect.block_files.qcsc.toml_text import Reference
from hpc_prefect.blocks.checks import variable_problems, walltime_problems
from hpc_prefect.records.write.plain import is_secret_name

#: Characters that a shell interprets, besides blanks and quotes, outside of quotes …
_ACTIVE = set("$`*?[]{}~;&|<>()#!\n")
#: … and inside of double quotes.
_ACTIVE_IN_QUOTES = set('$`"\\')
_SECRET_ARGUMENT, _SECRET_LINE = "<argument-with-a-secret>", "<line-with-a-secret>"
_HIDDEN = "seems to set a secret, which no block of ours shows: it is a blank now"


def read_command(fields: QcscFields) -> dict[str, Any]:
    """A table [command.NAME]."""
    table = f"[command.{fields.name}]"
    block: dict[str, Any] = {}
    for name in ("command_name", "executable_key"):
        block[name] = fields.text(name) or f"<{name.replace('_', '-')}>"
        fields.tell(name, "kept", table)
    if description := fields.text("description"):
        block["description"] = description
        fields.tell("description", "kept", table)
    else:
        fields.tell("description", "left out", why="empty")
    if arguments := _arguments(fields, table):
        block["default_args"] = arguments
    return block


def _arguments(fields: QcscFields, table: str) -> list[str]:
    """The arguments as their script's shell passed them to the program."""
    given, found = fields.texts("default_args"), []
    for argument in given:
        if may_hold_a_secret(argument):
            found.append(_SECRET_ARGUMENT)
            fields.tell("default_args", "decide", f"{table} default_args", _HIDDEN)
            continue
        words = _split(argument)
        found += [argument] if words is None else words
        if words is None:
            why = (
                "their script's shell would interpret one of these ($, `, *, quotes …); ours"
                " reach the program literally"
            )
            fields.tell("default_args", "decide", f"{table} default_args", why)
        elif words != [argument]:
            why = "split into words, as their script's shell did"
            fields.tell("default_args", "changed", f"{table} default_args", why)
    _tell_list(fields, "default_args", given, f"{table} default_args")
    return found


def _split(argument: str) -> list[str] | None:
    """The words into which a shell splits an unquoted argument; None if it would do more."""
    if _ACTIVE & set(argument):
        return None
    try:
        return shlex.split(argument)
    except ValueError:
        return None


def _tell_list(fields: QcscFields, name: str, values: Sequence[Any], became: str) -> None:
    if values:
        fields.tell(name, "kept", became)
    else:
        fields.tell(name, "left out", why="empty")


@dataclass(frozen=True, slots=True)
class Wish:
    """What a program needs before it starts: modules and shell lines."""

    modules: tuple[str, ...] = ()
    setup: tuple[str, ...] = ()

    def entry(self, path: str) -> str | dict[str, Any]:
        """The entry in an HPC profile's executables; only the path, if that is enough."""
        parts = {"modules": list(self.modules), "setup": list(self.setup)}
        filled: dict[str, object] = {name: value for name, value in parts.items() if value}
        return {"path": path, **filled} if filled else path


@dataclass(slots=True)
class Program:
    """One of their execution profiles.

    Attributes:
        side: `cpu` or `gpu`.
        lines: whether their set-up commands are among the shell lines.
        secrets: references for variables whose values the user has to provide.
        per_node: ranks on each node, as `shape_for` finds them.
        memory: what the Slurm profiles ask for on a node; empty: nothing.
    """

    fields: QcscFields
    command_name: str
    side: str
    nodes: int
    mpiprocs: int
    threads: int
    launcher: str
    options: list[str]
    wish: Wish
    lines: bool
    environment: dict[str, str]
    block_start: dict[str, Any]
    secrets: dict[str, str] = field(default_factory=dict)
    per_node: int = 1
    memory: str = ""

    @property
    def name(self) -> str:
        return self.fields.name

    @property
    def table(self) -> str:
        return f"[execution-profile.{self.name}]"

    def shape_for(self, places: Sequence[Place]) -> None:
        """Find the ranks and the memory that its jobs had at these places."""
        self.per_node = self.mpiprocs
        told = [
            (place, place.ranks_per_node(self.nodes, self.mpiprocs, self.options, self.launcher))
            for place in places
        ]
        if told:
            self.per_node = told[0][1]
        if self.per_node == self.mpiprocs:
            self.fields.tell("mpiprocs", "kept", f"{self.table} ranks_per_node")
        else:
            why = (
                f"{self.mpiprocs} is now {self.per_node}: by its other fields a job had so many"
                f" ranks on a node of {told[0][0].name}"
            )
            self.fields.tell_of_default("mpiprocs", "changed", f"{self.table} ranks_per_node", why)
        for place, count in told:
            if count != self.per_node:
                why = (
                    f"a job has {count} ranks a node on {place.name}, and {self.per_node} on "
                    f"{told[0][0].name}: make an execution profile for each"
                )
                self.fields.tell_of_default("mpiprocs", "decide", why=why)
        self._take_memory(places)

    def _take_memory(self, places: Sequence[Place]) -> None:
        wanted = {place.memory: place for place in places if place.memory}
        self.memory = next(iter(wanted), "")
        for place in places:
            if place.memory != self.memory:
                why = (
                    f"{place.name} asks for {place.memory or 'none'}, and another profile for "
                    f"{self.memory}, which {self.name} has now: make an execution profile for each"
                )
                place.fields.tell_of_default("slurm_memory", "decide", why=why)
            elif self.memory:
                became = f"{self.table} memory_per_node"
                place.fields.tell("slurm_memory", "changed", became, "belongs to the job here")

    @property
    def starts_alone(self) -> bool:
        """Whether the job is one process."""
        return self.launcher == "single" and self.nodes * self.per_node == 1

    def block(self) -> dict[str, Any]:
        """The table [execution-profile.NAME]."""
        block = self.block_start | {
            "num_nodes": self.nodes,
            "ranks_per_node": self.per_node,
            "threads_per_rank": self.threads,
            "launch": "single" if self.starts_alone else "mpi",
        }
        if self.memory:
            block["memory_per_node"] = self.memory
        if self.environment:
            block["environment"] = self.environment
        return block

    def launcher_at(self, place: Place) -> str:
        """The launcher line of its jobs there; empty if they need none."""
        if self.starts_alone:
            return ""
        if self.launcher == "single":
            return "{command}"
        return place.own_launcher(self.launcher, self._line()[0])

    def _line(self) -> tuple[str, list[str]]:
        shape = Shape(nodes=self.nodes, ranks_per_node=self.per_node, threads=self.threads)
        return launcher_line(self.launcher, self.options, shape)

    def not_for(self, place: Place) -> str:
        """Why its jobs cannot be meant for that place; empty if they can."""
        if self.launcher == "srun" and place.target != "slurm":
            return f"srun is Slurm's, and {place.name} is {place.target}"
        if self.launcher == "mpiexec.hydra" and place.target == "fugaku":
            return f"Fugaku, which is {place.name}, has no mpiexec.hydra"
        named = {target for target in TARGETS if target in self.name.split("-")}
        if named and place.target not in named:
            return f"its name says {' or '.join(sorted(named))}, and {place.name} is {place.target}"
        return ""

    def tell_place(self, table: str, place: Place) -> None:
        """Report what went into this HPC profile."""
        where = f"{table} gpu" if self.side == "gpu" else table
        tell, line = self.fields.tell, self.launcher_at(place)
        if self.starts_alone:
            tell("launcher", "kept", f"{self.table} launch", "'single'")
        elif self.launcher == "single":
            why = "the program is started once, for a job of many ranks, as it was"
            tell("launcher", "changed", f"{where} launcher", f"{line}: {why}")
        else:
            shown = "" if may_hold_a_secret(line) else line
            tell("launcher", "changed", f"{where} launcher", shown)
        self._tell_options(where, place)
        if self.wish.modules:
            tell("modules", "changed", f"{where} executables, modules")
        if self.lines:
            why = "their script for Fugaku left them out" if place.target == "fugaku" else ""
            outcome: Outcome = "decide" if place.target == "fugaku" else "changed"
            tell("pre_commands", outcome, f"{where} executables, setup", why)
        for name in self.secrets:
            why = f"{name} seems to be a secret: set it where you run `blocks apply`"
            tell("environments", "decide", f"{table} secret_environment", why)

    def _tell_options(self, where: str, place: Place) -> None:
        if not self.options:
            return
        if self.launcher == "single":
            why = "their launcher 'single' took no options"
            self.fields.tell("mpi_options", "left out", why=why)
            return
        self.fields.tell("mpi_options", "changed", f"{where} launcher")
        if odd := self._line()[1]:
            why = (
                f"{', '.join(odd)} does not match this job's numbers ({self.nodes} nodes ×"
                f" {self.per_node} ranks, {self.threads} threads): it is in the launcher line"
                f" unchanged, for every job there"
            )
            self.fields.tell("mpi_options", "decide", f"{where} launcher", why)
        told, had = told_ranks(self.options), place.pjm_ranks(self.nodes)
        if told and had and told > had:
            why = (
                f"ask for {told} ranks, and mpi_options_for_pjm of {place.name} gave the job "
                f"{had}: {told} is taken"
            )
            self.fields.tell("mpi_options", "decide", f"{self.table} ranks_per_node", why)

    def tell_nowhere(self) -> None:
        """Report that no HPC profile took the fields that belong to one."""
        why = "belongs to an HPC profile here, but none of those that were read has its program"
        filled: dict[str, object] = {
            "modules": self.wish.modules,
            "mpi_options": self.options,
            "environments": self.secrets,
        }
        filled |= {"pre_commands": self.lines, "launcher": self.launcher}
        for name in (name for name, value in filled.items() if value):
            self.fields.tell(name, "decide", why=why)


def read_program(fields: QcscFields) -> Program:
    """One execution profile; values that depend on the place are found later."""
    table = f"[execution-profile.{fields.name}]"
    start = _plain_fields(fields, table)
    environment, exports, secrets = _environment(fields, table)
    nodes = fields.number("num_nodes") or 1
    fields.tell("num_nodes", "kept", table)
    launcher = fields.text("launcher") or "single"
    options, lines = fields.texts("mpi_options"), _lines(fields)
    if not options:
        fields.tell("mpi_options", "left out", why="empty")
    return Program(
        fields=fields,
        command_name=start["command_name"],
        side=start["resource_class"],
        nodes=nodes,
        mpiprocs=fields.number("mpiprocs") or 1,
        threads=_threads(fields, environment, table),
        launcher=launcher,
        options=_without_secrets(fields, options),
        wish=Wish(_modules(fields), (*lines, *exports)),
        lines=bool(lines),
        environment=environment,
        block_start=start,
        secrets=secrets,
    )


def _plain_fields(fields: QcscFields, table: str) -> dict[str, Any]:
    block: dict[str, Any] = {"profile_name": fields.text("profile_name") or fields.name}
    block["command_name"] = fields.text("command_name") or "<command-name>"
    given = fields.text("resource_class") or "cpu"
    block["resource_class"] = given if given in ("cpu", "gpu") else "cpu"
    for name in ("profile_name", "command_name"):
        fields.tell(name, "kept", table)
    if given == block["resource_class"]:
        fields.tell("resource_class", "kept", table)
    else:
        fields.tell("resource_class", "decide", table, "is neither cpu nor gpu; cpu is taken")
    walltime = fields.text("walltime") or "00:05:00"
    if walltime_problems(walltime):
        why = "is no HH:MM:SS or D-HH:MM:SS, so that it is a blank now"
        fields.tell("walltime", "decide", f"{table} walltime", why)
        walltime = "<walltime>"
    else:
        fields.tell("walltime", "kept", table)
    return block | {"walltime": walltime}


def _threads(fields: QcscFields, environment: dict[str, str], table: str) -> int:
    became = f"{table} threads_per_rank"
    if given := fields.number("ompthreads"):
        why = "is OMP_NUM_THREADS, too, unless an environment sets it"
        fields.tell("ompthreads", "kept", became, why)
        return given
    told = environment.get("OMP_NUM_THREADS", "")
    if told.isascii() and told.isdigit() and 0 < int(told) < 10**6:
        why = "was empty; taken from OMP_NUM_THREADS in environments"
        fields.tell_of_default("ompthreads", "changed", became, why)
        return int(told)
    why = "was empty, so that OpenMP used all cores. Here it is 1: set the number"
    fields.tell("ompthreads", "decide", became, why)
    return 1


def _modules(fields: QcscFields) -> tuple[str, ...]:
    """Split at blanks, since their script wrote them unquoted."""
    modules = tuple(word for module in fields.texts("modules") for word in module.split())
    if not modules:
        fields.tell("modules", "left out", why="empty")
    return modules


def _lines(fields: QcscFields) -> list[str]:
    lines = fields.texts("pre_commands")
    if not lines:
        fields.tell("pre_commands", "left out", why="empty")
    if any(may_hold_a_secret(line) for line in lines):
        fields.tell("pre_commands", "decide", why=_HIDDEN)
    return [_SECRET_LINE if may_hold_a_secret(line) else line for line in lines]


def _without_secrets(fields: QcscFields, options: list[str]) -> list[str]:
    text = " ".join(options)
    if not may_hold_a_secret(text):
        return options
    fields.tell("mpi_options", "decide", why="seems to set a secret: all options are left out")
    return []


def _environment(
    fields: QcscFields, table: str
) -> tuple[dict[str, str], list[str], dict[str, str]]:
    """The plain variables, the lines for a shell, and the secret variables."""
    plain: dict[str, str] = {}
    exports: list[str] = []
    secrets: dict[str, str] = {}
    given = fields.table("environments")
    for name, value in given.items():
        if problems := variable_problems(name):
            fields.tell("environments", "decide", why=f"{'; '.join(problems)}; left out")
        elif is_secret_name(name) and value and not value.startswith("$"):
            secrets[name] = Reference(f"${{ENV:{name}}}")
        elif _ACTIVE_IN_QUOTES & set(value):
            exports.append(f'export {name}="{value}"')
            why = f"{name} is set by a shell, which expands it; an environment is not expanded"
            fields.tell("environments", "changed", "executables, setup, of the HPC profile", why)
        else:
            plain[name] = value
    if plain:
        fields.tell("environments", "kept", f"{table} environment")
    if not given:
        fields.tell("environments", "left out", why="empty")
    if secrets:
        why = f"{', '.join(secrets)} is not written: it seems to be a secret"
        fields.tell("environments", "changed", "secret_environment of the HPC profile", why)
    return plain, exports, secrets
