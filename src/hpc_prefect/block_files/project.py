"""Prepares a project's script: a Prefect server, and the project's blocks on it."""

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
from hpc_prefect.flow_runs.uncaught import print_errors_plainly
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

#: The variables of our own server, except those that move Prefect's home with its results.
_OURS = ("PREFECT_API_URL", "PREFECT_SERVER_EPHEMERAL_ENABLED", "no_proxy", "NO_PROXY")


def ensure_ready(blocks: str | os.PathLike[str] | None = None) -> None:
    """Make sure of a Prefect server with a project's blocks; for the beginning of a script.

    If Prefect's settings name no server, this process and its children use your own, as if
    `PREFECT_API_URL` named it. It is started if it does not run, and runs until `hpc-prefect server
    stop`.

    Prints to stderr what is done, or only the server's address. From then on an error of this
    package that ends the script is printed as its message, below the script's own lines of the
    traceback (`python -X dev` shows all of it).

    Args:
        blocks: a TOML file, as of `hpc-prefect blocks apply`. Blocks that are missing on the
            server, or were changed in the file, are stored. What others have changed on the server
            stays, with a message.

    Raises:
        ConfigurationError: the file cannot be stored, another existing file made blocks of the same
            names, or the named server does not answer.
        ServerError: your own server does not start.
    """
    print_errors_plainly()
    _have_server(_tell)
    if blocks is not None:
        _have_blocks(Path(blocks))


def use_own_server() -> None:
    """Use your own server if it runs and Prefect's settings name no other; does not start it."""
    if not get_current_settings().api.url and (server := find_server(server_home())):
        _use(server)


def _tell(text: str) -> None:
    sys.stderr.write(f"hpc-prefect: {text}\n")
    sys.stderr.flush()


def _have_server(tell: Progress) -> None:
    home = server_home()
    named = get_current_settings().api.url
    if named and named != last_url(home):
        return  # the user's server: whether it answers is seen when blocks are asked for
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
            f"{file}: blocks of the same names were made by {', '.join(others)} with other"
            f" programs or values; give them other names here"
        )
    if not missing and (foreign := [c.item.name for c in changes if c.conflicts]):
        _tell(
            f"{', '.join(foreign)}: the stored blocks differ from {file} and were not made by it;"
            f" they are used as stored (`hpc-prefect blocks diff {file}` shows"
            " the differences, `apply --force` replaces them)"
        )
        return
    if any(change.kind != "unchanged" for change in changes):
        with line.shown(lambda: "storing blocks on the Prefect server"):
            _run(lambda: apply_document(document, report=lambda _: None, made=made))
        _tell(f"stored from {file}: {', '.join(_stored(changes))}")


def _other_files(changes: Sequence[BlockChange], made: applied.Made) -> set[str]:
    """The existing files that made what these changes would replace."""
    return {
        other.file
        for change in changes
        for one in change.conflicts
        for other in made.elsewhere
        if one.stored is not None and other.has(change.key, one.where, one.stored)
    }


def _run(call: Callable[[], Coroutine[object, object, T]]) -> T:
    """Run it here, or in a thread if a loop is running here already, as in a notebook."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(call())
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(copy_context().run, lambda: asyncio.run(call())).result()


def _stored(changes: Sequence[BlockChange]) -> list[str]:
    return [change.item.name for change in changes if change.kind != "unchanged"]
