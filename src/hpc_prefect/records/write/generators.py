"""The states of random number generators, for a record. No number is drawn from them."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import random
from collections.abc import Iterator, Mapping
from typing import Any

#: The most levels, and the most values, that are searched for generators.
DEEPEST, MOST_VALUES = 6, 2000
#: The most letters of a state that is kept; of a larger one (Mersenne twister) a digest is kept.
MOST_LETTERS = 500


def generator_states(values: Mapping[str, object]) -> dict[str, Any]:
    """The state of each generator in some values, by the path to it. Never raises.

    NumPy's `Generator`, `BitGenerator` and `RandomState`, and `random.Random`; in mappings, lists,
    tuples and dataclasses. Numbers of a state are texts: most readers of JSON would round them.
    """
    found: dict[str, Any] = {}
    try:
        for path, generator in _generators(values):
            found[path] = _state_of(generator)
    except Exception:  # noqa: BLE001 - whatever an object of the user's does when it is looked at
        return found
    return found


def _generators(values: Mapping[str, object]) -> Iterator[tuple[str, Any]]:
    waiting: list[tuple[str, Any, int]] = [(name, each, 0) for name, each in values.items()]
    looked = 0
    while waiting and looked < MOST_VALUES:
        path, value, depth = waiting.pop(0)
        looked += 1
        if isinstance(value, random.Random) or _kind(value):
            yield path, value
        elif depth < DEEPEST:
            inside = list(_inside(value))[: MOST_VALUES - looked]
            waiting += [(f"{path}.{name}", each, depth + 1) for name, each in inside]


def _inside(value: Any) -> Iterator[tuple[object, Any]]:
    if isinstance(value, Mapping):
        yield from value.items()
    elif isinstance(value, list | tuple):
        yield from enumerate(value[:MOST_VALUES])
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        yield from ((each.name, getattr(value, each.name)) for each in dataclasses.fields(value))


def _kind(value: Any) -> str:
    """The name by which a NumPy generator gives its state; empty for other values."""
    module = type(value).__module__ or ""
    if not module.startswith("numpy.random"):
        return ""
    return next((n for n in ("bit_generator", "get_state", "state") if hasattr(value, n)), "")


def _state_of(generator: Any) -> dict[str, Any]:
    if isinstance(generator, random.Random):
        state: dict[str, Any] = {"bit_generator": "random.Random", "state": generator.getstate()}
    elif (kind := _kind(generator)) == "bit_generator":
        state = generator.bit_generator.state
    else:
        state = generator.get_state(legacy=False) if kind == "get_state" else generator.state
    name = str(state.get("bit_generator"))
    kept = {key: _plain(each) for key, each in state.items() if key != "bit_generator"}
    text = json.dumps(kept, sort_keys=True)
    if len(text) <= MOST_LETTERS:
        return {"bit_generator": name, **kept}
    return {"bit_generator": name, "sha256": hashlib.sha256(text.encode()).hexdigest()}


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _plain(each) for name, each in value.items()}
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return str(value) if isinstance(value, int) and abs(value) >= 1 << 53 else value
