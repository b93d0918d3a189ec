"""The bodies of answers, as JSON values."""

from __future__ import annotations

import json
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from hpc_rehearsal.ibm_quantum import account
from hpc_rehearsal.ibm_quantum import store as states

if TYPE_CHECKING:
    from hpc_rehearsal.ibm_quantum.service import Service
    from hpc_rehearsal.ibm_quantum.store import Job, Session

_LONGEST_SESSION_SECONDS = 28_800


def job(service: Service, job: Job, *, params: bool) -> dict[str, Any]:
    state: dict[str, Any] = {"status": job.status}
    if job.reason is not None:
        state |= {"reason": job.reason, "reason_code": job.reason_code}
    body = {
        "id": job.id,
        "backend": job.backend,
        "state": state,
        "status": job.status,
        "program": {"id": job.program},
        "created": job.created,
        "ended": job.finished,
        "tags": job.tags,
        "private": job.private,
        "runtime": "",
        "cost": job.max_seconds,
        "session_id": job.session_id,
        "usage": {"seconds": job.qpu_seconds},
        "estimated_running_time_seconds": job.estimated_seconds,
    }
    return body | ({"params": json.loads(service.store.params(job))} if params else {})


def metrics(service: Service, job: Job) -> dict[str, Any]:
    body: dict[str, Any] = {
        "timestamps": {"created": job.created, "running": job.running, "finished": job.finished},
        "bss": {"seconds": job.qpu_seconds},
        "usage": {
            "seconds": job.qpu_seconds,
            "quantum_seconds": job.qpu_seconds,
            "qpu_charge_time_seconds": job.qpu_seconds,
            "status": "final" if job.over else "pending",
        },
        "estimated_running_time_seconds": job.estimated_seconds,
    }
    queued = _queue(service, job) if job.status == states.QUEUED else {}
    return body | job.facts | queued


def _queue(service: Service, job: Job) -> dict[str, Any]:
    """A job's place in the queue, and its estimated start and end."""
    ahead = [other for other in service.waiting(job.backend) if other.id != job.id]
    ahead = [other for other in ahead if (other.due, other.created) < (job.due, job.created)]
    seconds = service.settings.run_seconds
    start = datetime.fromtimestamp(max(job.due, time.time()), UTC)
    start += timedelta(seconds=seconds * len(ahead))
    return {
        "position_in_queue": len(ahead) + 1,
        "position_in_provider": len(ahead) + 1,
        "estimated_start_time": start.isoformat(),
        "estimated_completion_time": (start + timedelta(seconds=seconds)).isoformat(),
    }


def session(service: Service, session: Session) -> dict[str, Any]:
    jobs = service.store.jobs_of(session)
    started = sorted(job.running for job in jobs if job.running)
    finished = sorted(job.finished for job in jobs if job.finished)
    longest = session.max_seconds or _LONGEST_SESSION_SECONDS
    done = all(job.over for job in jobs)
    if session.closed or session.expired or (not session.accepting_jobs and done):
        state = "closed"
    else:
        state = "active" if started else "open"
    return {
        "id": session.id,
        "backend_name": session.backend,
        "mode": session.mode,
        "state": state,
        "accepting_jobs": session.accepting_jobs and not session.expired,
        "interactive_ttl": longest,
        "max_ttl": longest,
        "active_ttl": longest,
        "started_at": session.created,
        "activated_at": started[0] if started else None,
        "last_job_started": started[-1] if started else None,
        "last_job_completed": finished[-1] if finished else None,
        "closed_at": session.closed,
        "elapsed_time": round(sum(job.qpu_seconds for job in jobs), 3),
        "timestamps": [],
    }


def instance_usage(service: Service) -> dict[str, Any]:
    limit = service.settings.usage_limit_seconds
    body: dict[str, Any] = {
        "instance_id": service.settings.crn,
        "plan_id": account.PLAN,
        "usage_consumed_seconds": service.used_seconds(),
        "usage_limit_reached": service.limit_reached(),
    }
    return body | ({"usage_limit_seconds": limit} if limit else {})


def counters(service: Service) -> dict[str, Any]:
    """For tests: the numbers of jobs by their ends; and of requests since the start."""
    jobs = service.store.posted()
    completed = [job for job in jobs if job.status == states.COMPLETED]
    return {
        "posted": len(jobs),
        "posted_by_tag": Counter(tag for job in jobs for tag in job.tags),
        "completed_by_tag": Counter(tag for job in completed for tag in job.tags),
        "by_status": Counter(job.status for job in jobs),
        "requests": service.requests,
        "jobs": [
            {"id": job.id, "status": job.status, "tags": job.tags, "backend": job.backend}
            for job in jobs
        ],
    }
