"""A job's `#PBS` lines, what of the job PBS cannot honour, and how `qsub`'s answer is read."""

from __future__ import annotations

import getopt
import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from hpc_prefect.job.dialogue import Reply
from hpc_prefect.job.spec import JobSpec, write_memory, write_walltime
from hpc_prefect.schedulers.base import Accepted, Refused, Submission, Unclear
from hpc_prefect.schedulers.directives import line_problems, value_problems
from hpc_prefect.schedulers.pbs import arrays

#: What a `select` chunk may ask for; the site's profile says which of them it takes.
CHUNK_ITEMS = ("ncpus", "mpiprocs", "ompthreads", "mem", "ngpus")

#: `-l` resources that the execution profile decides.
_OURS = ("select", "nodes", "nodect", "place", "walltime", "ncpus", "mem", "ngpus", "ppn")

#: The options of qsub(1), as its getopt reads them.
_OPTIONS = "a:A:c:C:e:fhIj:J:k:l:m:M:N:o:p:q:r:R:S:u:v:VW:XzP:G"

_REFUSED = {
    "-N": "hpc-prefect sets the name, to find the job by it",
    **dict.fromkeys(("-o", "-e", "-j", "-R"), "hpc-prefect puts all output into the job folder"),
    "-J": "one call is one job; for many: run_jobs_from_blocks",
    **dict.fromkeys(("-I", "-X", "-G"), "nobody types in an interactive job of a flow"),
    "-z": "qsub would then not print the job's id",
    "-C": "the other #PBS lines would no longer be read",
    "-S": "the script itself says that it is one for bash",
    "-V": "PBS damages the values of variables; set environment in the HPC profile",
    "-l": "set the execution profile, or pbs.extra_l, pbs.extra_select or pbs.place",
    "-q": "set queue_cpu or queue_gpu",
    "-r": "set pbs.requeue",
}
#: Attributes that `-W name=value` could set instead of the options above. In small letters: PBS
#: ignores case. It takes every attribute of a job there; the manual has no list of them.
_REFUSED_ATTRIBUTES = {
    "block": "qsub would wait for the job's end",
    **dict.fromkeys(
        ("interactive", "forward_x11", "forward_x11_cookie", "forward_x11_port"),
        "nobody types in an interactive job of a flow",
    ),
    **dict.fromkeys(("stagein", "stageout"), "declare inputs and expected_outputs"),
    **dict.fromkeys(
        ("output_path", "error_path", "join_path", "keep_files", "remove_files", "sandbox"),
        "hpc-prefect puts all output into the job folder",
    ),
    "job_name": "hpc-prefect sets the name, to find the job by it",
    "rerunable": "set pbs.requeue",
    "resource_list": "set the execution profile, or pbs.extra_l",
    "queue": "set queue_cpu or queue_gpu",
    **dict.fromkeys(
        ("array_indices_submitted", "array_indices_remaining", "array", "max_run_subjobs"),
        "one call is one job; for many: run_jobs_from_blocks",
    ),
    **dict.fromkeys(
        ("shell_path_list", "executable", "argument_list"),
        "the script itself says that it is one for bash",
    ),
    "variable_list": "PBS damages the values of variables; set environment in the HPC profile",
}

#: The attribute by which `-W` could set the same as each option for the project.
_ACCOUNT_ATTRIBUTES = {"-A": "account_name", "-P": "project", "-W group_list": "group_list"}

#: PBS keeps paths in 1024 bytes; the job folder is this much longer than `work_dir`.
_LONGEST_WORK_DIR = 800

_JOB_ID = re.compile(r"\d+(\[\])?(\.[A-Za-z0-9][A-Za-z0-9._-]*)?", re.ASCII)

