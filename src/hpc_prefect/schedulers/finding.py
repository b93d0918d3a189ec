"""The finding of a check of a site."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Outcome(enum.StrEnum):
    """How a check came out. One that could not be made is `UNKNOWN`, never `OK`."""

    OK = "ok"
    WRONG = "wrong"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Finding:
    """The outcome of one check.

    Attributes:
        check: what was looked at, in a word or two.
        seen: what was seen.
        remedy: what to do about it.
    """

    check: str
    outcome: Outcome
    seen: str
    remedy: str = ""


def ok(check: str, seen: str) -> Finding:
    return Finding(check, Outcome.OK, seen)


def wrong(check: str, seen: str, remedy: str) -> Finding:
    return Finding(check, Outcome.WRONG, seen, remedy)


def unknown(check: str, seen: str, remedy: str = "") -> Finding:
    return Finding(check, Outcome.UNKNOWN, seen, remedy)
