"""Finds the flow of an earlier process, and runs it as it was started."""

from __future__ import annotations

import asyncio
import inspect
import os
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from prefect.client.schemas.objects import FlowRun
from prefect.flow_engine import run_flow
from prefect.flows import Flow, load_flow_from_entrypoint
from prefect.utilities.callables import parameters_to_args_kwargs


def entrypoint_problems(entrypoint: str) -> Iterator[str]:
    """Why the flow at an entrypoint cannot be found."""
    file, separator, name = entrypoint.rpartition(":")
    if not separator:
        yield "it is not known where its flow is defined; give it as --entrypoint FILE:FLOW"
    elif "ipykernel" in file or file.startswith(("<", "__main__")):
        yield (
            "it was started in a notebook or an interactive session, where another process cannot"
            " find its flow; run the cell again"
        )
    elif "<locals>" in name:
        yield f"its flow {name} is defined inside a function, so it cannot be imported"
    elif file.endswith(".py") and not Path(file).is_file():
        there = "" if Path(file).parent.is_dir() else f" on {socket.gethostname()}"
        yield f"its flow's file {file} does not exist{there}; give it as --entrypoint FILE:FLOW"


def seen_from_here(entrypoint: str) -> str:
    """An entrypoint that a user gave, made independent of the working directory."""
    file, separator, name = entrypoint.rpartition(":")
    if not file.endswith(".py"):
        return entrypoint
    return f"{os.path.abspath(os.path.expanduser(file))}{separator}{name}"


@contextmanager
def started_from(cwd: str, entrypoint: str) -> Iterator[None]:
    """Work as the script did: in its working directory, with its folder on the search path."""
    before, path = os.getcwd(), list(sys.path)
    folder = os.path.dirname(entrypoint.rpartition(":")[0])
    try:
        if cwd and os.path.isdir(cwd):
            os.chdir(cwd)
        sys.path[:0] = [each for each in (folder, os.getcwd()) if each and each not in path]
        yield
    finally:
        os.chdir(before)
        sys.path[:] = path


def load_flow(entrypoint: str) -> Flow[..., Any] | str:
    """The flow, or why it could not be loaded."""
    try:
        return load_flow_from_entrypoint(entrypoint, use_placeholder_flow=False)
    except Exception as error:  # noqa: BLE001 - the user's module may raise anything
        return f"its flow {entrypoint} could not be loaded: {error!r}"


def misfits(flow: Flow[..., Any], parameters: Mapping[str, Any]) -> str:
    """Why a flow does not accept these parameters; empty if it does."""
    try:
        args, kwargs = parameters_to_args_kwargs(flow.fn, dict(parameters))
        inspect.signature(flow.fn).bind(*args, **kwargs)
        if flow.should_validate_parameters:
            flow.validate_parameters(dict(parameters))
    except Exception as error:  # noqa: BLE001 - a validator of the user's may raise anything
        return f"its flow does not accept these parameters: {error}"
    return ""


def run(flow: Flow[..., Any], flow_run: FlowRun, parameters: Mapping[str, Any]) -> Any:
    """Run a flow as this flow run, and return its result. Not inside a running event loop."""
    outcome = run_flow(flow, flow_run=flow_run, parameters=dict(parameters))
    return asyncio.run(outcome) if flow.isasync else outcome  # type: ignore[arg-type]
