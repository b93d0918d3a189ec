"""The options of a flow that its runs depend on: `@flow(retries=2)`, `with_options(…)`.

A flow that is loaded by its entry point has the options of its definition; it may have run with
others under the same name.
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
    """The flow with the recorded numeric options; and in words, where its definition differs.

    A task runner of another class is only reported: no record holds its settings.
    """
    again: dict[str, Any] = {}
    told = []
    for name, now in options_of(flow).items():
        then = recorded.get(name, now)
        if (then or 0) == (now or 0):
            continue
        what = f"it ran with {name}={then}, and is defined with {name}={now}"
        if name == _RUNNER:
            told.append(f"{what}, which is used; to use the other one give --entrypoint FILE:FLOW")
        elif then is None or isinstance(then, int | float):
            again[name] = then or 0  # None would keep the defined value
            told.append(f"{what}: it runs as it did then")
    return (flow.with_options(**again) if again else flow), told
