"""What a job asks `sbatch` for: its `#SBATCH` lines, what Slurm cannot honour, and the answer.

Seen on Slurm 22.05; the words of the controller's refusals are also from its list of errors.
"""

from __future__ import annotations

import difflib
import re
import shlex
from collections.abc import Mapping
from typing import Any

from hpc_prefect.job.dialogue import Reply
from hpc_prefect.job.spec import JobSpec
from hpc_prefect.schedulers.base import Accepted, Refused, Submission, Unclear
from hpc_prefect.schedulers.directives import line_problems, refused_options, value_problems

_REFUSED_DIRECTIVES = {
    **dict.fromkeys(("-J", "--job-name"), "hpc-prefect sets the name, to find the job by it"),
    **dict.fromkeys(
        ("-o", "--output", "-e", "--error", "--open-mode"),
        "hpc-prefect puts all output into the job folder",
    ),
    **dict.fromkeys(("-D", "--chdir"), "the program runs in work_dir"),
    **dict.fromkeys(("-a", "--array"), "one call is one job; for many: run_jobs_from_blocks"),
    **dict.fromkeys(("-M", "--clusters"), "set slurm.cluster, which all commands are given"),
    **dict.fromkeys(("-W", "--wait"), "the flow itself waits for the job"),
    **dict.fromkeys(
        ("-n", "--ntasks", "--ntasks-per-node", "--tasks-per-node"),
        "set ranks_per_node in the execution profile",
    ),
    **dict.fromkeys(("-c", "--cpus-per-task"), "set threads_per_rank in the execution profile"),
    **dict.fromkeys(("-t", "--time"), "set walltime in the execution profile"),
    **dict.fromkeys(("-N", "--nodes"), "set num_nodes in the execution profile"),
    **dict.fromkeys(("-A", "--account"), "set project_cpu or project_gpu"),
    **dict.fromkeys(("-p", "--partition"), "set queue_cpu or queue_gpu"),
    **dict.fromkeys(
        ("--mem", "--mem-per-cpu", "--mem-per-gpu"), "set memory_per_node in the execution profile"
    ),
    **dict.fromkeys(
        ("--export", "--export-file"),
        "a job has none of the flow's variables; set environment in the HPC profile",
    ),
    "--get-user-env": "set login_shell in the HPC profile",
    **dict.fromkeys(("--uid", "--gid"), "job and job folder must belong to you"),
    "--external": "the job's script would then not be run",
    **dict.fromkeys(("--requeue", "--no-requeue"), "set slurm.requeue"),
    "--qpu": "set slurm.qpu, which is checked against slurm.site_qpus",
    "--wrap": "hpc-prefect writes the script",
    **dict.fromkeys(
        ("--test-only", "-h", "--help", "--usage", "-V", "--version", "--autocomplete"),
        "then no job would be submitted",
    ),
    "--parsable": "it is given",
}
#: Variables that sbatch heeds (sbatch(1), "INPUT ENVIRONMENT VARIABLES"), each with its option and
#: the profile's field for it; an empty field: write it among the directives.
_HEEDED = {
    "SBATCH_ACCOUNT": ("--account", "project_cpu or project_gpu of the HPC profile"),
    "SBATCH_PARTITION": ("--partition", "queue_cpu or queue_gpu of the HPC profile"),
    "SBATCH_MEM_PER_NODE": ("--mem", "memory_per_node in the execution profile"),
    "SBATCH_MEM_PER_CPU": ("--mem", "memory_per_node in the execution profile"),
    "SBATCH_MEM_PER_GPU": ("--mem", "memory_per_node in the execution profile"),
    "SBATCH_GPUS_PER_NODE": ("--gpus-per-node", "gpus_per_node in the execution profile"),
    "SBATCH_QOS": ("--qos", "slurm.qos"),
    "SBATCH_RESERVATION": ("--reservation", "slurm.reservation"),
    "SBATCH_CONSTRAINT": ("--constraint", "slurm.constraint"),
    "SBATCH_EXCLUSIVE": ("--exclusive", "slurm.exclusive"),
    "SBATCH_REQUEUE": ("--requeue", "slurm.requeue"),
    "SBATCH_NO_REQUEUE": ("--no-requeue", "slurm.requeue"),
    **{
        f"SBATCH_{option.upper().replace('-', '_')}": (f"--{option}", "")
        for option in (
            *(
                "acctg-freq",
                "batch",
                "cluster-constraint",
                "container",
                "container-id",
                "core-spec",
            ),
            *("cpus-per-gpu", "delay-boot", "distribution", "gres", "gres-flags", "gpus"),
            *("gpu-bind", "gpu-freq", "gpus-per-socket", "gpus-per-task", "hint", "network"),
            *("no-kill", "overcommit", "power", "profile", "runtime", "signal", "spread-job"),
            *("thread-spec", "threads-per-core", "tres-bind", "tres-per-task", "use-min-nodes"),
            *("wait-all-nodes", "wckey", "consolidate-segments", "spread-segments"),
        )
    },
    "SBATCH_BURST_BUFFER": ("--bb", ""),
    "SBATCH_CPU_FREQ_REQ": ("--cpu-freq", ""),
    "SBATCH_REQ_SWITCH": ("--switches", ""),
    "SBATCH_WAIT4SWITCH": ("--switches", ""),
    "SBATCH_SEGMENT_SIZE": ("--segment", ""),
}
#: sbatch's short options without a value.
_FLAGS = "HkOQsuv"

