"""The service: its addresses, and the server that listens."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse

from hpc_prefect.rehearsal.ibm_quantum import account, backends, usage
from hpc_prefect.rehearsal.ibm_quantum import store as states
from hpc_prefect.rehearsal.ibm_quantum.environment import API_PATH, CATALOG_PATH
from hpc_prefect.rehearsal.ibm_quantum.faults import Faults, error_body
from hpc_prefect.rehearsal.ibm_quantum.settings import Settings
from hpc_prefect.rehearsal.ibm_quantum.store import Job, Session, Store
from hpc_prefect.rehearsal.ibm_quantum.work import Worker

PROGRAMS = ("sampler", "estimator", "executor")


class Refused(HTTPException):
    """A request that is refused, with the service's own error code."""

    def __init__(self, status: int, code: int, message: str) -> None:
        super().__init__(status, error_body(code, message))


class Service:
    """What the addresses have in common."""

    def __init__(self, state: Path, settings: Settings) -> None:
        self.settings = settings
        self.store = Store(state)
        self.faults = Faults(state / "faults")
        self.devices = backends.devices(settings.devices)
        self.requests: Counter[str] = Counter()

    def start(self) -> None:
        for device in self.devices.values():
            Worker(device, self.store, self.faults, self.settings).start()

    def device(self, name: str) -> backends.Device:
        if name not in self.devices:
            raise Refused(404, 1007, f"Backend {name} not found")
        return self.devices[name]

    def job(self, job_id: str) -> Job:
        job = self.store.job(job_id)
        if job is None:
            raise Refused(404, 1291, f"Job not found. Job ID: {job_id}")
        return job

    def session(self, session_id: str) -> Session:
        session = self.store.session(session_id)
        if session is None:
            raise Refused(404, 1292, f"Session not found. Session ID: {session_id}")
        return session

    def waiting(self, device: str) -> list[Job]:
        """The jobs of a device that are not over, in the order in which they run."""
        jobs = [job for job in self.store.jobs() if job.backend == device and not job.over]
        return sorted(jobs, key=lambda job: (job.status != states.RUNNING, job.due, job.created))

    def authorized(self, request: Request) -> None:
        """Refuse a request without a token of ours that holds, or for another instance."""
        self.requests[f"{request.method} {request.scope['route'].path}"] += 1
        claims = account.claims_of(self.settings, request.headers.get("authorization", ""))
        expired = self.faults.since("token-expired")
        if claims is None or (expired is not None and claims["issued"] < expired):
            raise Refused(401, 1200, "You are not authorized to do this action")
        if request.headers.get("service-crn") != self.settings.crn:
            raise Refused(403, 1200, "The instance is not one of this account's")

    def used_seconds(self) -> float:
        consumed = (self.faults.read("usage") or {}).get("consumed", 0.0)
        return float(consumed) + sum(job.qpu_seconds for job in self.store.jobs())


def app(service: Service) -> FastAPI:
    """The application: the accounts' addresses at the root, the service's own under API_PATH."""
    application = FastAPI(openapi_url=None)

    @application.exception_handler(Refused)
    def _refused(_: Request, refused: Refused) -> JSONResponse:
        return JSONResponse(refused.detail, refused.status_code)

    api = APIRouter(prefix=API_PATH, dependencies=[Depends(service.authorized)])
    _add_account(application, service)
    _add_backends(api, service)
    _add_jobs(api, service)
    _add_job(api, service)
    _add_sessions(api, service)
    application.include_router(api)
    return application


def _add_account(root: FastAPI, service: Service) -> None:
    settings = service.settings

    @root.post("/identity/token")
    async def token(request: Request) -> Response:
        from urllib.parse import parse_qs

        form = parse_qs((await request.body()).decode())
        if form.get("apikey") != [settings.token]:
            body = {
                "errorCode": "BXNIM0415E",
                "errorMessage": "Provided API key could not be found",
            }
            return JSONResponse(body, 400)
        return JSONResponse(account.access_token(settings))

    @root.post("/v3/resources/search")
    def search() -> dict[str, Any]:
        return account.resources(settings, list(service.devices))

    @root.get(CATALOG_PATH + "/{plan_id}")
    def catalogue(plan_id: str) -> dict[str, Any]:
        return account.plan()

    @root.get("/rehearsal/counters")
    def counters() -> dict[str, Any]:
        return _counters(service)


def _counters(service: Service) -> dict[str, Any]:
    """For tests: what was posted and what became of it."""
    jobs = service.store.jobs()
    return {
        "posted": len(jobs),
        "posted_by_tag": Counter(tag for job in jobs for tag in job.tags),
        "by_status": Counter(job.status for job in jobs),
        "executed_by_tag": Counter(
            tag for job in jobs if job.status == states.COMPLETED for tag in job.tags
        ),
        "requests": service.requests,
        "jobs": [
            {"id": job.id, "status": job.status, "tags": job.tags, "backend": job.backend}
            for job in jobs
        ],
    }