_ARRAY_TOO_LARGE = 3
#: Exit status and words of a `qsub` that has surely made no job; the status is the error modulo 256
#: (`pbs_error.h`). Those that were not seen are from the source. Anything else is unclear: the
#: connection (160, 162, 163, 183, 186, 212) may have broken after the job was made.
_REFUSALS: dict[int, str] = {
    1: r"directive error|script file::|script not a file|script contains cr|cannot send environment"
    r"|unmatched ",
    2: r"usage:|illegal -|invalid option|name is too long|illegally formed destination",
    _ARRAY_TOO_LARGE: r"Array job exceeds",
    4: r"Resource invalid in \"select\" specification",
    5: r"cannot be used with \"select\" or \"place\"",
    6: r"Cannot be used with select or place",
    7: r"Cannot have \"place\" without \"select\"",
    12: r"duplicated resource within a section",
    32: r"\S",  # a hook of the site refused the job before it was made; it may say anything
    40: r"attribute value is out of range",
    69: r"name is too long",
    71: r"jobscript size exceeded",
    154: r"Undefined attribute",
    159: r"Unauthorized Request",
    166: r"Illegal attribute or resource value",
    170: r"Unknown queue",
    173: r"Queue is not enabled",
    174: r"Access to queue is denied",
    175: r"Bad UID for job execution",
    187: r"Unknown resource",
    188: r"Job violates queue and/or server resource limits",
    189: r"No default queue specified",
    191: r"Job rejected by all possible destinations",
    197: r"Bad GID for job execution",
    200: r"Resource limit exceeds allowable",
    201: r"Invalid Account",
    206: r"Invalid Job Dependency",
}
#: The same for refusals because too many jobs wait.
_FULL: dict[int, str] = {
    38: r"would exceed .* limit|Maximum number of jobs already in",
    39: r"would exceed .* limit on resource|would exceed limit on resource",
    198: r"Maximum number of jobs already in queue",
}


def directives(spec: JobSpec) -> list[str]:
    """The options that stand in the script, without their prefix."""
    site, options = spec.site, spec.site.options
    found = [f"-q {site.queue}"] if site.queue else []
    if site.project:
        flag = str(options.get("account_flag", "-A"))
        found.append(f"{flag}={site.project}" if " " in flag else f"{flag} {site.project}")
    found += [f"-l {resource}" for resource in _resources(spec)]
    found.append(f"-l walltime={write_walltime(spec.resources.walltime)}")
    if options.get("place"):
        found.append(f"-l place={options['place']}")
    found += [f"-l {name}={value}" for name, value in _extra(options, "extra_l").items()]
    if spec.array:
        found += arrays.directives(spec.array)
    else:
        found.append("-r y" if spec.may_requeue else "-r n")
    return [*found, *options.get("directives", ())]


def _extra(options: Mapping[str, Any], name: str) -> Mapping[str, str]:
    extra: Mapping[str, str] = options.get(name) or {}
    return extra


def _style(spec: JobSpec) -> str:
    return str(spec.site.options.get("resource_style", "select"))


def _chunk(spec: JobSpec) -> Sequence[str]:
    taken: Sequence[str] = spec.site.options.get("chunk", CHUNK_ITEMS)
    return taken


def _resources(spec: JobSpec) -> list[str]:
    """Nodes, cores, memory and GPUs as `-l` resources."""
    shape = spec.resources
    if _style(spec) == "select":
        wanted = {
            "ncpus": str(shape.cores_per_node),
            "mpiprocs": str(shape.ranks_per_node),
            "ompthreads": str(shape.threads_per_rank),
            "mem": _memory(shape.memory_per_node) if shape.memory_per_node else "",
            "ngpus": str(shape.gpus_per_node) if shape.gpus_per_node else "",
        }
        items = {name: wanted[name] for name in _chunk(spec) if wanted[name]}
        items |= _extra(spec.site.options, "extra_select")
        chunk = "".join(f":{name}={value}" for name, value in items.items())
        return [f"select={shape.num_nodes}{chunk}"]
    nodes = shape.num_nodes
    memory = [f"mem={_memory(shape.memory_per_node * nodes)}"] if shape.memory_per_node else []
    if _style(spec) == "nodes_ppn":
        with_gpus = f":gpus={shape.gpus_per_node}" if shape.gpus_per_node else ""
        return [f"nodes={nodes}:ppn={shape.cores_per_node}{with_gpus}", *memory]
    # `ncpus` is a total that does not say how many nodes, so several nodes are asked for whole.
    cores = shape.cores_per_node if nodes == 1 else nodes * spec.site.cores_per_node
    gpus = [f"ngpus={nodes * shape.gpus_per_node}"] if shape.gpus_per_node else []
    return [f"ncpus={cores}", *memory, *gpus]