#: What sbatch, and so the job, inherits of the flow's environment: what every process of a user
#: has, and what proves to Slurm, or to a plug-in for Kerberos, who asks. `--export=NIL` would be
#: simpler, but Slurm has it only since 23.02.3. With NONE or a list of names the node runs the
#: login profile, and if that fails the job has no environment.
INHERITS = (
    *("HOME", "USER", "LOGNAME", "SHELL", "PATH", "TZ", "LANG", "LANGUAGE", "LC_*"),
    *("SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_JWT", "SLURM_SACK_*"),
    *("KRB5CCNAME", "KRB5_CONFIG"),
)
#: Variables that the job must not have, inherited or set by a site's plug-in: the submitter's
#: token, and variables that make srun keep the job's environment from the program.
UNSET = ("SLURM_JWT", "SLURM_EXPORT_ENV", "SRUN_EXPORT_ENV")

_SRUN_EXPORT = re.compile(r"\bsrun\b.*?\s--exp\w*[=\s]\s*(\S+)")

_JOB_ID = re.compile(r"[0-9]{1,18}")

#: The controller's answers when it refuses a job (slurm_errno.c). Any other text may come from a
#: broken connection, and the job may exist.
_REFUSAL = re.compile(
    r"Invalid|Requested|Required|More (processors|nodes)|Too many|Unsupported|Incompatible|Missing"
    r"|Job (violates|dependency|size|script|cannot)|Memory|Node count|Task count|No partition"
    r"|Access/permission denied|User's group|Unspecified error|Reservation|Expired|Licenses"
    r"|Pathname|Batch job script|Unable to allocate|Duplicate|Feature|Only one|Burst buffer"
)
#: The dynamic loader's exit code: sbatch did not begin, because a library is only on the flow's
#: LD_LIBRARY_PATH, which it does not get.
_NOT_LOADED = 127
_LOADER = re.compile(r"\S*sbatch: error while loading shared libraries: ")
_SUBMISSION_FAILED = re.compile(r"Batch job submission failed: (.*)")
#: QOSMaxSubmitJobPerUserLimit, AssocGrpSubmitJobsLimit …: too many jobs wait, the job is not wrong.
#: The last one is MaxJobCount, over all users' jobs: the controller's answer to each try.
_FULL = re.compile(r"\w*SubmitJobs?\w*Limit|unable to accept job.*Resource temporarily", re.S)


