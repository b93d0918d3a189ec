"""The service's process: python -m hpc_rehearsal.ibm_quantum.server STATE

It listens on loopback and ends when the process that started it ends.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
from pathlib import Path
from typing import Any, cast

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from hpc_rehearsal.ibm_quantum import settings
from hpc_rehearsal.ibm_quantum.faults import App, FaultyAnswers, Scope
from hpc_rehearsal.ibm_quantum.parent import end_with_parent
from hpc_rehearsal.ibm_quantum.routes import app
from hpc_rehearsal.ibm_quantum.service import Service

READY = "ready.json"

_connections: dict[tuple[str, int], asyncio.Transport] = {}


class Protocol(H11Protocol):
    """HTTP/1.1 whose connections can be cut."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._peer = tuple(transport.get_extra_info("peername")[:2])
        _connections[self._peer] = transport

    def connection_lost(self, exc: Exception | None) -> None:
        _connections.pop(self._peer, None)
        super().connection_lost(exc)


def cut(scope: Scope) -> None:
    """Cut the connection of a request, with nothing sent."""
    transport = _connections.get(tuple(scope["client"]))
    if transport is not None:
        transport.abort()


def main(arguments: list[str]) -> int:
    state = Path(arguments[0])
    chosen = settings.read(state)
    if chosen is None:
        print(f"no settings in {state}", file=sys.stderr)
        return 2
    end_with_parent()
    listening = socket.create_server(("127.0.0.1", chosen.port))
    service = Service(state, chosen)
    service.start()
    wrapped: App = FaultyAnswers(cast(Any, app(service)), service.faults, cut)
    config = uvicorn.Config(
        cast(Any, wrapped),
        http=Protocol,
        ws="none",
        lifespan="off",
        proxy_headers=False,
        log_level="error",
        # Longer than a client waits between two requests, so that none finds its connection closed.
        timeout_keep_alive=600,
        timeout_graceful_shutdown=1,
    )
    # From now on requests wait in the socket's queue until the server accepts them.
    ready = {"pid": os.getpid(), "port": listening.getsockname()[1]}
    settings.write_text(state / READY, json.dumps(ready))
    uvicorn.Server(config).run(sockets=[listening])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
