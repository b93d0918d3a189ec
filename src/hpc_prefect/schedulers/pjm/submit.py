"""A job's `#PJM` lines, what of the job PJM cannot honour, and how `pjsub`'s answer is read."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from hpc_prefect.job.dialogue import Reply
from hpc_prefect.job.spec import JobSpec, write_memory, write_walltime
from hpc_prefect.schedulers.base import Accepted, Refused, Submission, Unclear
from hpc_prefect.schedulers.directives import line_problems, refused_options, value_problems
from hpc_prefect.schedulers.pjm import arrays

_REFUSED = {
    **dict.fromkeys(("-N", "--name"), "hpc-prefect sets the name, to find the job by it"),
    **dict.fromkeys(
        ("-o", "--out", "-e", "--err", "-j"), "hpc-prefect puts all output into the job folder"
    ),
    **dict.fromkeys(
        ("-s", "--stats", "-S", "--STATS", "--spath"),
        "hpc-prefect puts the statistics into the job folder",
    ),
    **dict.fromkeys(
        ("--bulk", "--step", "--mswk", "--sparam"),
        "one call is one job; for many: run_jobs_from_blocks",
    ),
    "--interact": "nobody types in an interactive job of a flow",
    "-z": "pjsub would then not print the job's id as hpc-prefect reads it",
    "--verbose": "pjsub would then not print the job's id as hpc-prefect reads it",
    "--help": "then no job would be submitted",
    **dict.fromkeys(("-C", "--dir-prefix"), "the other #PJM lines would no longer be read"),
    **dict.fromkeys(("-g", "--gname", "--gid"), "set project_cpu or project_gpu"),
    **dict.fromkeys(("-L", "--rsc-list"), "set the execution profile, or pjm.resources"),
    "--mpi": "set pjm.mpi",
    "--llio": "set pjm.llio",
    **dict.fromkeys(("--restart", "--norestart"), "set pjm.requeue"),
    "-X": "the flow's own environment, with its keys, would be in the job; set environment in the"
    " HPC profile",
}

#: Long options that take a value, beside those.
_WITH_VALUE = ("--at", "--comment", "--fs", "--appname", "--mail-list", "--net-route", "--vset")

#: `-L` items that are made from the profiles' fields. `ru` and `rg` are short names of two of them.
_OURS = {
    **dict.fromkeys(("rscunit", "ru"), "set pjm.rscunit"),
    **dict.fromkeys(("rscgrp", "rg"), "set queue_cpu or queue_gpu"),
    "elapse": "set walltime in the execution profile",
    "node": "set num_nodes in the execution profile, and pjm.node_shape",
    "vnode": "set num_nodes in the execution profile, and pjm.allocation",
    "vnode-core": "set threads_per_rank in the execution profile, and pjm.allocation",
    **dict.fromkeys(
        ("node-mem", "vnode-mem", "core-mem"), "set memory_per_node in the execution profile"
    ),
}
_MPI_OURS = ("proc", "max-proc-per-node")

_SHAPE = re.compile(r"(\d+(?:x\d+){0,2})?((?::[a-z-]+)*)", re.ASCII)
#: In paths for output pjsub replaces these by the job's id, name …
_REPLACED = re.compile(r"%[jJbsn]")
#: The longest line that pjsub reads whole in a script.
_LONGEST_LINE = 4095

_SUBMITTED = re.compile(
    r"^\[INFO\.?\] +PJM +0000 +pjsub +Job +(\d+) +submitted\.", re.MULTILINE | re.ASCII
)
_ERROR = re.compile(r"^\[ERR\.?\] +PJM +(\d+) +pjsub", re.MULTILINE | re.ASCII)
_FULL = "0072"
_BULK_IS_CLOSED = (
    "\nThis site does not let you submit bulk jobs: set pjm.max_array_size of the HPC profile to 0,"
    " so that each is a job of its own"
)
#: Codes after which pjsub has surely made no job: wrong options or files, limits, permissions, the
#: site's own checks. 0068, 0090 and 0091 are not among them: the system was changing, or did not
#: answer, and the job may exist. A code that the manual does not list is not among them either.
_REFUSALS = {
    *("0001", "0002", "0003", "0004", "0008", "0009", "0012", "0018", "0020", "0021", "0022"),
    *("0023", "0025", "0026", "0027", "0028", "0041", "0045", "0046", "0047", "0048", "0049"),
    *("0050", "0054", "0056", "0057", "0058", "0059", "0060", "0063", "0069", "0070", "0071"),
    *("0073", "0074", "0076", "0077", "0079", "0084", "0089", "0093"),
}


def directives(spec: JobSpec) -> list[str]:
    """The options that stand in the script, without their prefix."""
    shape, site, options = spec.resources, spec.site, spec.site.options
    items = [f"rscunit={options['rscunit']}"] if options.get("rscunit") else []
    items += [f"rscgrp={site.queue}"] if site.queue else []
    items += _nodes(spec)
    items.append(f"elapse={write_walltime(shape.walltime)}")
    items += [f"{name}={value}" for name, value in _extra(options).items()]
    found = [f'-L "{item}"' for item in items]
    if shape.launch == "mpi":
        found.append(f'--mpi "{",".join(_mpi(spec))}"')
    if site.project:
        found.append(f"-g {site.project}")
    if options.get("gfscache"):
        found.append(f'-x "PJM_LLIO_GFSCACHE={":".join(options["gfscache"])}"')
    if options.get("llio"):
        found.append(f'--llio "{",".join(options["llio"])}"')
    found.append("--restart" if spec.may_requeue else "--norestart")
    return [*found, *options.get("directives", ())]


def _nodes(spec: JobSpec) -> list[str]:
    """Nodes, cores, memory and GPUs as `-L` items."""
    shape, options = spec.resources, spec.site.options
    found = []
    # PJM's Mi is 2^20 bytes, like our M; its M is 10^6.
    memory = f"{-(-shape.memory_per_node // 1024**2)}Mi" if shape.memory_per_node else ""
    if _allocation(options) == "node":
        numbers, how = _read_shape(options)
        found.append(f"node={numbers or shape.num_nodes}{how}")
        found += [f"node-mem={memory}"] if memory else []
    elif _allocation(options) == "vnode":
        found += [f"vnode={shape.num_nodes}", f"vnode-core={shape.cores_per_node}"]
        found += [f"vnode-mem={memory}"] if memory else []
    if shape.gpus_per_node and options.get("gpu_item"):
        found.append(f"{options['gpu_item']}={shape.gpus_per_node}")
    return found


def _mpi(spec: JobSpec) -> list[str]:
    shape, options = spec.resources, spec.site.options
    items = [f"proc={shape.ranks}"]
    if _allocation(options) == "node":  # it is refused for virtual nodes
        items.append(f"max-proc-per-node={shape.ranks_per_node}")
    return [*items, *options.get("mpi", ())]


def _allocation(options: Mapping[str, Any]) -> str:
    return str(options.get("allocation", "node"))


def _read_shape(options: Mapping[str, Any]) -> tuple[str, str]:
    """The numbers (`2x3`) and the manner (`:torus`) of `node_shape`; each may be empty."""
    match = _SHAPE.fullmatch(str(options.get("node_shape", "")))
    return (match[1] or "", match[2]) if match else ("", "")


def _extra(options: Mapping[str, Any]) -> Mapping[str, str]:
    extra: Mapping[str, str] = options.get("resources") or {}
    return extra


# --- what cannot be honoured


def problems(spec: JobSpec) -> list[str]:
    """A sentence for each part of this job that PJM cannot honour."""
    options = spec.site.options
    named = [
        ("queue", spec.site.queue),
        ("project", spec.site.project),
        *((f"pjm.{name}", str(options.get(name, ""))) for name in ("rscunit", "gpu_item")),
        *(("pjm.mpi", item) for item in options.get("mpi", ())),
        *(("pjm.llio", item) for item in options.get("llio", ())),
    ]
    found = [text for what, value in named for text in value_problems(what, value)]
    found += _path_problems(spec.work_dir)
    found += _shape_problems(spec) + _unasked_problems(spec) + _item_problems(options)
    found += arrays.problems(spec)
    for volume in options.get("gfscache", ()):
        if not re.fullmatch(r"/[A-Za-z0-9_./-]+", volume, re.ASCII):
            found.append(f"pjm.gfscache {volume!r}: write one volume, such as /vol0004")
    found += _option_problems(options)
    if options.get("requeue") == "yes" and spec.secret_names:
        found.append(
            "pjm.requeue is 'yes', but the job has secrets: a job reads its"
            " secrets once, so a requeued one would have none; choose 'no', or use retries"
        )
    return found


def _path_problems(work_dir: str) -> list[str]:
    found = []
    if _REPLACED.search(work_dir):
        found.append(
            f"work_dir is {work_dir!r}: in the path of an output PJM replaces %j and similar by"
            " values of the job; choose another work_dir"
        )
    if not work_dir.isprintable():
        found.append(f"work_dir is {work_dir!r}: pjsub takes no path with control characters")
    return found


def _shape_problems(spec: JobSpec) -> list[str]:
    options, nodes = spec.site.options, spec.resources.num_nodes
    given, allocation = str(options.get("node_shape", "")), _allocation(options)
    if given and allocation != "node":
        return [
            f"pjm.node_shape is set, but pjm.allocation is {allocation!r}: set it to 'node', which"
            " alone has a shape, or remove the shape"
        ]
    if not _SHAPE.fullmatch(given):
        return [f"pjm.node_shape is {given!r}: write it as 2x3, :torus or 2x3x2:torus:strict"]
    numbers, _ = _read_shape(options)
    held = math.prod(int(number) for number in numbers.split("x")) if numbers else nodes
    if held != nodes:
        return [
            f"pjm.node_shape is {given!r}, which is {held} nodes, but the job has {nodes}: set"
            " num_nodes in the execution profile, or leave the numbers out of the shape"
        ]
    return []


def _unasked_problems(spec: JobSpec) -> list[str]:
    """What must be asked for, as the profile does not say that a node has it, but cannot be."""
    shape, site, options = spec.resources, spec.site, spec.site.options
    found = []
    if shape.gpus_per_node > site.gpus_per_node and not options.get("gpu_item"):
        found.append(
            f"{shape.gpus_per_node} GPUs are asked for, but pjm.gpu_item is not set and the HPC"
            " profile does not say that a node has them: set pjm.gpu_item to the site's -L item"
            " for GPUs, or gpus_per_node of the HPC profile"
        )
    if _allocation(options) != "none":
        return found
    if shape.num_nodes > 1:
        found.append(
            f"num_nodes is {shape.num_nodes}, but pjm.allocation is 'none', which asks for no"
            " nodes: choose 'node' or 'vnode', or one node"
        )
    asked = (
        ("cores_per_node", shape.cores_per_node, max(site.cores_per_node, 1), str),
        ("memory_per_node", shape.memory_per_node, site.memory_per_node, write_memory),
    )
    return found + [
        f"{field} {write(wanted)} cannot be asked for, because pjm.allocation is 'none': if each"
        f" job of this site gets as much unasked, set {field} of the HPC profile"
        for field, wanted, has, write in asked
        if wanted > has
    ]


def _item_problems(options: Mapping[str, Any]) -> list[str]:
    found = []
    for name, value in _extra(options).items():
        what = f"pjm.resources {name!r}"
        if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_.-]*", name, re.ASCII):
            found.append(f"{what}: this is not the name of an item of pjsub's -L")
        elif name in _OURS:
            found.append(f"{what}: {_OURS[name]}")
        elif name == options.get("gpu_item"):
            found.append(f"{what}: set gpus_per_node in the execution profile")
        elif not value or "," in value:
            found.append(f"{what} is {value!r}: give a value without a comma")
        found += value_problems(what, value)
    for item in options.get("mpi", ()):
        for part in item.split(","):
            if part.partition("=")[0] in _MPI_OURS:
                found.append(f"pjm.mpi {item!r}: set ranks_per_node in the execution profile")
    return found


def _option_problems(options: Mapping[str, Any]) -> list[str]:
    """What is wrong with the user's own options, in the script and on the command line."""
    lines: Sequence[str] = options.get("directives", ())
    words: Sequence[str] = options.get("command_options", ())
    found = [text for line in lines for text in line_problems("pjm.directives", line)]
    found += refused_options("pjm.directives", lines, _REFUSED)
    found += [
        f"pjm.directives {line[:40] + '...'!r}: pjsub reads lines of up to {_LONGEST_LINE} bytes"
        for line in lines
        if len(f"#PJM {line}".encode(errors="replace")) > _LONGEST_LINE
    ]
    for word in words:
        if not re.fullmatch(r"--[A-Za-z][A-Za-z0-9-]*(=[^\s'\"]+)?", word, re.ASCII):
            found.append(
                f"pjm.command_options {word!r}: give each option of pjsub as one word in its long"
                " form, such as --no-check-directory"
            )
        elif word in _WITH_VALUE:
            found.append(
                f"pjm.command_options {word!r}: this option needs a value, and pjsub would take the"
                " script for it; write option and value in pjm.directives"
            )
    return found + refused_options("pjm.command_options", words, _REFUSED)


# --- the answer


def submission(reply: Reply) -> Submission:
    """What became of a submission. It was refused only if the code is one of `_REFUSALS`."""
    ids = _SUBMITTED.findall(reply.stdout)
    if reply.code == 0 and len(ids) == 1:
        return Accepted(ids[0])
    text = f"{reply.stdout}\n{reply.stderr}"
    codes = set(_ERROR.findall(text))
    if not reply.code or "submitted" in text or not codes:
        return Unclear(reply.said)
    if _FULL in codes and codes <= _REFUSALS | {_FULL}:
        return Refused(_errors(text), full=True)
    if not codes <= _REFUSALS:
        return Unclear(reply.said)
    closed = "pjsub-bulk" in text
    return Refused(_errors(text) + (_BULK_IS_CLOSED if closed else ""))


def _errors(text: str) -> str:
    """PJM's own words, without its hint to `--help`."""
    lines = (line.strip() for line in text.splitlines())
    return "\n".join(line for line in lines if line and not line.startswith("Try `"))