def directives(spec: JobSpec) -> list[str]:
    """The options of the `#SBATCH` lines, without `#SBATCH`."""
    shape, site, options = spec.resources, spec.site, spec.site.options
    found = [
        f"--nodes={shape.num_nodes}",
        f"--ntasks-per-node={shape.ranks_per_node}",
        f"--cpus-per-task={shape.threads_per_rank}",
        f"--time={_walltime(shape.walltime)}",
    ]
    if shape.memory_per_node:
        found.append(f"--mem={-(-shape.memory_per_node // 1024**2)}M")
    if shape.gpus_per_node:
        kind = f"{options['gpu_type']}:" if options.get("gpu_type") else ""
        gres = options.get("gpu_option") == "gres"
        wanted = f"{kind}{shape.gpus_per_node}"
        found.append(f"--gres=gpu:{wanted}" if gres else f"--gpus-per-node={wanted}")
    if site.queue:
        found.append(f"--partition={site.queue}")
    if site.project:
        found.append(f"--account={site.project}")
    for name in ("qos", "reservation", "constraint"):
        if options.get(name):
            found.append(f"--{name}={options[name]}")
    if options.get("exclusive"):
        found.append("--exclusive")
    if options.get("qpu"):
        found.append(f"--qpu={','.join(options['qpu'])}")
    found.append("--requeue" if spec.may_requeue else "--no-requeue")
    if spec.array:
        at_once = f"%{spec.array.at_once}" if spec.array.at_once else ""
        found.append(f"--array=0-{spec.array.size - 1}{at_once}")
    return [*found, *options.get("directives", ())]


def _walltime(seconds: int) -> str:
    days, rest = divmod(seconds, 86400)
    return f"{days}-{rest // 3600:02}:{rest // 60 % 60:02}:{rest % 60:02}"


def problems(spec: JobSpec) -> list[str]:
    """A sentence for each part of this job that Slurm cannot honour."""
    options = spec.site.options
    named = {
        "queue": spec.site.queue,
        "project": spec.site.project,
        **{f"slurm.{name}": options.get(name, "") for name in ("cluster", "qos", "reservation")},
        **{f"slurm.{name}": options.get(name, "") for name in ("constraint", "gpu_type")},
    }
    found = [text for what, value in named.items() for text in value_problems(what, value)]
    if "," in options.get("cluster", ""):
        found.append(f"slurm.cluster is {options['cluster']!r}: write one cluster")
    if "\\" in spec.work_dir:  # sbatch would also leave %% in the path as it is
        found.append(
            f"work_dir is {spec.work_dir!r}: Slurm cannot write output below it, because it"
            " drops backslashes from such paths; choose a folder without one"
        )
    found += _qpu_problems(options)
    lines = options.get("directives", ())
    for line in lines:
        found += line_problems("slurm.directives", line) or _reading_problems(line)
    found += refused_options("slurm.directives", lines, _REFUSED_DIRECTIVES, flags=_FLAGS)
    found += _export_problems(spec)
    if options.get("requeue") == "yes" and spec.secret_names:
        found.append(
            "slurm.requeue is 'yes', but the job has secrets: a job reads its"
            " secrets once, so a requeued one would have none; choose 'no', or use retries"
        )
    return found


def _reading_problems(line: str) -> list[str]:
    """What sbatch would not read in a directive: it stops there, or skips the rest."""
    if "#" in line:
        return [f"slurm.directives {line!r}: sbatch takes what follows a # for a comment"]
    try:
        words = shlex.split(line)
    except ValueError as error:
        return [f"slurm.directives {line!r}: {str(error).lower()}"]
    if "--" in words:
        return [f"slurm.directives {line!r}: sbatch reads no option after --"]
    return []


def _export_problems(spec: JobSpec) -> list[str]:
    """What would make srun keep the job's environment, with its secrets, from the program."""
    given = spec.site.environment | spec.executable.environment | spec.environment
    found = [
        f"{name} is in the environment of the profiles: srun would keep all other variables from"
        " the program; leave it out"
        for name in ("SLURM_EXPORT_ENV", "SRUN_EXPORT_ENV")
        if name in given or name in spec.secret_names
    ]
    for value in _SRUN_EXPORT.findall(spec.site.launcher):
        if not value.upper().startswith("ALL"):
            found.append(
                f"launcher has srun with --export={value}, which keeps environment and secrets from"
                " the program: leave it out, or write --export=ALL,NAME=value"
            )
    return found


