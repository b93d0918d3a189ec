"""The loop's checkpoints: written after every iteration, exact to the last bit.

    <folder>/checkpoint            the newest: one line of JSON for people, then the payload
    <folder>/checkpoint.previous   the one before, used when the newest is damaged
    <folder>/iterations.jsonl      one row an iteration, for people and programs
    <folder>/loop.json             the loop's name, seed, stop rule and parameters

The payload is a pickle (protocol 5), because only that restores arbitrary Python states and NumPy
generators exactly. Unpickling runs code, so only a file is loaded that only this user can have
written; the folder is the user's own, mode 0700.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import pickle
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from hpc_prefect.convergence.stop import Reason, Row, StopRule
from hpc_prefect.errors import ConfigurationError, LedgerError
from hpc_prefect.transports.local import LocalTransport, read_private, write_atomic

Log: TypeAlias = "logging.Logger | logging.LoggerAdapter[Any]"

_FORMAT = "hpc-prefect convergence checkpoint, 1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A loop between two iterations.

    Attributes:
        state: what the last step returned, or the initial state.
        rng: the NumPy generator after that step.
        history: every iteration so far.
        elapsed: seconds that these iterations took, in all runs.
        rule: the stop rule as it was when the loop started.
        parameters: the other entries of the algorithm Variable at that time.
        reason: why the loop ended; None while it is under way.
    """

    state: Any
    rng: Any
    rule: StopRule
    parameters: dict[str, Any] = field(default_factory=dict)
    history: tuple[Row, ...] = ()
    elapsed: float = 0.0
    reason: Reason | None = None


class DamagedError(Exception):
    """A checkpoint file is torn or altered."""


class Checkpoints:
    """The checkpoint files of one loop in one folder."""

    def __init__(self, folder: Path, log: Log) -> None:
        self.folder = folder
        self._log = log
        self._newest = folder / "checkpoint"
        self._previous = folder / "checkpoint.previous"

    def load(self) -> Checkpoint | None:
        """The newest usable checkpoint; None when the loop was never started.

        A damaged file is renamed to `.damaged`, and the one before it is used.

        Raises:
            LedgerError: there are files, but none can be used.
            NotOurs: another user may have written one.
        """
        damage: list[str] = []
        for path in (self._newest, self._previous):
            data = read_private(path)
            if data is None:
                continue
            try:
                found = _decode(path, data)
            except DamagedError as error:
                damage.append(f"{path}: {error}")
                # Rename it: else the next save would move it over the good one.
                os.replace(path, path.with_name(path.name + ".damaged"))
                continue
            if damage:
                went_on = f"going on from {path.name}, after iteration {len(found.history)}"
                self._log.warning("damaged checkpoint set aside (%s); %s", damage[0], went_on)
            return found
        if damage or any(self.folder.glob("checkpoint*.damaged")):
            what = "; ".join(damage) or "set aside by an earlier run"
            raise LedgerError(
                f"no usable checkpoint is left in {self.folder} ({what}). To start this loop from "
                f"the beginning remove that folder; finished jobs and samplings are found again"
            )
        return None

    def save(self, checkpoint: Checkpoint) -> Checkpoint:
        """Write `checkpoint` and return it *as read back*.

        The loop goes on from what was read back, so that a run that is killed and one that is not
        compute on the same objects (the memory order of an array can change a sum's last bit).

        Raises:
            ConfigurationError: the state cannot be pickled.
            LedgerError: the files cannot be written.
        """
        data = _encode(checkpoint)
        written = self.folder / "checkpoint.new"
        try:
            LocalTransport().make_folder(str(self.folder))
            write_atomic(written, data, durable=True)
            if self._newest.exists():
                os.replace(self._newest, self._previous)
            # A kill here leaves the previous one, and this iteration is computed again.
            os.replace(written, self._newest)
        except OSError as error:
            raise LedgerError(f"cannot write the checkpoint in {self.folder}: {error}") from error
        return _decode(self._newest, data)

    def note(self, name: str, data: str) -> None:
        """Write a file for people beside the checkpoint."""
        LocalTransport().make_folder(str(self.folder))
        write_atomic(self.folder / name, data.encode())


def _encode(checkpoint: Checkpoint) -> bytes:
    content = {
        "state": checkpoint.state,
        "rng": checkpoint.rng,  # in one pickle with the state: the state may contain the generator
        "history": [dict(row) for row in checkpoint.history],
        "elapsed": checkpoint.elapsed,
        "rule": checkpoint.rule.as_dict(),
        "parameters": checkpoint.parameters,
        "reason": checkpoint.reason,
    }
    try:
        payload = pickle.dumps(content, protocol=5)
    except Exception as error:  # the user's own classes may raise anything
        raise ConfigurationError(
            f"the state after iteration {len(checkpoint.history)} cannot be saved: {error}. Keep "
            f"plain data in it (numbers, arrays, dataclasses defined at the top of a module), not "
            f"open files, connections, lambdas or running tasks"
        ) from error
    header = {
        "format": _FORMAT,
        "iterations": len(checkpoint.history),
        "reason": checkpoint.reason,
        "stop": content["rule"],
        "bytes": len(payload),
        "sha256": hashlib.sha256(payload).hexdigest(),
    }
    return json.dumps(header).encode() + b"\n" + payload


def _decode(path: Path, data: bytes) -> Checkpoint:
    line, _, payload = data.partition(b"\n")
    try:
        header = json.loads(line)
        layout, digest = header["format"], header["sha256"]
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedError("its first line cannot be read") from error
    if layout != _FORMAT:
        raise LedgerError(f"{path} was written by another version of hpc-prefect: {layout!r}")
    if hashlib.sha256(payload).hexdigest() != digest:
        raise DamagedError(f"its content ({len(payload)} bytes) was changed since it was written")
    try:
        content = pickle.loads(payload)
    except Exception as error:  # the user's own classes may raise anything
        raise LedgerError(
            f"{path} is undamaged, but its state cannot be loaded: {type(error).__name__}: {error}."
            f" Was a class of the state moved or renamed, or the flow started in another way "
            f"(a class of the script itself is only found when that script is run)? Undo that to "
            f"resume, or remove {path.parent} to start this loop from the beginning"
        ) from error
    rule, history = StopRule(**content.pop("rule")), tuple(content.pop("history"))
    return Checkpoint(rule=rule, history=history, **content)
