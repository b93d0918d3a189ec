"""The formats of PBS for options, times, sizes and variables."""

from __future__ import annotations

import time

SERVER = "opbs"  # the name of the server, and of the one host with all its nodes
VERSION = "23.06.06"
#: Exit statuses.
UNKNOWN_ID, BAD_ID, FINISHED, UNKNOWN_QUEUE, NOT_CONNECTED = 153, 1, 35, 170, 162
UNAUTHORIZED, BAD_STATE, NOT_RERUNNABLE = 159, 168, 1  # the last two: assumed

_UNITS = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40, "p": 2**50}
_WORD_BYTES = 8


def getopt(words: list[str], known: str) -> tuple[list[tuple[str, str]], list[str], list[str]]:
    """The options in their order, the operands, and the letters that are no options.

    As getopt(3) reads them: `--nosuch` is the letters -, n, o and the value "such".
    """
    found: list[tuple[str, str]] = []
    unknown: list[str] = []
    ahead = list(words)
    while ahead and ahead[0].startswith("-") and ahead[0] != "-":
        word = ahead.pop(0)
        if word == "--":
            break
        letters = word[1:]
        while letters:
            letter, letters = letters[0], letters[1:]
            place = known.find(letter)
            if letter in ":-" or place < 0:
                unknown.append(letter)
            elif known[place + 1 : place + 2] != ":":
                found.append((letter, ""))
            else:
                if not letters and not ahead:
                    unknown.append(letter)
                else:
                    found.append((letter, letters or ahead.pop(0)))
                letters = ""
    return found, ahead, unknown


# Times and sizes


def seconds(text: str) -> int | None:
    """The seconds of [[HH:]MM:]SS; None if it is no time. A part may be larger than 59."""
    parts = text.split(":")
    if not 1 <= len(parts) <= 3 or not all(part.isascii() and part.isdecimal() for part in parts):
        return None
    total = 0
    for part in parts:
        total = total * 60 + int(part)
    return total


def hms(value: float) -> str:
    whole = int(value)
    return f"{whole // 3600:02}:{whole // 60 % 60:02}:{whole % 60:02}"


def hm(value: float) -> str:
    return hms(value)[:-3]


def size(text: str) -> int | None:
    """The bytes of 100mb, 4gw, 77; None if it is no size."""
    digits = text.lower().rstrip("bwkmgtp")
    unit = text.lower()[len(digits) :]
    if not (digits.isascii() and digits.isdecimal()):
        return None
    word = _WORD_BYTES if unit.endswith("w") else 1
    prefix = unit[:-1] if unit[-1:] in ("b", "w") else unit
    return int(digits) * _UNITS[prefix] * word if prefix in _UNITS else None


def size_text(value: int) -> str:
    """A size in the largest unit without a fraction. Assumed, for sums only."""
    best = ""
    for unit, factor in _UNITS.items():
        if value and value % factor == 0:
            best = unit
    return f"{value // _UNITS[best]}{best}b"


def moment(when: float) -> str:
    """Local time without a zone: Sun Nov 22 10:51:06 2026"""
    return time.ctime(when)


def started_text(when: float) -> str:
    return time.strftime("%a %b %d at %H:%M", time.localtime(when))


# Variables. The list is one text, and PBS damages some values in it; so does this.


def encoded(value: str, *, whole: bool = False) -> str:
    """A value as it is written in the job's Variable_List.

    With -v a quotation mark becomes a backslash, and a backslash becomes two. With -V (`whole`) a
    backslash is put before the mark.
    """
    out = ""
    for character in value:
        if character == '"':
            out += '\\"' if whole else "\\\\"
        elif character == "\\":
            out += "\\\\\\\\"
        elif character == ",":
            out += "\\,"
        else:
            out += character
    return out


def decoded(text: str) -> str:
    """The value that the job gets."""
    out, escaped = "", False
    for character in text:
        if character == "\\" and not escaped:
            escaped = True
            continue
        out, escaped = out + character, False
    return out


def listed(text: str) -> list[tuple[str, str]]:
    """Names and values as `qstat -F json` reads the list: a comma after a backslash counts as part
    of the value, even if the backslash is the value's own last character."""
    parts = [""]
    for index, character in enumerate(text):
        if character == "," and not (index and text[index - 1] == "\\"):
            parts.append("")
        else:
            parts[-1] += character
    pairs = [part.replace("\\,", ",").partition("=") for part in parts]
    return [(name, value) for name, _, value in pairs]
