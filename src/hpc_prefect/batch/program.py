"""Which program a job runs: the content of the executable, and of its container images."""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Iterator, Mapping
from typing import Any

from hpc_prefect.job.result import JobResult
from hpc_prefect.job.spec import JobSpec
from hpc_prefect.records.write.digests import file_facts

#: Endings of the files that hold a container: Apptainer's, squashfs as enroot and Sarus have it.
_IMAGES = (".sif", ".sqsh", ".squashfs", ".img", ".simg")


def program_facts(spec: JobSpec) -> dict[str, Any]:
    """The executable and the images on its launcher's line, with their digests. Blocks.

    Only files that this host sees have a digest. A process reads each file once, and again when it
    has changed.
    """
    images = [file_facts(path, remember=True) for path in _images(spec)]
    program = file_facts(_path_of(spec), remember=True)
    return {"program": program, **({"images": images} if images else {})}


def _path_of(spec: JobSpec) -> str:
    """The executable's path; its bare name when only set-up lines decide the path."""
    path, executable = spec.executable.path, spec.executable
    unknown = executable.modules or executable.setup or spec.site.modules or spec.site.setup
    if "/" in path or unknown or spec.site.scheduler != "local":
        return path
    prefixes = executable.path_prefixes.get("PATH", ())
    searched = os.pathsep.join([*prefixes, os.environ.get("PATH", "")])
    return shutil.which(path, path=searched) or path


def _images(spec: JobSpec) -> Iterator[str]:
    try:
        words = shlex.split(spec.site.launcher)
    except ValueError:
        words = spec.site.launcher.split()
    for word in dict.fromkeys([*words, *spec.arguments]):
        if word.endswith(_IMAGES) and os.path.isfile(path := os.path.join(spec.work_dir, word)):
            yield path


def content_of(program: Mapping[str, Any]) -> list[Any]:
    """What a different build of a program changes; not where or when it was built."""
    files = [program["program"], *program.get("images", ())]
    return [[each.get("size"), each.get("sha256")] for each in files]


def rebuilt_since(record: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """How the program of an earlier run's result differs from today's, in words; else empty.

    Args:
        record: the job's own record.
        now: `program_facts` of the call.
    """
    then = record.get("program")
    if not isinstance(then, Mapping) or "sha256" not in then or "sha256" not in now["program"]:
        return ""
    if content_of({"program": then, "images": record.get("images") or ()}) == content_of(now):
        return ""
    if then["sha256"] == now["program"]["sha256"]:
        return "a container image that it uses has changed"
    return (
        f"{now['program']['path']} was rebuilt: its SHA-256 was {then['sha256'][:12]}…,"
        f" and is {now['program']['sha256'][:12]}…"
    )


def warning_of(result: JobResult, difference: str) -> str:
    """The warning about a result that another build of the program made."""
    return (
        f"this is the result of an earlier run ({result.folder}), and its program has changed"
        f" since: {difference}. To have such jobs run again, set rebuilt_program = 'rerun' in the"
        " HPC profile, or begin another campaign"
    )