def _add_backends(api: APIRouter, service: Service) -> None:
    @api.get("/backends")
    def listed() -> dict[str, Any]:
        return {
            "devices": [
                device.listed(
                    waiting=len(service.waiting(name)),
                    maintenance=service.faults.maintenance(name),
                )
                for name, device in service.devices.items()
            ]
        }

    @api.get("/backends/{name}/configuration")
    def configuration(name: str) -> dict[str, Any]:
        return service.device(name).configuration

    @api.get("/backends/{name}/properties")
    def properties(name: str) -> dict[str, Any]:
        moved = service.faults.read("calibration")
        return service.device(name).properties(None if moved is None else moved["at"])

    @api.get("/backends/{name}/status")
    def status(name: str) -> dict[str, Any]:
        return service.device(name).status(
            waiting=len(service.waiting(name)), maintenance=service.faults.maintenance(name)
        )

    @api.get("/instances/usage")
    def instance_usage() -> dict[str, Any]:
        limit, used = service.settings.usage_limit_seconds, service.used_seconds()
        body: dict[str, Any] = {
            "instance_id": service.settings.crn,
            "plan_id": account.PLAN,
            "usage_consumed_seconds": round(used, 3),
            "usage_limit_reached": bool(limit) and used >= limit,
        }
        return body | ({"usage_limit_seconds": limit} if limit else {})


def _add_jobs(api: APIRouter, service: Service) -> None:
    @api.post("/jobs")
    async def post(request: Request) -> dict[str, Any]:
        body = await request.json()
        return await asyncio.to_thread(_post, service, body)

    @api.get("/jobs")
    def listed(request: Request, limit: int = 200, offset: int = 0) -> dict[str, Any]:
        found = [job for job in service.store.jobs() if _matches(job, request)]
        if request.query_params.get("sort", "DESC").upper() != "ASC":
            found.reverse()
        page = found[offset : offset + limit]
        return {
            "jobs": [_job(service, job, params=_wants_params(request)) for job in page],
            "count": len(found),
            "limit": limit,
            "offset": offset,
        }


def _post(service: Service, body: dict[str, Any]) -> dict[str, Any]:
    import json

    program, name = body.get("program_id"), body.get("backend")
    if program not in PROGRAMS:
        raise Refused(404, 1216, f"Program {program} not found")
    if name not in service.devices:
        raise Refused(400, 1007, f"Backend {name} not found")
    session = None
    if body.get("session_id"):
        session = service.session(body["session_id"])
        if not session.accepting_jobs:
            raise Refused(400, 1217, "Session has been closed")
    params = body.get("params") or {}
    tags = list(body.get("tags") or [])
    shots = usage.executed_shots(program, params)
    seconds = usage.seconds(shots, service.devices[name].repetition_seconds)
    queue = service.faults.read("queue") or {}
    delay = float(queue.get("seconds", service.settings.queue_seconds))
    if session is not None and session.activated:
        delay = 0.0
    copies = 2 if service.faults.take("duplicate", tags) is not None else 1
    for _ in range(copies):
        job = Job(
            id=states.new_id(),
            program=program,
            backend=name,
            tags=tags,
            session_id=body.get("session_id"),
            max_seconds=body.get("cost"),
            private=bool(body.get("private")),
            due=time.time() + delay,
            estimated_seconds=seconds,
        )
        service.store.add(job, json.dumps(params))
    return {"id": job.id, "backend": name, "session_id": job.session_id, "private": job.private}


def _matches(job: Job, request: Request) -> bool:
    asked = request.query_params
    pending = asked.get("pending")
    return all(
        (
            set(asked.getlist("tags")) <= set(job.tags),
            pending is None or (pending == "true") != job.over,
            asked.get("program", job.program) == job.program,
            asked.get("backend", job.backend) == job.backend,
            asked.get("session_id", job.session_id) == job.session_id,
            _moment(asked.get("created_after", job.created)) <= _moment(job.created),
            _moment(asked.get("created_before", job.created)) >= _moment(job.created),
        )
    )


