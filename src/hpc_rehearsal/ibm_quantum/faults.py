"""All faults of the service, in one table.

A fault is a file in the state folder's `faults`: its name is the fault's, its content a JSON object
with the fault's values, or nothing. It is in force as long as the file is there; one with `times`
ends after so many uses.
"""

from __future__ import annotations

import asyncio
import json
import re
import threading
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpc_rehearsal.ibm_quantum.environment import API_PATH
from hpc_rehearsal.ibm_quantum.settings import write_text

if TYPE_CHECKING:
    from hpc_rehearsal.ibm_quantum.store import Job

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_ANY_REQUEST = re.compile(r"\w+ .*")
_POST_JOB = re.compile(r"POST /jobs")
_POLL = re.compile(r"GET /jobs/\w+")


@dataclass(frozen=True)
class Answer:
    """A fault of requests.

    Attributes:
        requests: the requests that it affects: method, and path below the API's.
        status: the HTTP status; 0 cuts the connection without an answer.
        after: whether the request is carried out before.
        code: the service's own error code.
    """

    requests: re.Pattern[str]
    status: int
    code: int
    message: str
    after: bool = False


#: Each takes another `status`, and `times`, `retry_after` and `delay` (seconds).
ANSWERS = {
    "reply-lost": Answer(_POST_JOB, 0, 0, "", after=True),
    "post-fails": Answer(_POST_JOB, 503, 1000, "Service unavailable"),
    "poll-fails": Answer(_POLL, 503, 1000, "Service unavailable"),
    "list-fails": Answer(re.compile(r"GET /jobs"), 503, 1000, "Service unavailable"),
    "results-fail": Answer(re.compile(r"GET /jobs/\w+/results"), 503, 1000, "Service unavailable"),
    "unauthorized": Answer(_ANY_REQUEST, 401, 1200, "You are not authorized to do this action"),
    "rate-limit": Answer(_ANY_REQUEST, 429, 1202, "Too many requests"),
    "unavailable": Answer(_ANY_REQUEST, 503, 1000, "Service unavailable"),
}
#: The other faults, with the values that each takes.
OTHERS = {
    "token-expired": (),  # access tokens that are older than the fault are refused
    "queue": ("seconds",),  # how long jobs wait that are posted from now on
    "job-fails": ("reason", "code", "tag", "times"),
    "duplicate": ("tag", "times"),  # a posted job is stored twice
    "list-lags": ("seconds",),  # a job is listed only so long after it was posted
    "cancel-lags": ("seconds",),  # a cancel is accepted, and the job lives on so long
    "maintenance": ("backend",),  # one backend's, or all; its jobs wait
    "calibration": ("at",),  # when it was, ISO 8601
    "usage": ("consumed",),  # QPU seconds that others have used
}
_OF_ANSWERS = ("status", "times", "retry_after", "delay")


class UnknownFault(Exception):
    """There is no such fault, or it does not take such a value."""


def switch_on(state: Path, name: str, values: dict[str, Any]) -> None:
    """Write the fault's file, at once.

    Raises:
        UnknownFault: there is no such fault, or it does not take such a value.
    """
    known = OTHERS | dict.fromkeys(ANSWERS, _OF_ANSWERS)
    if name not in known:
        raise UnknownFault(f"there is no fault {name!r}; there are {', '.join(sorted(known))}")
    strange = sorted(set(values) - set(known[name]))
    if strange:
        takes = ", ".join(known[name]) or "nothing"
        raise UnknownFault(f"the fault {name!r} has no {strange[0]!r}; it takes {takes}")
    (state / "faults").mkdir(mode=0o700, parents=True, exist_ok=True)
    write_text(state / "faults" / name, json.dumps(values))


@dataclass
class Faults:
    """The faults that are in force."""

    folder: Path
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def read(self, name: str) -> dict[str, Any] | None:
        """The values in the fault's file; None if there is none, or it is half written."""
        try:
            text = (self.folder / name).read_text()
            values: dict[str, Any] = json.loads(text) if text.strip() else {}
        except (FileNotFoundError, json.JSONDecodeError):
            return None
        return values

    def take(self, name: str, tags: Sequence[str] = ()) -> dict[str, Any] | None:
        """The fault's values; one of its `times` is used. One with a `tag` applies only to it."""
        with self._lock:
            values = self.read(name)
            if values is None or values.get("tag", "") not in ("", *tags):
                return None
            times = values.get("times")
            if times is not None and times <= 1:
                (self.folder / name).unlink(missing_ok=True)
            elif times is not None:
                write_text(self.folder / name, json.dumps(values | {"times": times - 1}))
            return values

    def since(self, name: str) -> float | None:
        """When the fault's file was made (seconds since the epoch)."""
        try:
            return (self.folder / name).stat().st_mtime
        except FileNotFoundError:
            return None

    def maintenance(self, backend: str) -> bool:
        values = self.read("maintenance")
        return values is not None and values.get("backend", backend) == backend

    def job_failure(self, job: Job) -> tuple[str, int] | None:
        """Why the job is to fail, with the code."""
        values = self.take("job-fails", job.tags)
        if values is None:
            return None
        return values.get("reason", "Internal error"), int(values.get("code", 9999))


class FaultyAnswers:
    """ASGI middleware that applies the faults of `ANSWERS`, before or after the request."""

    def __init__(self, app: App, faults: Faults, cut: Callable[[Scope], None]) -> None:
        self._app = app
        self._faults = faults
        self._cut = cut

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "")
        if scope["type"] != "http" or not path.startswith(API_PATH):
            await self._app(scope, receive, send)
            return
        request = f"{scope['method']} {path.removeprefix(API_PATH)}"
        for name, answer in ANSWERS.items():
            if (
                answer.requests.fullmatch(request)
                and (values := self._faults.take(name)) is not None
            ):
                await self._answer(answer, values, (scope, receive, send))
                return
        await self._app(scope, receive, send)

    async def _answer(
        self, answer: Answer, values: dict[str, Any], call: tuple[Scope, Receive, Send]
    ) -> None:
        scope, receive, send = call
        if answer.after:
            await self._app(scope, receive, _swallow)
        else:
            await _drain(receive)
        if values.get("delay"):
            await asyncio.sleep(float(values["delay"]))
        status = int(values.get("status", answer.status))
        if status == 0:
            self._cut(scope)
            while (await receive())["type"] != "http.disconnect":
                pass
            return
        body = json.dumps(error_body(answer.code, answer.message)).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        if "retry_after" in values:
            headers.append((b"retry-after", str(values["retry_after"]).encode()))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})


async def _drain(receive: Receive) -> None:
    """Read the request's body: a client that is still sending would not see the answer."""
    while (message := await receive())["type"] == "http.request" and message.get("more_body"):
        pass


async def _swallow(_: Message) -> None:
    return None


def error_body(code: int, message: str) -> dict[str, Any]:
    return {"errors": [{"code": code, "message": message}], "trace": "rehearsal"}
