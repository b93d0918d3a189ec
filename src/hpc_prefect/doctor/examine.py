"""The examination from the profile to its findings."""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import os
import secrets
import socket
import sys
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from hpc_prefect.blocks import HPCProfileBlock
from hpc_prefect.doctor.here import WORK_DIR, converse, executables_here, work_dir_finding
from hpc_prefect.doctor.profile import LAUNCHER, PROFILE, Side, by_set_up, read_side
from hpc_prefect.doctor.record import Recording, redact, save
from hpc_prefect.doctor.table import failed
from hpc_prefect.doctor.trial import JOB, SET_UP, Trial, Tried, carry_out
from hpc_prefect.errors import TransportError
from hpc_prefect.executor.request import Listener, Silence
from hpc_prefect.schedulers import scheduler_for
from hpc_prefect.schedulers.base import Scheduler
from hpc_prefect.schedulers.finding import Finding, Outcome, unknown, wrong
from hpc_prefect.schedulers.probes import probe

_SUBMIT = "--submit checks it"


@dataclass(frozen=True, kw_only=True)
class Terms:
    """What to examine, and how far to go.

    Attributes:
        submit: run a small real job, one for each set-up that differs.
        wait: seconds that such a job may take, its time in the queue included.
        record: folder for transcripts of all commands that are run; None for none.
    """

    work_dir: str
    resource_class: Literal["cpu", "gpu"] = "cpu"
    walltime: str = "00:05:00"
    submit: bool = False
    wait: float = 900.0
    record: Path | None = None


async def examine(
    hpc: HPCProfileBlock, terms: Terms, listener: Listener | None = None
) -> list[Finding]:
    """Check a profile against its site."""
    try:
        scheduler = scheduler_for(hpc.scheduler)
    except KeyError:
        seen = f"this version of hpc-prefect knows no scheduler {hpc.scheduler!r}"
        return [wrong(PROFILE, seen, "set `scheduler` to local, pbs, pjm or slurm")]
    side, found = read_side(
        hpc,
        terms.resource_class,
        work_dir=terms.work_dir,
        walltime=terms.walltime,
        machine_cores=os.cpu_count() or 1,
    )
    if side is None:
        return [*found, unknown("the site", "not checked: no job can be made from this profile")]
    found += [
        wrong(PROFILE, text, "do one of the two: until then each job is refused")
        for text in scheduler.environment_problems(side.spec, os.environ)
    ]
    transport = Recording()
    tried: list[Tried] = []
    name = f".hpc-prefect-doctor-{secrets.token_hex(4)}"
    try:
        dialogue = probe(scheduler, side.spec)
        asked = await asyncio.to_thread(converse, dialogue, transport)
        found += asked
        can_write = work_dir_finding(terms.work_dir, name, transport)
        found.append(can_write)
        if not terms.submit or failed([*asked, can_write]):
            found += _without_job(side, scheduler, transport)
            if terms.submit:
                found.append(unknown(JOB, "not submitted: first correct what is wrong above"))
        else:
            for trial in _trials(hpc, side, terms, transport, name):
                tried.append(await carry_out(replace(trial, listener=listener or Silence())))
            found += _merged(tried)
    finally:
        with contextlib.suppress(TransportError):
            transport.remove(f"{terms.work_dir}/{name}")
        if terms.record is not None:
            jobs = [each.job_id for each in tried if each.job_id]
            hosts = [host for each in tried for host in each.hosts]
            hidden = _hidden(hpc, terms, hosts)
            save(terms.record, redact(transport.exchanges, hidden, jobs))
    return found


def _without_job(side: Side, scheduler: Scheduler, transport: Recording) -> list[Finding]:
    site = side.spec.site
    runs_here = scheduler.runs_here
    found = executables_here(side.executables, site, transport, runs_here=runs_here)
    own = [each for each in side.executables.values() if each.modules or each.setup]
    if site.modules or site.setup or own:
        found.append(unknown(SET_UP, "only a job shows whether they work", _SUBMIT))
    if site.launcher:
        found.append(unknown(LAUNCHER, f"not tried: {site.launcher}", _SUBMIT))
    found.append(unknown(f"{WORK_DIR} in a job", "no job was submitted", _SUBMIT))
    return found


def _trials(
    hpc: HPCProfileBlock, side: Side, terms: Terms, transport: Recording, name: str
) -> list[Trial]:
    return [
        Trial(
            spec=spec,
            secrets=side.secrets,
            paths=paths,
            scheduler=scheduler_for(hpc.scheduler),
            transport=transport,
            file=name,
            wait=terms.wait,
            poll_interval=hpc.poll_interval,
        )
        for spec, paths in by_set_up(side)
    ]


def _merged(tried: Iterable[Tried]) -> list[Finding]:
    """The findings of all jobs; of checks that all of them made, each outcome once."""
    found: list[Finding] = []
    seen: set[tuple[str, Outcome]] = set()
    for each in tried:
        for finding in each.findings:
            what = (finding.check, finding.outcome)
            if finding.check == JOB or finding.outcome is Outcome.WRONG or what not in seen:
                found.append(finding)
            seen.add(what)
    return found


def _hidden(hpc: HPCProfileBlock, terms: Terms, hosts: Iterable[str]) -> dict[str, str]:
    """What a transcript must not show, and what replaces it."""
    host = socket.gethostname()
    names = {each: "HOST" for name in (host, *hosts) for each in (name, name.partition(".")[0])}
    names |= {getpass.getuser(): "USER", hpc.project_cpu: "PROJECT", hpc.project_gpu: "PROJECT"}
    package = Path(__file__).parents[1]
    paths = {
        str(Path.home()): "/HOME",
        terms.work_dir: "/WORK_DIR",
        os.path.realpath(terms.work_dir): "/WORK_DIR",
        os.getcwd(): "/CWD",
        str(package): "/PACKAGE",
        sys.executable: "PYTHON",
        hpc.local.spool: "/SPOOL",
    }
    for value in (*hpc.executables.values(), *hpc.gpu.executables.values()):
        path = value if isinstance(value, str) else value.get("path", "")
        if path.startswith("/") and not path.startswith(("/bin/", "/usr/")):
            paths[path] = "/EXECUTABLE"
    return names | paths
