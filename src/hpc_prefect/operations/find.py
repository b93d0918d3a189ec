"""Finds job folders below a folder, and the job that a reference means."""

from __future__ import annotations

import os
import re
from collections import deque
from collections.abc import Iterable, Sequence

from hpc_prefect.errors import HpcPrefectError, NotOurs, TransportError, UnknownJob
from hpc_prefect.job import folder as names
from hpc_prefect.ledger.quantum_folder import OLD_JOURNAL
from hpc_prefect.operations.snapshot import JobSnapshot, name_of_campaign, read_job
from hpc_prefect.terminal import printable
from hpc_prefect.transports.base import Transport
from hpc_prefect.transports.local import LocalTransport, reader

#: The names of the folders of batch jobs' attempts.
ATTEMPT = re.compile(r".+-\d+", re.DOTALL)
#: The names of the folders of samplings and estimations, which have their jobs beside them.
KEY = re.compile(r"[^-]+")
_PREFIX = re.compile(r"[0-9a-f]{2}")


#: Limits of the search for work_dirs: its depth, the number of folders, and the entries of each. A
#: folder of results can hold millions of files, on a slow file system.
DEPTH, MOST_FOLDERS, MOST_ENTRIES = 4, 2000, 5000


def work_dirs(folder: str | os.PathLike[str]) -> tuple[list[str], bool]:
    """The folders here and below in which jobs were run; and whether the search was complete.

    Searches level by level. Skips hidden folders, symbolic links and what cannot be read.
    """
    found: list[str] = []
    whole, looked = True, 0
    waiting = deque([(os.path.abspath(os.path.expanduser(os.fspath(folder))), 0)])
    while waiting:
        path, depth = waiting.popleft()
        if looked == MOST_FOLDERS:
            return found, False
        looked += 1
        if any(map(os.path.isdir, _roots(path))):
            found.append(path)
        if depth < DEPTH:
            below, all_seen = _folders_in(path)
            waiting += [(f"{path.rstrip('/')}/{name}", depth + 1) for name in below]
            whole = whole and all_seen
    return found, whole


def _folders_in(path: str) -> tuple[list[str], bool]:
    found: list[str] = []
    try:
        with os.scandir(path) as entries:
            for number, entry in enumerate(entries):
                if number == MOST_ENTRIES:
                    return sorted(found), False
                if not entry.name.startswith(".") and entry.is_dir(follow_symlinks=False):
                    found.append(entry.name)
    except OSError:
        return [], True
    return sorted(found), True


def list_jobs(
    folder: str | os.PathLike[str] = ".",
    *more: str | os.PathLike[str],
    campaign: str = "",
    transport: Transport | None = None,
) -> list[JobSnapshot]:
    """The jobs of a folder, or of several, the newest last.

    A folder that is damaged, foreign or not readable is a job too, with its `problem`. Jobs of
    other users in a shared `work_dir` are included (`user`), as far as they are readable.

    Args:
        folder: a `work_dir`, its `.hpc-prefect`, a campaign's folder in it, or a job's.
        campaign: only jobs of this campaign, by its name or its folder's name, in all instances.
    """
    paths = [path for each in (folder, *more) for path in job_folders(each, transport)]
    campaigns: dict[str, str | None] = {}
    jobs = []
    for path in dict.fromkeys(paths):
        above = os.path.dirname(os.path.dirname(path))
        if above not in campaigns:
            campaigns[above] = _name(transport or reader(path), path)
        jobs.append(read_job(path, transport, campaign_name=campaigns[above]))
    if campaign:
        jobs = [job for job in jobs if job.belongs_to(campaign)]
    return sorted(jobs, key=lambda job: (job.created_at, job.folder.path))


def _name(transport: Transport, path: str) -> str | None:
    """None if it cannot be read; the job's `problem` says why."""
    try:
        return name_of_campaign(transport, path)
    except HpcPrefectError:
        return None


def job_folders(folder: str | os.PathLike[str], transport: Transport | None = None) -> list[str]:
    """The paths of the job folders in a `work_dir`, or in what is below it.

    Includes folders of samplings with jobs of an earlier version, which cannot be read.
    """
    samplings = call_folders(folder, KEY, transport)
    old = [path for path in samplings if os.path.lexists(f"{path}/{OLD_JOURNAL}")]
    return call_folders(folder, ATTEMPT, transport) + old


def call_folders(
    folder: str | os.PathLike[str], pattern: re.Pattern[str], transport: Transport | None = None
) -> list[str]:
    """The paths of calls' folders whose names match the pattern, below the given folder."""
    path = os.path.abspath(os.path.expanduser(os.fspath(folder)))
    if _is_folder_of(path, pattern):
        return [path]
    if names.is_root(os.path.basename(os.path.dirname(path))):
        return _of_campaign(path, pattern, transport or reader(path))
    roots = [path] if names.is_root(os.path.basename(path)) else _roots(path)
    return [found for root in roots for found in _of_root(root, pattern, transport or reader(root))]


