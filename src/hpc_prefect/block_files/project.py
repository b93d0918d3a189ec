"""What a project's script needs before its flow: a Prefect server, and the project's blocks."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from pathlib import Path
from typing import TypeVar

from prefect.settings import get_current_settings

from hpc_prefect.block_files import applied
from hpc_prefect.block_files.apply import (
    BlockChange,
    apply_document,
    compare_document,
    read_file,
)
from hpc_prefect.errors import ConfigurationError
from hpc_prefect.flow_runs.prefect_internals import set_for_process
from hpc_prefect.flow_runs.uncaught import tell_errors_plainly
from hpc_prefect.server import (
    Progress,
    Server,
    ensure_server,
    environment,
    find_server,
    last_url,
)
from hpc_prefect.terminal import line
from hpc_prefect.transports.own import server_home, state_folder

T = TypeVar("T")

#: Of the variables of a server of our own, those that do not move Prefect's home, with its results.
_OURS = ("PREFECT_API_URL", "PREFECT_SERVER_EPHEMERAL_ENABLED", "no_proxy", "NO_PROXY")


def ensure_ready(blocks: str | os.PathLike[str] | None = None) -> None:
    """Have a Prefect server and a project's blocks on it; for the beginning of a script.

    Where Prefect's settings name no server, your own is used by this process and those that it
    starts, as if `PREFECT_API_URL` named it; it is started when it does not run. It lives on, until
    `hpc-prefect server stop`.

    What is done is said on stderr, a line each; when there is nothing to do, where the server is.
    From then on an error of this package that ends the script is told by its sentence, below the
    script's own lines (`python -X dev` shows the whole traceback).

    Args:
        blocks: a TOML file, as of `hpc-prefect blocks apply`. What is missing of it on the server,
            or was changed in the file, is stored. What others have changed on the server stays, and
            is told.

    Raises:
        ConfigurationError: the file cannot be stored, another file that is still there made blocks
            of the same names, or the server that is named does not answer.
        ServerError: your own server does not start.
    """
    tell_errors_plainly()
    _have_server(_tell)
    if blocks is not None:
        _have_blocks(Path(blocks))


def use_own_server() -> None:
    """Use your own server, where Prefect's settings name none and it runs; it is not started."""
    if not get_current_settings().api.url and (server := find_server(server_home())):
        _use(server)


def _tell(text: str) -> None:
    sys.stderr.write(f"hpc-prefect: {text}\n")
    sys.stderr.flush()


def _have_server(tell: Progress) -> None:
    home = server_home()
    named = get_current_settings().api.url
    if named and named != last_url(home):
        return  # the user's: whether it answers is seen when it is asked for blocks
    with line.shown(lambda: "waiting for the Prefect server"):
        server = ensure_server(home, progress=tell)
    _use(server)
    tell(f"Prefect is at {server.ui_url} (open it in a browser; stop: hpc-prefect server stop)")


def _use(server: Server) -> None:
    variables = environment(server)
    set_for_process({name: variables[name] for name in _OURS if name in variables})


def _have_blocks(file: Path) -> None:
    document = read_file(file, venv=sys.prefix, environ=os.environ)
    for warning in document.warnings:
        _tell(f"warning: {warning}")
    made = applied.read_made(state_folder() / "applied", file)
    with line.shown(lambda: "asking the Prefect server for its blocks"):
        changes = _run(lambda: compare_document(document, made=made))
    missing = any(change.kind == "created" for change in changes)
    if others := sorted(_other_files(changes, made)):
        raise ConfigurationError(
            f"{file}: blocks of the same names are those of {', '.join(others)}, which names other"
            " programs or values; give them other names here"
        )
    if not missing and (foreign := [c.item.name for c in changes if c.conflicts]):
        _tell(
            f"{', '.join(foreign)}: stored otherwise than in {file}, and not by it; what is stored"
            f" is used (`hpc-prefect blocks diff {file}` shows it, `apply --force` replaces it)"
        )
        return
    if any(change.kind != "unchanged" for change in changes):
        with line.shown(lambda: "storing blocks on the Prefect server"):
            _run(lambda: apply_document(document, report=lambda _: None, made=made))
        _tell(f"stored from {file}: {', '.join(_stored(changes))}")


def _other_files(changes: Sequence[BlockChange], made: applied.Made) -> set[str]:
    """The files that made what these changes would replace, and that are still there."""
    return {
        other.file
        for change in changes
        for one in change.conflicts
        for other in made.elsewhere
        if one.stored is not None and other.has(change.key, one.where, one.stored)
    }


def _run(call: Callable[[], Coroutine[object, object, T]]) -> T:
    """Run it here; in a thread where a loop runs here already, as in a notebook."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(call())
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(copy_context().run, lambda: asyncio.run(call())).result()


def _stored(changes: Sequence[BlockChange]) -> list[str]:
    return [change.item.name for change in changes if change.kind != "unchanged"]
