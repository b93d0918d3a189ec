"""What a job asks `sbatch` for: its `#SBATCH` lines, what Slurm cannot honour, and the answer.

Seen on Slurm 22.05; the words of the controller's refusals are also from its list of errors.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from typing import Any

from hpc_prefect.job.dialogue import Reply
from hpc_prefect.job.spec import JobSpec
from hpc_prefect.schedulers.base import Accepted, Refused, Submission, Unclear
from hpc_prefect.schedulers.directives import line_problems, refused_options, value_problems

_REFUSED_DIRECTIVES = {
    **dict.fromkeys(("-J", "--job-name"), "the job's name is how it is found again"),
    **dict.fromkeys(
        ("-o", "--output", "-e", "--error", "--open-mode"), "output goes to the job folder"
    ),
    **dict.fromkeys(("-D", "--chdir"), "the program runs in work_dir"),
    **dict.fromkeys(("-a", "--array"), "one call is one job"),
    **dict.fromkeys(("-M", "--clusters"), "the other commands would ask another cluster"),
    **dict.fromkeys(("-W", "--wait"), "the flow waits by itself"),
    **dict.fromkeys(
        ("-n", "--ntasks", "--ntasks-per-node"), "set ranks_per_node in the execution profile"
    ),
    **dict.fromkeys(("-c", "--cpus-per-task"), "set threads_per_rank in the execution profile"),
    **dict.fromkeys(("-t", "--time"), "set walltime in the execution profile"),
    **dict.fromkeys(("-N", "--nodes"), "set num_nodes in the execution profile"),
    **dict.fromkeys(("-A", "--account"), "set project_cpu or project_gpu"),
    **dict.fromkeys(("-p", "--partition"), "set queue_cpu or queue_gpu"),
    **dict.fromkeys(("--mem", "--mem-per-cpu"), "set memory_per_node in the execution profile"),
    **dict.fromkeys(("--requeue", "--no-requeue"), "set slurm.requeue"),
    "--qpu": "set slurm.qpu, which is checked against slurm.site_qpus",
    "--wrap": "the script is ours",
    "--test-only": "the job would not be submitted",
    "--parsable": "it is given",
}
#: sbatch's short options without a value.
_FLAGS = "hHkOQsvV"

_JOB_ID = re.compile(r"[0-9]{1,18}")

#: What the controller answers when it has looked at a job and does not take it (slurm_errno.c).
#: Anything else may have been said by the connection, while the job exists.
_REFUSAL = re.compile(
    r"Invalid|Requested|Required|More (processors|nodes)|Too many|Unsupported|Incompatible|Missing"
    r"|Job (violates|dependency|size|script|cannot)|Memory|Node count|Task count|No partition"
    r"|Access/permission denied|User's group|Unspecified error|Reservation|Expired|Licenses"
    r"|Pathname|Batch job script|Unable to allocate|Duplicate|Feature|Only one|Burst buffer"
)
_SUBMISSION_FAILED = re.compile(r"Batch job submission failed: (.*)")
#: QOSMaxSubmitJobPerUserLimit, AssocGrpSubmitJobsLimit …: too many jobs wait, not a wrong job.
#: The last one is MaxJobCount, of all users' jobs: the controller's answer to each of many tries.
_FULL = re.compile(r"\w*SubmitJobs?\w*Limit|unable to accept job.*Resource temporarily", re.S)


def directives(spec: JobSpec) -> list[str]:
    """The options of the `#SBATCH` lines, without that word."""
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
    return [*found, *options.get("directives", ())]


def _walltime(seconds: int) -> str:
    days, rest = divmod(seconds, 86400)
    return f"{days}-{rest // 3600:02}:{rest // 60 % 60:02}:{rest % 60:02}"


def problems(spec: JobSpec) -> list[str]:
    """What of this job Slurm cannot honour, a sentence each."""
    options = spec.site.options
    named = {
        "queue": spec.site.queue,
        "project": spec.site.project,
        **{f"slurm.{name}": options.get(name, "") for name in ("qos", "reservation")},
        **{f"slurm.{name}": options.get(name, "") for name in ("constraint", "gpu_type")},
    }
    found = [text for what, value in named.items() for text in value_problems(what, value)]
    if "\\" in spec.work_dir:  # it would also end the reading of %% in the path
        found.append(
            f"work_dir is {spec.work_dir!r}: Slurm cannot write output below it, because it"
            " drops backslashes from such paths; choose a folder without one"
        )
    found += _qpu_problems(options)
    lines = options.get("directives", ())
    for line in lines:
        found += line_problems("slurm.directives", line)
    found += refused_options("slurm.directives", lines, _REFUSED_DIRECTIVES, flags=_FLAGS)
    if options.get("requeue") == "yes" and spec.secret_names:
        found.append(
            "slurm.requeue is 'yes', but the job has secrets: a job reads its"
            " secrets once, so a requeued one would have none; choose 'no', or use retries"
        )
    return found


def _qpu_problems(options: Mapping[str, Any]) -> list[str]:
    """What is wrong with the QPUs; the plug-in would run the job without those it does not know."""
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
    job_id = reply.stdout.strip().partition(";")[0]  # "ID;CLUSTER" where there are several
    if reply.code == 0 and _JOB_ID.fullmatch(job_id):
        return Accepted(job_id)
    if reply.code in (1, 255) and not job_id and _is_refusal(reply.stderr):
        return Refused(_without_prefix(reply.stderr), full=bool(_FULL.search(reply.stderr)))
    return Unclear(reply.said)


def _is_refusal(stderr: str) -> bool:
    """Whether the job does not exist, for sure."""
    if failed := _SUBMISSION_FAILED.search(stderr):
        return bool(_REFUSAL.match(failed[1]) or _FULL.search(stderr))
    # Before anything was sent: options or script are not as they must be.
    return stderr.startswith("sbatch: ") and "fatal" not in stderr and "contact" not in stderr


def _without_prefix(stderr: str) -> str:
    return "\n".join(line.removeprefix("sbatch: error: ") for line in stderr.strip().splitlines())