def _roots(work_dir: str) -> list[str]:
    """Where the users of a work_dir have their folders."""
    try:
        present = os.listdir(work_dir)
    except OSError:  # it does not exist, or may not be listed
        present = [names.ROOT]
    return [f"{work_dir.rstrip('/')}/{name}" for name in sorted(present) if names.is_root(name)]


def _of_root(root: str, pattern: re.Pattern[str], transport: Transport) -> list[str]:
    try:
        campaigns = transport.list(root)
    except TransportError:
        if isinstance(transport, LocalTransport) and transport.user:
            return []  # theirs alone, as it is made
        raise
    return [
        found
        for campaign in campaigns
        if os.path.isdir(f"{root}/{campaign}")
        for found in _of_campaign(f"{root}/{campaign}", pattern, transport)
    ]


def is_job_folder(path: str) -> bool:
    """Whether a path is `…/.hpc-prefect/<campaign>/<2 hex>/<key>-<attempt>`."""
    return _is_folder_of(path, ATTEMPT)


def _is_folder_of(path: str, pattern: re.Pattern[str]) -> bool:
    parts = path.rstrip("/").split("/")
    return (
        len(parts) > 4
        and names.is_root(parts[-4])
        and _PREFIX.fullmatch(parts[-2]) is not None
        and pattern.fullmatch(parts[-1]) is not None
    )


def _of_campaign(campaign: str, pattern: re.Pattern[str], transport: Transport) -> list[str]:
    """Folders of samplings and loops have no attempt in their names.

    A folder that cannot be listed is returned itself, so that it is shown.
    """
    found = []
    for prefix in _below(campaign, _PREFIX, transport):
        inside = prefix != campaign
        found += _below(prefix, pattern, transport) if inside else [campaign]
    return found


def _below(path: str, pattern: re.Pattern[str], transport: Transport) -> list[str]:
    try:
        return [f"{path}/{name}" for name in transport.list(path) if pattern.fullmatch(name)]
    except (TransportError, NotOurs):
        return [path]


def find_job(
    reference: str, folder: str | os.PathLike[str] = ".", jobs: Sequence[JobSnapshot] | None = None
) -> JobSnapshot:
    """The job that a reference means.

    Args:
        reference: a path of a job's folder; the scheduler's id; the beginning of a key, with
            `-<attempt>` or without for the newest; the job's name, or its tag.
        folder: where to look, as for `list_jobs`; `jobs`: what was found there already.

    Raises:
        UnknownJob: no job, or several jobs, match; the message lists these.
    """
    path = os.path.abspath(os.path.expanduser(reference))
    known = list_jobs(folder) if jobs is None else jobs
    if "/" in reference:
        if is_job_folder(path) and os.path.isdir(path):
            return read_job(path)
        if named := [job for job in known if job.folder.path == path]:
            return named[0]
    meant = _newest_attempts([job for job in known if _means(reference, job)])
    meant = [job for job in meant if not job.user] or meant
    if not meant:
        where = os.path.abspath(os.path.expanduser(os.fspath(folder)))
        raise UnknownJob(
            f"no job {reference!r} below {where}/{names.ROOT}; `hpc-prefect jobs` lists the jobs"
            f" here; --work-dir chooses another folder"
        )
    if len(meant) > 1:
        lines = "".join(f"\n  {candidate(job)}" for job in meant)
        raise UnknownJob(f"{reference!r} matches {len(meant)} jobs; choose one by its key:{lines}")
    return meant[0]


def candidate(job: JobSnapshot) -> str:
    """A line that identifies a job."""
    words = (f"{job.key}-{job.attempt}", job.name, job.job_id, job.status.state)
    return printable("  ".join(word for word in words if word))


def _means(reference: str, job: JobSnapshot) -> bool:
    name = os.path.basename(job.folder.path)
    if reference in (name, job.name, job.tag, *job.ids):
        return True
    key, _, attempt = reference.rpartition("-")
    if attempt.isdecimal() and key and int(attempt) == job.attempt and job.key.startswith(key):
        return True
    # `17` for PBS's `17.server`, as its own commands take it.
    short = [each.partition(".")[0] for each in job.ids]
    return reference in short or (bool(reference) and job.key.startswith(reference))


def newest_attempt(job: JobSnapshot) -> int:
    """The number of the newest attempt of the same job."""
    above = job.folder.path.rpartition("/")[0]
    start = f"{job.key}-"
    siblings = [name for name in job.folder.transport.list(above) if name.startswith(start)]
    numbers = [int(n) for name in siblings if (n := name.removeprefix(start)).isdecimal()]
    return max(numbers, default=job.attempt)


def _newest_attempts(jobs: Iterable[JobSnapshot]) -> list[JobSnapshot]:
    newest: dict[str, JobSnapshot] = {}
    for job in jobs:
        other = newest.get(base := f"{os.path.dirname(job.folder.path)}/{job.key}")
        if other is None or other.attempt < job.attempt:
            newest[base] = job
    return list(newest.values())