def _memory(size: int) -> str:
    return f"{-(-size // 1024)}kb"


# --- what cannot be honoured


def problems(spec: JobSpec) -> list[str]:
    """A sentence for each part of this job that PBS cannot honour."""
    options = spec.site.options
    named = {
        "queue": spec.site.queue,
        "project": spec.site.project,
        "pbs.place": str(options.get("place", "")),
    }
    found = [text for what, value in named.items() for text in value_problems(what, value)]
    found += _path_problems(spec.work_dir) + _line_end_problems(spec)
    found += _chunk_problems(spec) if _style(spec) == "select" else _other_style_problems(spec)
    found += _extra_problems(options) + arrays.problems(spec)
    for line in options.get("directives", ()):
        found += _directive_problems(line, str(options.get("account_flag", "-A")))
    if options.get("requeue") == "yes" and spec.secret_names:
        found.append(
            "pbs.requeue is 'yes', but the job has secrets: a job reads its"
            " secrets once, so a requeued one would have none; choose 'no', or use retries"
        )
    return found


def _path_problems(work_dir: str) -> list[str]:
    if not (work_dir.isascii() and work_dir.isprintable()):
        return [
            f"work_dir is {work_dir!r}: PBS takes no path with other characters than printable"
            " ASCII; choose another work_dir"
        ]
    if len(work_dir) > _LONGEST_WORK_DIR:
        return [
            f"work_dir has {len(work_dir)} characters, and PBS cuts long paths: choose one of at"
            f" most {_LONGEST_WORK_DIR}"
        ]
    return []


def _line_end_problems(spec: JobSpec) -> list[str]:
    """`qsub` takes no script in which a line ends with CR-LF, even within a quoted value."""
    program, site = spec.executable, spec.site
    named = [("the executable's path", program.path), ("the launcher", site.launcher)]
    for what, texts in (
        ("an argument", spec.arguments),
        ("an input", spec.inputs),
        ("an expected output", spec.expected_outputs),
        ("a module", (*site.modules, *program.modules)),
    ):
        named += [(what, text) for text in texts]
    for values in (site.environment, program.environment, spec.environment):
        named += [(f"environment {name}", value) for name, value in values.items()]
    for name, folders in program.path_prefixes.items():
        named += [(f"path_prefixes {name}", folder) for folder in folders]
    # These are lines of the script themselves.
    lines = [("a line of setup", f"{line}\n") for line in (*site.setup, *program.setup)]
    lines += [("a line of teardown", f"{line}\n") for line in site.teardown]
    return [
        f"{what} is {text[:60].removesuffix(chr(10))!r}: qsub takes no script that holds CR-LF, the"
        " end of a line on Windows; remove the CR, or give the value in a file"
        for what, text in named + lines
        if "\r\n" in text
    ]


def _chunk_problems(spec: JobSpec) -> list[str]:
    """What must be asked for, as the profile does not say that a node has it, but cannot be."""
    shape, site, chunk = spec.resources, spec.site, _chunk(spec)
    asked = (
        ("ncpus", "cores_per_node", shape.cores_per_node, site.cores_per_node, str),
        ("mem", "memory_per_node", shape.memory_per_node, site.memory_per_node, write_memory),
        ("ngpus", "gpus_per_node", shape.gpus_per_node, site.gpus_per_node, str),
    )
    found = []
    for item, field, wanted, has, write in asked:
        # One core is in every chunk.
        if item not in chunk and wanted > max(has, 1 if item == "ncpus" else 0):
            found.append(
                f"{write(wanted)} is asked for ({field}), but pbs.chunk leaves out {item!r} and"
                f" the HPC profile does not say that a node has it: set {field} of the HPC profile"
            )
    return found


