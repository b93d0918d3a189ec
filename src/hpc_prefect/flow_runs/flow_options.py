"""The options of a flow that decide how its runs go: `@flow(retries=2)`, `with_options(…)`.

Where a flow is found again by its entry point, it is the one that was defined there; it may have
run with other options, and under the same name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prefect.flows import Flow

_NUMBERS = ("retries", "retry_delay_seconds", "timeout_seconds")
_RUNNER = "task_runner"


def options_of(flow: Flow[..., Any]) -> dict[str, Any]:
    """The options as a record has them: numbers, and the class of the task runner."""
    numbers = {name: getattr(flow, name) for name in _NUMBERS}
    return numbers | {_RUNNER: type(flow.task_runner).__name__}


def with_recorded(
    flow: Flow[..., Any], recorded: Mapping[str, Any]
) -> tuple[Flow[..., Any], list[str]]:
    """A flow with the numbers that a record has; and in words, where it is defined otherwise.

    A task runner of another class is only told: no record holds its settings.
    """
    again: dict[str, Any] = {}
    told = []
    for name, now in options_of(flow).items():
        then = recorded.get(name, now)
        if (then or 0) == (now or 0):
            continue
        what = f"it ran with {name}={then}, and is defined with {name}={now}"
        if name == _RUNNER:
            told.append(f"{what}, which counts; give the other one as --entrypoint FILE:FLOW")
        elif then is None or isinstance(then, int | float):
            again[name] = then or 0  # None would leave it as it is
            told.append(f"{what}: it runs as it did then")
    return (flow.with_options(**again) if again else flow), told
