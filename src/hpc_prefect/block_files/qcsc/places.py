"""Converts HPC profiles of qcsc-prefect."""

from __future__ import annotations

import math
import re
import shlex
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from hpc_prefect.block_files.qcsc.fates import QcscFields
from hpc_prefect.block_files.qcsc.launching import pjm_ranks, told_ranks
from hpc_prefect.blocks.checks import memory_problems, path_problems
from hpc_prefect.sites import find_site

_SCHEDULERS = {"local": "local", "miyabi": "pbs", "fugaku": "pjm", "slurm": "slurm"}
TARGETS = tuple(_SCHEDULERS)
#: Their default queues, which are Miyabi's.
_MIYABIS = {"queue_cpu": "regular-c", "queue_gpu": "regular-g"}
#: Their default volume for Fugaku, and where their script finds Spack.
_VOLUME, _SPACK = "/vol0002", "/vol0004"
_SPACK_SETUP = f". {_SPACK}/apps/oss/spack/share/spack/setup-env.sh"

#: Fields that only our profiles have; the values are from our own profile of the site.
_FACTS = (
    *("setup", "login_shell", "cores_per_node", "memory_per_node", "gpus_per_node"),
    *("max_walltime", "max_jobs_in_queue", "pbs", "pjm"),
)
_GPU_FACTS = ("cores_per_node", "memory_per_node", "gpus_per_node", "max_walltime")

#: Options of sbatch that are fields of ours.
_SLURM_FIELDS = {
    "--qos": "qos",
    "-q": "qos",
    "--reservation": "reservation",
    "--constraint": "constraint",
    "-C": "constraint",
    "--clusters": "cluster",
    "-M": "cluster",
}


@dataclass(slots=True)
class Place:
    """One of their HPC profiles.

    Attributes:
        executables: paths by their keys.
        block: our fields, without those that depend on the programs.
        memory: what its jobs ask for on a node; empty: nothing.
    """

    fields: QcscFields
    target: str
    executables: dict[str, str]
    block: dict[str, Any]
    memory: str = ""

    @property
    def name(self) -> str:
        return self.fields.name

    @property
    def table(self) -> str:
        return f"[hpc-profile.{self.name}]"

    def ranks_per_node(
        self, nodes: int, mpiprocs: int, options: Sequence[str], launcher: str
    ) -> int:
        """The most ranks that one of their jobs had on a node."""
        if self.target == "fugaku":  # their script for it ignores mpiprocs
            told = None if launcher == "single" else told_ranks(options)
            return math.ceil((told or self.pjm_ranks(nodes) or nodes) / nodes)
        tasks = self.fields.document.fields.get("slurm_ntasks")
        if self.target == "slurm" and isinstance(tasks, int) and tasks > 0:
            return math.ceil(tasks / nodes)
        return mpiprocs

    def pjm_ranks(self, nodes: int) -> int | None:
        """The ranks that PJM was given for a job on so many nodes; None if it was given none."""
        if self.target != "fugaku":
            return None
        return pjm_ranks(_texts(self.fields.document.fields, "mpi_options_for_pjm"), nodes)[0]

    def own_launcher(self, launcher: str, line: str) -> str:
        """The line with the place's own name for that launcher."""
        if self.target == "fugaku" and launcher == "mpiexec":
            # It is a function in `setup` that collects the ranks' output in the job's.
            return line.replace("mpiexec", "ranks", 1)
        return line


def _texts(document: Any, name: str) -> list[str]:
    value = document.get(name)
    return [each for each in value if isinstance(each, str)] if isinstance(value, list) else []


def read_place(fields: QcscFields) -> Place:
    """One HPC profile."""
    target = _target(fields)
    block: dict[str, Any] = {"scheduler": _SCHEDULERS[target]}
    place = Place(fields, target, {}, block)
    _read_queues(place)
    facts = site_facts(target)
    block |= facts
    if facts:
        fields.tell_of_default(
            "hpc_target",
            "changed",
            f"{place.table} {', '.join(facts)}",
            f"theirs has no such fields; taken from `hpc-prefect sites show {target}`",
        )
    place.executables = _executables(place)
    block["executables"] = dict(place.executables)
    _read_slurm(place)
    _read_fugaku(place)
    return place


def _target(fields: QcscFields) -> str:
    target = fields.text("hpc_target") or "miyabi"
    became = f"[hpc-profile.{fields.name}] scheduler"
    if target not in _SCHEDULERS:
        why = f"is none of {', '.join(_SCHEDULERS)}; slurm is taken"
        fields.tell("hpc_target", "decide", became, why)
        return "slurm"
    fields.tell("hpc_target", "kept", became, repr(_SCHEDULERS[target]))
    return target


