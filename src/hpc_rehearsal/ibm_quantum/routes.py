"""The routes: the account's at the root, the service's own below API_PATH.

`/rehearsal/counters` is ours and needs no token; all others are those that the client calls.
"""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs

from fastapi import APIRouter, Depends, FastAPI, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse

from hpc_rehearsal.ibm_quantum import account
from hpc_rehearsal.ibm_quantum import responses as bodies
from hpc_rehearsal.ibm_quantum import store as states
from hpc_rehearsal.ibm_quantum.environment import API_PATH, CATALOG_PATH
from hpc_rehearsal.ibm_quantum.service import Refused, Service
from hpc_rehearsal.ibm_quantum.store import Job, Session


def app(service: Service) -> FastAPI:
    application = FastAPI(openapi_url=None)

    @application.exception_handler(Refused)
    def _refused(_: Request, refused: Refused) -> JSONResponse:
        return JSONResponse(refused.detail, refused.status_code)

    api = APIRouter(prefix=API_PATH, dependencies=[Depends(service.authorize)])
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
        service.count("POST /identity/token")
        form = parse_qs((await request.body()).decode())
        if form.get("apikey") != [settings.token]:
            body = {
                "errorCode": "BXNIM0415E",
                "errorMessage": "Provided API key could not be found.",
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
        return bodies.counters(service)


def _add_backends(api: APIRouter, service: Service) -> None:
    faults = service.faults

    @api.get("/backends")
    def listed() -> dict[str, Any]:
        return {
            "devices": [
                device.listed(
                    waiting=len(service.waiting(name)), maintenance=faults.maintenance(name)
                )
                for name, device in service.devices.items()
            ]
        }

    @api.get("/backends/{name}/configuration")
    def configuration(name: str) -> dict[str, Any]:
        return service.device(name).configuration

    @api.get("/backends/{name}/properties")
    def properties(name: str) -> dict[str, Any]:
        moved = faults.read("calibration")
        return service.device(name).properties(None if moved is None else moved["at"])

    @api.get("/backends/{name}/status")
    def status(name: str) -> dict[str, Any]:
        return service.device(name).status(
            waiting=len(service.waiting(name)), maintenance=faults.maintenance(name)
        )

    @api.get("/instances/usage")
    def instance_usage() -> dict[str, Any]:
        return bodies.instance_usage(service)


def _add_jobs(api: APIRouter, service: Service) -> None:
    @api.post("/jobs")
    async def post(request: Request) -> dict[str, Any]:
        body = json.loads(await request.body())
        # In a thread: megabytes of parameters are written to disk, which would block the loop.
        job = await asyncio.to_thread(service.post, body)
        return {"id": job.id, "backend": job.backend, "session_id": job.session_id}

    @api.get("/jobs")
    def listed(request: Request, limit: int = 200, offset: int = 0) -> dict[str, Any]:
        found = [job for job in service.listed() if _matches(job, request)]
        if request.query_params.get("sort", "DESC").upper() != "ASC":
            found.reverse()
        page = found[offset : offset + limit]
        return {
            "jobs": [bodies.job(service, job, params=_wants_params(request)) for job in page],
            "count": len(found),
            "limit": limit,
            "offset": offset,
        }


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


def _add_job(api: APIRouter, service: Service) -> None:
    @api.get("/jobs/{job_id}")
    def get(job_id: str, request: Request) -> dict[str, Any]:
        return bodies.job(service, service.job(job_id), params=_wants_params(request))

    @api.delete("/jobs/{job_id}", status_code=204)
    def delete(job_id: str) -> None:
        service.delete(service.job(job_id))

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
        return bodies.metrics(service, service.job(job_id))

    @api.post("/jobs/{job_id}/cancel", status_code=204)
    def cancel(job_id: str) -> None:
        service.cancel(service.job(job_id))

    @api.put("/jobs/{job_id}/tags", status_code=204)
    async def tags(job_id: str, request: Request) -> None:
        new = [str(tag) for tag in json.loads(await request.body())["tags"]]
        service.store.change(service.job(job_id), lambda job: setattr(job, "tags", new))


def _add_sessions(api: APIRouter, service: Service) -> None:
    @api.post("/sessions")
    async def post(request: Request) -> dict[str, Any]:
        body = json.loads(await request.body())
        session = Session(
            id=states.new_id(),
            mode=body.get("mode") or "dedicated",
            backend=service.device(body.get("backend") or "").name,
            max_seconds=body.get("max_ttl"),
        )
        service.store.keep_session(session)
        return bodies.session(service, session)

    @api.get("/sessions/{session_id}")
    def get(session_id: str) -> dict[str, Any]:
        return bodies.session(service, service.session(session_id))

    @api.patch("/sessions/{session_id}", status_code=204)
    async def patch(session_id: str, request: Request) -> None:
        session = service.session(session_id)
        session.accepting_jobs = bool(json.loads(await request.body())["accepting_jobs"])
        service.store.keep_session(session)

    @api.delete("/sessions/{session_id}/close", status_code=204)
    def close(session_id: str) -> None:
        service.close(service.session(session_id))