def environment_problems(spec: JobSpec, environment: Mapping[str, str]) -> list[str]:
    """A sentence for each variable that sbatch would heed. It does not get them.

    With them a profile's jobs would differ from shell to shell. No sentence is needed for what the
    profile sets anyway, or this package always sets (name, output, walltime …).
    """
    asked = {re.split(r"[=\s]", line, maxsplit=1)[0] for line in directives(spec)}
    asked |= {"--requeue", "--no-requeue"} if asked & {"--requeue", "--no-requeue"} else set()
    found = []
    for name, (option, field) in _HEEDED.items():
        if name in environment and option not in asked:
            value = environment[name]
            where = field or f"slurm.directives ({option!r} …)"
            found.append(
                f"{name} is {value!r} where the flow runs, but a job is what its profiles say: set"
                f" {where}, or unset {name}"
            )
    for name in ("SBATCH_CLUSTERS", "SLURM_CLUSTERS"):
        if name in environment and not spec.site.options.get("cluster"):
            found.append(
                f"{name} is {environment[name]!r} where the flow runs, but the cluster of a job is"
                f" what its HPC profile says: set slurm.cluster, or unset {name}"
            )
    if environment.get("SBATCH_EXPORT", "NONE").upper() not in ("NONE", "NIL"):
        found.append(
            f"SBATCH_EXPORT is {environment['SBATCH_EXPORT']!r} where the flow runs, but a job has"
            " none of the flow's variables: set environment in the HPC profile, or unset it"
        )
    if "SBATCH_GET_USER_ENV" in environment and not spec.site.login_shell:
        found.append(
            "SBATCH_GET_USER_ENV is set where the flow runs: set login_shell in the HPC profile, or"
            " unset it"
        )
    return found


def _qpu_problems(options: Mapping[str, Any]) -> list[str]:
    """What is wrong with the QPUs. The plug-in would ignore those that it does not know."""
    asked, there = options.get("qpu", ()), options.get("site_qpus", ())
    if asked and not there:
        return [
            f"slurm.qpu is {asked!r}, but slurm.site_qpus is empty: list there what the site has,"
            " because Slurm does not say when it does not know a name"
        ]
    found = []
    for name in asked:
        found += value_problems("slurm.qpu", name)
        if "," in name or not name:
            found.append(f"slurm.qpu has {name!r}: write one name in each item")
        elif name not in there:
            near = difflib.get_close_matches(name, there, n=3, cutoff=0.6)
            guess = f"did you mean {' or '.join(map(repr, near))}?" if near else ""
            known = guess or f"there are: {', '.join(sorted(there))}"
            found.append(f"slurm.qpu has {name!r}, which is not in slurm.site_qpus; {known}")
    return found


def submission(reply: Reply) -> Submission:
    """What the answer of `sbatch --parsable` says about the job."""
    job_id = reply.stdout.strip().partition(";")[0]  # "ID;CLUSTER" when a cluster was named
    if reply.code == 0 and _JOB_ID.fullmatch(job_id):
        return Accepted(job_id)
    if reply.code == _NOT_LOADED and _LOADER.match(reply.stderr):
        return Refused(_without_prefix(reply.stderr))
    if reply.code in (1, 255) and not job_id and _is_refusal(reply.stderr):
        return Refused(_without_prefix(reply.stderr), full=bool(_FULL.search(reply.stderr)))
    return Unclear(reply.said)


def _is_refusal(stderr: str) -> bool:
    """Whether the job does not exist, for sure."""
    if failed := _SUBMISSION_FAILED.search(stderr):
        return bool(_REFUSAL.match(failed[1]) or _FULL.search(stderr))
    # Said before anything was sent: options or script are wrong.
    return stderr.startswith("sbatch: ") and "fatal" not in stderr and "contact" not in stderr


def _without_prefix(stderr: str) -> str:
    return "\n".join(line.removeprefix("sbatch: error: ") for line in stderr.strip().splitlines())