@cache
def _site(target: str) -> dict[str, Any]:
    (profile,) = tomllib.loads(find_site(target).text)["hpc-profile"].values()
    return dict(profile)


def site_facts(target: str) -> dict[str, Any]:
    """This package's values for the place, for which their profiles have no field."""
    if target not in ("miyabi", "fugaku"):
        return {}
    profile = _site(target)
    facts = {name: profile[name] for name in _FACTS if name in profile}
    gpu = {name: profile["gpu"][name] for name in _GPU_FACTS} if "gpu" in profile else {}
    facts = {
        name: {key: each for key, each in value.items() if not _is_blank(each)}
        if isinstance(value, dict)
        else value
        for name, value in facts.items()
    }
    return facts | ({"gpu": gpu} if gpu else {})


def _is_blank(value: Any) -> bool:
    values = value if isinstance(value, list) else [value]
    return any(isinstance(each, str) and each.startswith("<") for each in values)


def _read_queues(place: Place) -> None:
    fields, block = place.fields, place.block
    for name in ("queue_cpu", "queue_gpu", "project_cpu", "project_gpu"):
        value = fields.text(name)
        if place.target == "local":
            fields.tell(name, "left out", why="this machine has no queues and charges nobody")
        elif not value and name == "project_cpu" and place.target in ("miyabi", "fugaku"):
            block[name] = "<project>"
            why = f"{place.target} wants a project; it is a blank now"
            fields.tell_of_default(name, "decide", f"{place.table} {name}", why)
        elif not value:
            fields.tell(name, "left out", why="empty")
        elif place.target != "miyabi" and value == _MIYABIS.get(name):
            fields.tell(name, "left out", why="the field's default, which is a queue of Miyabi's")
        else:
            block[name] = value
            fields.tell(name, "kept", place.table)


def _executables(place: Place) -> dict[str, str]:
    """Their paths; a relative one, or one that a shell would expand, becomes a blank."""
    became, paths = f"{place.table} executables", {}
    for key, given in place.fields.table("executable_map").items():
        path = given.strip()
        problems = path_problems(path)
        if set(path) & set('$`"\\'):
            problems = ["a shell would have to expand it, and our paths are taken literally"]
        if problems:
            why = f"{key}: {problems[0]}; it is a blank now"
            place.fields.tell("executable_map", "decide", became, why)
        elif re.search(r"<[^<>/]+>", path):
            why = f"{key}: a part of it in < > seems to be a blank"
            place.fields.tell("executable_map", "decide", became, why)
        paths[key] = "<absolute-path>" if problems else path
    if paths:
        place.fields.tell("executable_map", "kept", became)
    else:
        place.fields.tell("executable_map", "left out", why="empty")
    return paths


def _elsewhere(place: Place, names: Sequence[str], target: str) -> bool:
    """Whether these fields have no effect here; their script did not read them either."""
    if place.target == target:
        return False
    for name in names:
        given = place.fields.document.fields.get(name)
        why = f"is for {target}, and this is {place.target}" if given else "empty"
        place.fields.tell(name, "left out", why=why)
    return True


# --- Slurm


def _read_slurm(place: Place) -> None:
    fields = place.fields
    qpu, memory = fields.text("slurm_qpu"), fields.text("slurm_memory")
    tasks, directives = fields.number("slurm_ntasks"), fields.texts("slurm_extra_directives")
    names = ("slurm_qpu", "slurm_memory", "slurm_ntasks", "slurm_extra_directives")
    if _elsewhere(place, names, "slurm"):
        return
    options: dict[str, Any] = {}
    if qpu:
        options["qpu"] = [name for name in re.split(r"[,\s]+", qpu) if name]
        options["site_qpus"] = list(options["qpu"])
        why = "site_qpus says that the site has them; Slurm does not say when it has not"
        fields.tell("slurm_qpu", "kept", f"{place.table} slurm.qpu, slurm.site_qpus", why)
    if tasks:
        why = "ours asks for num_nodes × ranks_per_node"
        fields.tell("slurm_ntasks", "changed", "ranks_per_node of the execution profiles", why)
    place.memory = _slurm_memory(fields, memory)
    _read_directives(place, directives, options)
    for name, given in (("slurm_qpu", qpu), ("slurm_ntasks", tasks), ("slurm_memory", memory)):
        if not given:
            fields.tell(name, "left out", why="empty")
    if options:
        place.block["slurm"] = options