def _moment(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _wants_params(request: Request) -> bool:
    return request.query_params.get("exclude_params", "false") != "true"


def _job(service: Service, job: Job, *, params: bool) -> dict[str, Any]:
    import json

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


def _add_job(api: APIRouter, service: Service) -> None:
    @api.get("/jobs/{job_id}")
    def get(job_id: str, request: Request) -> dict[str, Any]:
        return _job(service, service.job(job_id), params=_wants_params(request))

    @api.delete("/jobs/{job_id}", status_code=204)
    def delete(job_id: str) -> None:
        job = service.job(job_id)
        if not job.over:
            raise Refused(409, 1213, "The job is not over")
        service.store.delete(job)

    @api.get("/jobs/{job_id}/results")
    def results(job_id: str) -> Response:
        text = service.store.results(service.job(job_id))
        return Response(status_code=204) if text is None else PlainTextResponse(text)

    @api.get("/jobs/{job_id}/logs")
    def logs(job_id: str) -> Response:
        service.job(job_id)
        return PlainTextResponse("")

    @api.get("/jobs/{job_id}/metrics")
    def metrics(job_id: str) -> dict[str, Any]:
        return _metrics(service, service.job(job_id))

    @api.post("/jobs/{job_id}/cancel", status_code=204)
    def cancel(job_id: str) -> None:
        job = service.job(job_id)
        with service.store.changed:
            if job.over:
                raise Refused(409, 1212, "Job cannot be cancelled: it is over")
            service.store.finish(job, states.CANCELLED)

    @api.put("/jobs/{job_id}/tags", status_code=204)
    async def tags(job_id: str, request: Request) -> None:
        new = list((await request.json())["tags"])
        service.store.change(service.job(job_id), lambda job: setattr(job, "tags", new))


def _metrics(service: Service, job: Job) -> dict[str, Any]:
    body: dict[str, Any] = {
        "timestamps": {"created": job.created, "running": job.running, "finished": job.finished},
        "bss": {"seconds": job.qpu_seconds},
        "usage": {
            "seconds": job.qpu_seconds,
            "quantum_seconds": job.qpu_seconds,
            "qpu_charge_time_seconds": job.qpu_seconds,
            "status": "final" if job.over else "pending",
        },
        "caller": "qiskit-ibm-runtime",
        "estimated_running_time_seconds": job.estimated_seconds,
    } | job.facts
    if job.status == states.QUEUED:
        queue = service.waiting(job.backend)
        start = datetime.fromtimestamp(max(job.due, time.time()), UTC)
        ahead = queue.index(job) if job in queue else 0
        body |= {
            "position_in_queue": ahead + 1,
            "position_in_provider": ahead + 1,
            "estimated_start_time": start.isoformat(),
            "estimated_completion_time": (
                start + timedelta(seconds=job.estimated_seconds)
            ).isoformat(),
        }
    return body


def _add_sessions(api: APIRouter, service: Service) -> None:
    @api.post("/sessions")
    async def post(request: Request) -> dict[str, Any]:
        body = await request.json()
        session = Session(
            id=states.new_id(),
            mode=body.get("mode") or "dedicated",
            backend=body.get("backend") or "",
            max_seconds=body.get("max_ttl"),
        )
        service.store.keep_session(session)
        return _session(service, session)

    @api.get("/sessions/{session_id}")
    def get(session_id: str) -> dict[str, Any]:
        return _session(service, service.session(session_id))

    @api.patch("/sessions/{session_id}", status_code=204)
    async def patch(session_id: str, request: Request) -> None:
        body = await request.json()
        session = service.session(session_id)
        session.accepting_jobs = bool(body.get("accepting_jobs", session.accepting_jobs))
        service.store.keep_session(session)

    @api.delete("/sessions/{session_id}/close", status_code=204)
    def close(session_id: str) -> None:
        session = service.session(session_id)
        session.accepting_jobs = False
        session.closed = session.closed or states.now()
        service.store.keep_session(session)
        for job in service.store.jobs_of(session):
            if job.status == states.QUEUED:
                service.store.finish(job, states.CANCELLED)


def _session(service: Service, session: Session) -> dict[str, Any]:
    jobs = service.store.jobs_of(session)
    started = sorted(job.running for job in jobs if job.running)
    finished = sorted(job.finished for job in jobs if job.finished)
    if session.closed or (not session.accepting_jobs and all(job.over for job in jobs)):
        state = "closed"
    elif started:
        state = "active"
    else:
        state = "open"
    return {
        "id": session.id,
        "backend_name": session.backend,
        "mode": session.mode,
        "state": state,
        "state_reason": "",
        "accepting_jobs": session.accepting_jobs,
        "interactive_ttl": 60,
        "max_ttl": session.max_seconds or 28800,
        "active_ttl": session.max_seconds or 28800,
        "started_at": session.created,
        "activated_at": started[0] if started else None,
        "last_job_started": started[-1] if started else None,
        "last_job_completed": finished[-1] if finished else None,
        "closed_at": session.closed,
        "elapsed_time": sum(job.qpu_seconds for job in jobs),
        "timestamps": [],
    }
