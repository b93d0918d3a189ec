"""What a real OpenPBS answered (`tests/transcripts/openpbs`), and dialogues fed with it."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from hpc_prefect.job.dialogue import Command, Dialogue, Reply
from hpc_prefect.job.state import Observation
from hpc_prefect.schedulers.base import NoAnswer, Scheduler

FOLDER = Path(__file__).parents[1] / "transcripts" / "openpbs"
T = TypeVar("T")


@functools.cache
def _steps(name: str) -> dict[str, Any]:
    steps = json.loads((FOLDER / f"{name}.json").read_text())
    return {step["step"]: step for step in steps}


def recorded(name: str, step: str) -> Reply:
    """The reply of one step of a recording."""
    found = _steps(name)[step]
    return Reply(found["rc"], found["stdout"], found["stderr"])


def converse(dialogue: Dialogue[T], *replies: Reply) -> tuple[T, list[str]]:
    """The dialogue's result and the commands it ran; every reply must be asked for."""
    command: Command = next(dialogue)
    commands = [str(command)]
    for left, reply in enumerate(replies, start=1):
        try:
            command = dialogue.send(reply)
            commands.append(str(command))
        except StopIteration as stop:
            assert left == len(replies), f"{len(replies) - left} replies were not asked for"
            return stop.value, commands
    raise AssertionError(f"the dialogue wants a reply to {commands[-1]}")


def search(
    scheduler: Scheduler, tag: str, options: Mapping[str, object]
) -> Dialogue[dict[str, Observation] | NoAnswer]:
    """The search for one name, as a dialogue of its own."""
    found = yield from scheduler.find([tag], options)
    return found if isinstance(found, NoAnswer) else found[tag]
