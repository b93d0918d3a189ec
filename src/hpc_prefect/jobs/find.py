"""Job folders below a folder, and the one that a person means."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence

from hpc_prefect.errors import HpcPrefectError, TransportError, UnknownJob
from hpc_prefect.job import folder as names
from hpc_prefect.jobs.describe import printable
from hpc_prefect.jobs.known import KnownJob, name_of_campaign, read_job
from hpc_prefect.transports.base import Transport
from hpc_prefect.transports.local import LocalTransport

_ATTEMPT = re.compile(r".+-\d+", re.DOTALL)
_PREFIX = re.compile(r"[0-9a-f]{2}")


def list_jobs(
    folder: str | os.PathLike[str] = ".", *, campaign: str = "", transport: Transport | None = None
) -> list[KnownJob]:
    """The jobs below a folder, the newest last.

    A folder that is torn, foreign or not ours to read is a job too: its `problem` says why.

    Args:
        folder: a `work_dir`, its `.hpc-prefect`, a campaign's folder in it, or a job's.
        campaign: only the jobs of this one, by its name or its folder's, of all its instances.
    """
    transport = transport or LocalTransport()
    campaigns: dict[str, str | None] = {}
    jobs = []
    for path in job_folders(folder, transport):
        above = os.path.dirname(os.path.dirname(path))
        if above not in campaigns:
            campaigns[above] = _name(transport, path)
        jobs.append(read_job(path, transport, campaign_name=campaigns[above]))
    if campaign:
        jobs = [job for job in jobs if _belongs(job, campaign)]
    return sorted(jobs, key=lambda job: (job.created_at, job.folder.path))


def _name(transport: Transport, path: str) -> str | None:
    """None where it cannot be told: the job then says why."""
    try:
        return name_of_campaign(transport, path)
    except HpcPrefectError:
        return None


def _belongs(job: KnownJob, campaign: str) -> bool:
    stem, _, instance = job.campaign.rpartition(".")
    folder = job.campaign == campaign or (stem == campaign and instance.isdecimal())
    return folder or (job.campaign_name == campaign != "")


def job_folders(folder: str | os.PathLike[str], transport: Transport) -> list[str]:
    """The paths of the job folders in a `work_dir`, or in what is below it."""
    path = os.path.abspath(os.path.expanduser(os.fspath(folder)))
    if is_job_folder(path):
        return [path]
    if os.path.basename(os.path.dirname(path)) == names.ROOT:
        return _of_campaign(path, transport)
    if os.path.basename(path) != names.ROOT:
        path = f"{path.rstrip('/')}/{names.ROOT}"
    return [
        found
        for campaign in transport.list(path)
        if os.path.isdir(f"{path}/{campaign}")
        for found in _of_campaign(f"{path}/{campaign}", transport)
    ]


def is_job_folder(path: str) -> bool:
    """Whether a path is `…/.hpc-prefect/<campaign>/<2 hex>/<key>-<attempt>`."""
    parts = path.rstrip("/").split("/")
    return (
        len(parts) > 4
        and parts[-4] == names.ROOT
        and _PREFIX.fullmatch(parts[-2]) is not None
        and _ATTEMPT.fullmatch(parts[-1]) is not None
    )


def _of_campaign(campaign: str, transport: Transport) -> list[str]:
    """Samplings and loops have folders there too: those have no attempt in their names.

    A folder that cannot be listed is given itself, so that it shows.
    """
    found = []
    for prefix in _below(campaign, _PREFIX, transport):
        inside = prefix != campaign
        found += _below(prefix, _ATTEMPT, transport) if inside else [campaign]
    return found


def _below(path: str, pattern: re.Pattern[str], transport: Transport) -> list[str]:
    try:
        return [f"{path}/{name}" for name in transport.list(path) if pattern.fullmatch(name)]
    except TransportError:
        return [path]


def find_job(
    reference: str, folder: str | os.PathLike[str] = ".", jobs: Sequence[KnownJob] | None = None
) -> KnownJob:
    """The job that a person means.

    Args:
        reference: a path of a job's folder; the scheduler's id; the beginning of a key, with
            `-<attempt>` or without for the newest; the job's name, or its tag.
        folder: where to look, as for `list_jobs`; `jobs`: what was found there already.

    Raises:
        UnknownJob: it means none, or several, which the message lists.
    """
    path = os.path.abspath(os.path.expanduser(reference))
    if "/" in reference and is_job_folder(path) and os.path.isdir(path):
        return read_job(path)
    known = list_jobs(folder) if jobs is None else jobs
    meant = _newest_attempts([job for job in known if _means(reference, job)])
    if not meant:
        where = os.path.abspath(os.path.expanduser(os.fspath(folder)))
        raise UnknownJob(
            f"no job {reference!r} below {where}/{names.ROOT}; `hpc-prefect jobs` lists those that"
            " are there, and --work-dir says where else to look"
        )
    if len(meant) > 1:
        lines = "".join(f"\n  {candidate(job)}" for job in meant)
        raise UnknownJob(f"{reference!r} may mean {len(meant)} jobs; say which by its key:{lines}")
    return meant[0]


def candidate(job: KnownJob) -> str:
    """A job in a line that tells it from others."""
    words = (f"{job.key}-{job.attempt}", job.name, job.job_id, job.standing.state)
    return printable("  ".join(word for word in words if word))


def _means(reference: str, job: KnownJob) -> bool:
    name = os.path.basename(job.folder.path)
    if reference in (name, job.name, job.tag, *job.ids):
        return True
    key, _, attempt = reference.rpartition("-")
    if attempt.isdecimal() and key and int(attempt) == job.attempt and job.key.startswith(key):
        return True
    # `17` for PBS's `17.server`, as its own commands take it.
    short = [each.partition(".")[0] for each in job.ids]
    return reference in short or (bool(reference) and job.key.startswith(reference))


def newest_attempt(job: KnownJob) -> int:
    """The number of the newest attempt of the same job."""
    above = job.folder.path.rpartition("/")[0]
    start = f"{job.key}-"
    siblings = [name for name in job.folder.transport.list(above) if name.startswith(start)]
    numbers = [int(n) for name in siblings if (n := name.removeprefix(start)).isdecimal()]
    return max(numbers, default=job.attempt)


def _newest_attempts(jobs: Iterable[KnownJob]) -> list[KnownJob]:
    newest: dict[str, KnownJob] = {}
    for job in jobs:
        other = newest.get(base := job.folder.path.rpartition("-")[0])
        if other is None or other.attempt < job.attempt:
            newest[base] = job
    return list(newest.values())
