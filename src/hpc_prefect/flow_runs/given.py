"""Whether the parameters of a run are still as they were given: its body may change them.

Prefect keeps no copy. But it stored a flow's parameters before the body began, and computed the key
of a task's result from its inputs then (see tests/flow_runs/test_given.py).
"""

from __future__ import annotations

import datetime
import decimal
import enum
import fractions
import json
import uuid
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from prefect.cache_policies import CachePolicy, CompoundCachePolicy, Inputs
from prefect.context import FlowRunContext, TaskRunContext
from prefect.transactions import get_transaction

from hpc_prefect.job.identity import exact_digest

_FIXED = (
    *(str, int, float, complex, bool, bytes, type(None), PurePath, enum.Enum, type),
    *(datetime.date, datetime.time, datetime.timedelta, datetime.tzinfo),
    *(decimal.Decimal, fractions.Fraction, uuid.UUID),
)


def _changeable(parameters: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in parameters.items() if not _is_fixed(value)}


def _is_fixed(value: object) -> bool:
    if isinstance(value, tuple | frozenset):
        return all(map(_is_fixed, value))
    return isinstance(value, _FIXED)


def changed_in_flow(flow: FlowRunContext) -> list[str]:
    """Parameters of a flow run that were, or may have been, changed since they were given."""
    values = _changeable(flow.parameters or {})
    if not values or flow.flow_run is None or flow.flow is None:
        return []
    stored = flow.flow_run.parameters or {}
    now = flow.flow.serialize_parameters(values)
    changed = [
        name
        for name, value in values.items()
        if name not in stored
        or now[name] == f"<{type(value).__name__}>"  # which Prefect could not store
        or _text(now[name]) != _text(stored[name])
    ]
    return [name for name in changed if not _means_the_same(flow, name, values[name])]


def _means_the_same(flow: FlowRunContext, name: str, value: object) -> bool:
    """Whether the stored value equals this one: a set may have been stored in any order."""
    stored = (flow.flow_run.parameters if flow.flow_run else None) or {}
    try:
        back = flow.flow.validate_parameters(dict(stored)) if flow.flow else {}
        return type(back[name]) is type(value) and exact_digest(back[name]) == exact_digest(value)
    except Exception:  # noqa: BLE001 - a parameter that cannot be read back, or has no digest
        return False


def _text(value: object) -> str:
    return json.dumps(value, sort_keys=True, default=repr)


def changed_in_task(task: TaskRunContext) -> list[str]:
    """Parameters of a task run that were, or may have been, changed since they were given."""
    values = _changeable(task.parameters or {})
    if not values or _key_is_as_before(task):
        return []
    return list(values)


def _key_is_as_before(task: TaskRunContext) -> bool:
    policy = task.task.cache_policy
    if not isinstance(policy, CachePolicy) or not _looks_at_all_inputs(policy):
        return False
    flow = FlowRunContext.get()
    try:
        key = policy.compute_key(
            task_ctx=task,
            inputs=task.parameters or {},
            flow_parameters=(flow.parameters if flow else None) or {},
        )
    except Exception:  # noqa: BLE001 - a value that Prefect cannot hash
        return False
    around = get_transaction()
    while key is not None and around is not None:
        if around.key == key:
            return True
        around = around.get_parent()
    return False


def _looks_at_all_inputs(policy: CachePolicy) -> bool:
    each = policy.policies if isinstance(policy, CompoundCachePolicy) else [policy]
    return any(isinstance(one, Inputs) and not one.exclude for one in each)