def _other_style_problems(spec: JobSpec) -> list[str]:
    shape, style, options = spec.resources, _style(spec), spec.site.options
    found = [
        f"pbs.{name} is set, but pbs.resource_style is {style!r}: only 'select' has it"
        for name in ("place", "extra_select")
        if options.get(name)
    ]
    if style == "flat" and shape.num_nodes > 1 and not spec.site.cores_per_node:
        found.append(
            f"num_nodes is {shape.num_nodes}, but pbs.resource_style 'flat' asks for cores in all:"
            " set cores_per_node of the HPC profile, so that whole nodes can be asked for"
        )
    return found


def _extra_problems(options: Mapping[str, Any]) -> list[str]:
    found = []
    # `ends`: characters that would begin another item, resource or chunk.
    for field, ours, ends in (("extra_select", CHUNK_ITEMS, ":+,"), ("extra_l", _OURS, ",")):
        for name, value in _extra(options, field).items():
            what = f"pbs.{field} {name!r}"
            if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_.-]*", name, re.ASCII):
                found.append(f"{what}: this is no name of a PBS resource")
            elif name in ours:
                found.append(f"{what}: it is written from the execution profile; remove it")
            elif not value or set(value) & set(ends):
                found.append(f"{what} is {value!r}: give a value without any of {ends}")
            found += value_problems(what, value)
    return found


def _directive_problems(line: str, account_flag: str) -> list[str]:
    """What is wrong with a directive of the user, which may hold several options."""
    what = "pbs.directives"
    if found := line_problems(what, line):
        return found
    try:
        given, rest = getopt.getopt(shlex.split(line), _OPTIONS)
    except (getopt.GetoptError, ValueError) as error:
        return [f"{what} is {line!r}: qsub cannot read this ({error})"]
    if rest or "--" in shlex.split(line):
        return [f"{what} is {line!r}: give options only; hpc-prefect writes the script"]
    cannot = [_why_not(option, value, account_flag) for option, value in given]
    return [f"{what} {line!r} cannot be given: {why}" for why in cannot if why]


def _why_not(option: str, value: str, account_flag: str) -> str:
    if option in _REFUSED:
        return _REFUSED[option]
    if option == "-k" and value != "n" and "d" not in value:
        return "the output would stay on the node; with d (as in doe) it is written directly"
    if option == "-v" and any("=" not in part for part in re.split(r"(?<!\\),", value)):
        return "the flow's own value would be taken, whatever it holds; write NAME=value"
    account = _ACCOUNT_ATTRIBUTES[account_flag]
    if option == "-W":
        # Split as qsub does: `a=b,c=d`, where a value may itself hold commas.
        names = [part.partition("=")[0].strip().lower() for part in value.split(",") if "=" in part]
        if account in names:
            return "set project_cpu or project_gpu"
        return next((_REFUSED_ATTRIBUTES[n] for n in names if n in _REFUSED_ATTRIBUTES), "")
    return "set project_cpu or project_gpu" if option == account_flag else ""


# --- the answer


def submission(reply: Reply, *, array: bool = False) -> Submission:
    """What became of a submission. Only a known sentence with its known status is a refusal."""
    lines = [line.strip() for line in reply.stdout.splitlines() if line.strip()]
    ids = [line for line in lines if _JOB_ID.fullmatch(line)]
    if reply.code == 0 and len(ids) == 1 and ("[]" in ids[0]) is array:
        return Accepted(ids[0])
    if reply.code is None or ids or not reply.stderr.strip():
        return Unclear(reply.said)
    said = "\n".join(line.removeprefix("qsub: ") for line in reply.stderr.strip().splitlines())
    said = said.partition("\nusage:")[0]
    if re.search(r"errno=|connect|Communication failure", reply.stderr):
        return Unclear(reply.said)
    if _matches(_FULL, reply):
        return Refused(said, full=True)
    if reply.code == _ARRAY_TOO_LARGE:
        said += "; set pbs.max_array_size of the HPC profile to what this site takes"
    return Refused(said) if _matches(_REFUSALS, reply) else Unclear(reply.said)


def _matches(table: Mapping[int, str], reply: Reply) -> bool:
    pattern = table.get(reply.code or 0)
    return pattern is not None and re.search(pattern, reply.stderr) is not None
