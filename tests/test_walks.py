"""How many functions of ours a reader passes on a job's way; docs/architecture.md has the walks.

A walk is what an asynchronous stack trace shows when the submission leaves this process: the
frames of this package, from the public call to the one that hands the command to the transport, or
the job to the vendor's client. Where a task or a thread begins, the stack goes on where it was
begun. So helpers that have returned by then do not count, and neither do Prefect's and Python's.
"""

from __future__ import annotations

import asyncio
import re
import sys
import threading
from asyncio import base_events
from collections.abc import Callable, Iterator
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import pytest
from prefect import flow

import hpc_prefect
from hpc_prefect import run_job_from_blocks
from hpc_prefect.quantum import QuantumBackendBlock, sample

from .flows.jobs import HERE
from .quantum.circuits import bell
from .quantum.service import QuantumService, ibm_quantum

__all__ = ["ibm_quantum"]

PACKAGE = str(Path(hpc_prefect.__file__).parent)
_POST = re.compile(rb"POST \S*/jobs ")
ARCHITECTURE = Path(__file__).parents[1] / "docs" / "architecture.md"


class Tracing:
    """Remembers on which stack each task and each thread's work was begun."""

    def __init__(self) -> None:
        self.walks: list[list[str]] = []
        self._begun_on: dict[int, tuple[object, list[CodeType]]] = {}  # the coroutine is kept
        self._here = threading.local()

    def begun(self, work: object) -> None:
        """Work is begun here, unless something that begins it was seen before."""
        self._begun_on.setdefault(id(work), (work, self.stack()))

    def carried(self, work: Callable[..., Any]) -> Callable[..., Any]:
        """The same, for a function that a thread will run."""
        before = self.stack()

        def run(*arguments: Any) -> Any:
            self._here.before = before
            try:
                return work(*arguments)
            finally:
                self._here.before = []

        return run

    def stack(self) -> list[CodeType]:
        """The code of the frames of ours, the outermost first."""
        before, root = self._before()
        frame: FrameType | None = sys._getframe()
        frames = []
        while frame is not None:
            if frame.f_code.co_filename.startswith(PACKAGE):
                frames.append(frame.f_code)
            frame = None if frame is root else frame.f_back  # below it is the loop
        return before + frames[::-1]

    def _before(self) -> tuple[list[CodeType], FrameType | None]:
        """The stack on which this task or thread's work was begun, and the task's first frame."""
        try:
            task = asyncio.current_task()
        except RuntimeError:  # a thread without a loop
            task = None
        if task is None:
            return list(getattr(self._here, "before", ())), None
        coroutine: Any = task.get_coro()
        return list(self._begun_on.get(id(coroutine), (None, []))[1]), coroutine.cr_frame

    def audit(self, event: str, arguments: tuple[Any, ...], wanted: Callable[..., bool]) -> None:
        """Note the stack of an event of Python's own, if it is the wanted one."""
        if wanted(event, arguments):
            self.walks.append([f"{_file(code)} {code.co_qualname}" for code in self.stack()])


def _file(code: CodeType) -> str:
    return str(Path(code.co_filename).relative_to(PACKAGE))


_watching: list[Callable[[str, tuple[Any, ...]], None]] = []
_hooked = False


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    for watcher in _watching:
        watcher(event, arguments)


@pytest.fixture
def tracing(monkeypatch: pytest.MonkeyPatch) -> Iterator[Tracing]:
    """Follows the stack through Python's own ways to begin a task or a thread's work."""
    tracing = Tracing()
    create_task = base_events.BaseEventLoop.create_task
    in_executor = base_events.BaseEventLoop.run_in_executor
    from_thread = asyncio.run_coroutine_threadsafe

    def created(loop: Any, coroutine: Any, **named: Any) -> Any:
        tracing.begun(coroutine)
        return create_task(loop, coroutine, **named)

    def in_a_thread(loop: Any, pool: Any, work: Any, *arguments: Any) -> Any:
        return in_executor(loop, pool, tracing.carried(work), *arguments)

    def on_another_loop(coroutine: Any, loop: Any) -> Any:
        tracing.begun(coroutine)
        return from_thread(coroutine, loop)

    monkeypatch.setattr(base_events.BaseEventLoop, "create_task", created)
    monkeypatch.setattr(base_events.BaseEventLoop, "run_in_executor", in_a_thread)
    monkeypatch.setattr(asyncio, "run_coroutine_threadsafe", on_another_loop)
    global _hooked
    if not _hooked:  # such a hook stays for as long as the process lives
        sys.addaudithook(_hook)
        _hooked = True
    yield tracing
    _watching.clear()


def told(title: str) -> list[str]:
    """The functions that the page lists for a walk."""
    section = ARCHITECTURE.read_text().split(f"## {title}\n")[1].split("\n## ")[0]
    return re.findall(r"^\d+\. `(.+)`", section, re.MULTILINE)


def watch(tracing: Tracing, wanted: Callable[..., bool]) -> None:
    _watching.append(lambda event, arguments: tracing.audit(event, arguments, wanted))


async def test_from_the_call_to_the_submit_command_a_reader_passes_nine_functions(
    blocks: None, tracing: Tracing, tmp_path: Path
) -> None:
    def is_submission(event: str, arguments: tuple[Any, ...]) -> bool:
        return event == "subprocess.Popen" and "submit" in arguments[1]

    @flow
    async def experiment() -> None:
        await run_job_from_blocks(
            command_block_name="cmd-sh",
            execution_profile_block_name="exec-sh",
            hpc_profile_block_name=HERE,
            work_dir=tmp_path,
            script_filename="walk",
            user_args=["true"],
        )

    watch(tracing, is_submission)
    await experiment()
    (walk,) = tracing.walks
    assert walk[-1] == "transports/local.py LocalTransport.run"
    assert walk[:-1] == told("The walk of a batch job")
    assert len(walk[:-1]) <= 9


async def test_from_sample_to_the_post_a_reader_passes_ten_functions(
    ibm_quantum: QuantumService, prefect_server: object, tracing: Tracing, tmp_path: Path
) -> None:
    def is_post(event: str, arguments: tuple[Any, ...]) -> bool:
        return event == "http.client.send" and bool(_POST.match(bytes(arguments[1])))

    @flow
    async def experiment() -> None:
        backend = QuantumBackendBlock(kind="ibm", backend_name="fake_manila")
        await sample(
            [bell()],
            quantum_backend_block_name=backend,
            work_dir=tmp_path,
            options={"shots": 10, "seed": 1},
        )

    watch(tracing, is_post)
    await experiment()
    assert ibm_quantum.posted() == 1
    (walk,) = tracing.walks
    assert walk[-1] == "quantum/services/ibm/client.py Client.post"
    assert walk[:-1] == told("The walk of a quantum job")
    assert len(walk[:-1]) <= 10
