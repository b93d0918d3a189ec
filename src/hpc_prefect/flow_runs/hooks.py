"""Adds hooks to a flow while it runs; the only module that changes Prefect's lists of hooks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from prefect.flows import Flow

Hook = Callable[[Any, Any, Any], Any]


def hook_once(flow: Flow[Any, Any], hook: Hook, *ends: str) -> None:
    """Add a hook for these ends of a flow's runs, unless it is there already.

    Args:
        ends: of `completion`, `failure`, `cancellation` and `crashed`.
    """
    for end in ends:
        hooks: list[Hook] = getattr(flow, f"on_{end}_hooks")
        if hook not in hooks:
            hooks.append(hook)
