"""A conversation with a scheduler as data: commands out, replies in, a fact at the end.

A scheduler dialect is a set of generators that yield `Command` and receive `Reply`. Whoever has a
transport runs them; a test feeds them recorded text.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field
from typing import TypeVar


@dataclass(frozen=True, slots=True)
class Command:
    """A command to run where the scheduler is.

    Attributes:
        argv: the program and its arguments; no shell is involved.
        timeout: seconds after which it is killed with its children; a hung server must not hang us.
        stdin: text for its standard input.
        environment: variables that it gets beside the inherited ones.
        inherits: names of the variables that it inherits, when not all; a `*` at the end of a name
            stands for anything.
        cwd: the folder in which it runs; empty where that does not matter.
    """

    argv: tuple[str, ...]
    timeout: float = 60.0
    stdin: str = ""
    environment: dict[str, str] = field(default_factory=dict)
    inherits: tuple[str, ...] | None = None
    cwd: str = ""

    def __str__(self) -> str:
        return " ".join(self.argv)


@dataclass(frozen=True, slots=True)
class Reply:
    """What a command answered. `code` is None when it was killed at its time limit.

    Output is decoded as UTF-8 with replacement: one job with a bad name must not make the answer
    about all the others unreadable.
    """

    code: int | None
    stdout: str = ""
    stderr: str = ""

    @property
    def said(self) -> str:
        """The reply in a few words, for messages."""
        text = self.stderr.strip() or self.stdout.strip() or "nothing"
        status = "no answer in time" if self.code is None else f"exit status {self.code}"
        return f"{status}, {text[-600:]}"


T = TypeVar("T")
Dialogue = Generator[Command, Reply, T]