def _slurm_memory(fields: QcscFields, given: str) -> str:
    """In an execution profile's form; Slurm's bare number is in MiB."""
    memory = f"{given}M" if given.isdigit() and given.isascii() else given
    if given == "0":
        why = "0 asks for all of a node's memory: set slurm.exclusive, or say how much"
        fields.tell("slurm_memory", "decide", why=why)
        return ""
    if memory and memory_problems(memory):
        why = f"{memory_problems(memory)[0]}; left out"
        fields.tell("slurm_memory", "decide", why=why)
        return ""
    if memory:
        became = "memory_per_node of the execution profiles that have a program here"
        fields.tell("slurm_memory", "changed", became, "belongs to the job here")
    return memory


def _read_directives(place: Place, directives: Sequence[str], options: dict[str, Any]) -> None:
    tell, name = place.fields.tell, "slurm_extra_directives"
    if not directives:
        tell(name, "left out", why="empty")
    for directive in (each.strip() for each in directives):
        option, value = _option(directive)
        field = _SLURM_FIELDS.get(option, "")
        if field and value and field not in options:
            options[field] = value
            tell(name, "kept", f"{place.table} slurm.{field}", option)
        elif option == "--exclusive" and not value:
            options["exclusive"] = True
            tell(name, "kept", f"{place.table} slurm.exclusive", option)
        elif option in ("--requeue", "--no-requeue"):
            options["requeue"] = "yes" if option == "--requeue" else "no"
            tell(name, "kept", f"{place.table} slurm.requeue", option)
        else:
            options.setdefault("directives", []).append(directive)
            tell(name, "kept", f"{place.table} slurm.directives", option)


def _option(directive: str) -> tuple[str, str]:
    """`--qos=x` and `-q x` as option and value."""
    try:
        words = shlex.split(directive)
    except ValueError:
        words = []
    if not words:
        return directive, ""
    option, equals, value = words[0].partition("=")
    if not equals and len(words) == 2:
        value = words[1]
    return option, value if len(words) <= 2 - bool(equals) else ""


# --- Fugaku


def _read_fugaku(place: Place) -> None:
    fields = place.fields
    volume, spack = fields.text("gfscache"), fields.texts("spack_modules")
    mpi, resources = fields.texts("mpi_options_for_pjm"), fields.texts("pjm_resources")
    names = ("gfscache", "spack_modules", "mpi_options_for_pjm", "pjm_resources")
    if _elsewhere(place, names, "fugaku"):
        return
    options = dict(place.block.get("pjm", {}))
    became = f"{place.table} pjm"
    options["gfscache"] = [part for part in (volume or _VOLUME).split(":") if part]
    why = "" if volume else f"was empty, for which their call takes {_VOLUME}"
    fields.tell_of_default("gfscache", "kept" if volume else "changed", f"{became}.gfscache", why)
    if spack:
        lines = [_SPACK_SETUP, *(f"spack load {each}" for each in spack)]
        place.block["setup"] = [*place.block.get("setup", []), *lines]
        why = f"before the modules of a program; Spack is on {_SPACK}, which gfscache should name"
        fields.tell("spack_modules", "changed", f"{place.table} setup", why)
    else:
        fields.tell("spack_modules", "left out", why="empty")
    _, rest = pjm_ranks(mpi, 1)
    why = "proc and max-proc-per-node are written from the execution profile"
    if rest:
        options["mpi"] = rest
        fields.tell("mpi_options_for_pjm", "kept", f"{became}.mpi", why)
    elif mpi:
        became_ranks = "ranks_per_node of the execution profiles"
        fields.tell("mpi_options_for_pjm", "changed", became_ranks, why)
    else:
        fields.tell("mpi_options_for_pjm", "left out", why="empty")
    _read_resources(place, resources, options)
    place.block["pjm"] = options


def _read_resources(place: Place, resources: Sequence[str], options: dict[str, Any]) -> None:
    tell, name, became = place.fields.tell, "pjm_resources", f"{place.table} pjm"
    if not resources:
        tell(name, "left out", why="empty")
    further: dict[str, str] = {}
    for item in (item.strip() for each in resources for item in each.split(",")):
        key, equals, value = (part.strip() for part in item.partition("="))
        if key in ("rscunit", "ru") and value:
            options["rscunit"] = value
            tell(name, "kept", f"{became}.rscunit", key)
        elif key == "node" and value:
            options["node_shape"] = value
            tell(name, "changed", f"{became}.node_shape", "the number of nodes is the job's")
        elif equals and value and key not in further:
            further[key] = value
            tell(name, "kept", f"{became}.resources", key)
        elif item:
            why = f"{item!r} is no item NAME=VALUE, or there twice; left out"
            tell(name, "decide", why=why)
        else:
            tell(name, "left out", why="an empty item")
    if further:
        options["resources"] = further
