"""The formats of PJM for messages, times and sizes."""

from __future__ import annotations

import re
import time

from hpc_rehearsal.common.text import Refusal

#: The hundreds digit of each command's message numbers.
_HUNDREDS = {
    "pjsub": 0,
    "pjdel": 1,
    "pjstat": 2,
    "pjhold": 3,
    "pjrls": 4,
    "pjwait": 6,
    "pjacl": 32,
}
_UNITS = {
    "Ki": 2**10,
    "Mi": 2**20,
    "Gi": 2**30,
    "Ti": 2**40,
    "": 2**20,
    "K": 10**3,
    "M": 10**6,
    "G": 10**9,
    "T": 10**12,
}
_UNKNOWN_OPTION, _UNKNOWN_ARGUMENT, _INVALID_ARGUMENT, _ABSENT = 1, 3, 4, 90


def error(command: str, number: int, text: str) -> str:
    return f"[ERR.] PJM {_code(command, number)} {command} {text}\n"


def info(command: str, number: int, text: str) -> str:
    return f"[INFO] PJM {_code(command, number)} {command} {text}\n"


def _code(command: str, number: int) -> str:
    return f"{_HUNDREDS[command] * 100 + number:04}"


def refusal(command: str, number: int, text: str, *, usage: bool = False) -> Refusal:
    hint = f"Try `{command} --help` for more information.\n" if usage else ""
    return Refusal(error(command, number, text) + hint, 1)


def unknown_option(command: str, option: str) -> Refusal:
    text = f"Unknown option or no option argument: {option}."
    return refusal(command, _UNKNOWN_OPTION, text, usage=True)


def unknown_argument(command: str, option: str, value: str) -> Refusal:
    text = f"Unknown option argument: {option} {value}."
    return refusal(command, _UNKNOWN_ARGUMENT, text, usage=True)


def invalid_argument(command: str, option: str, value: str) -> Refusal:
    return refusal(command, _INVALID_ARGUMENT, f"Invalid option argument: {option} {value}.")


def absent(command: str) -> Refusal:
    return refusal(command, _ABSENT, "PJM daemon is not present.")


def job_numbers(word: str) -> list[int] | None:
    """The numbers in 12 or 12-15; for 12[3] or 12_3 that of the whole; None for no job id."""
    match = re.fullmatch(r"(\d{1,10})(?:-(\d{1,10})|\[[\d,-]+\]|_\d+)?", word, re.ASCII)
    if not match:
        return None
    first, last = int(match[1]), int(match[2] or match[1])
    return list(range(first, min(last, first + 10_000) + 1))


def parts_named(word: str) -> list[int] | None:
    """The numbers of sub jobs in 12[3], 12[3-5] or 12[3,5]; None if it names none."""
    match = re.fullmatch(r"\d{1,10}\[([\d,-]+)\]", word, re.ASCII)
    found: list[int] = []
    for span in match[1].split(",") if match else ():
        ends = re.fullmatch(r"(\d{1,6})(?:-(\d{1,6}))?", span, re.ASCII)
        if not ends:
            return None
        found += range(int(ends[1]), int(ends[2] or ends[1]) + 1)
    return found if match else None


# Times and sizes


def seconds(text: str) -> int | None:
    """The seconds of [[H:]M:]S or 1h30m; for a range its upper end; None if it is no time."""
    low, dash, high = text.partition("-")
    if dash:
        least = seconds(low)
        return least if not high else None if least is None else seconds(high)
    if re.fullmatch(r"\d+(:\d+){0,2}", text, re.ASCII):
        total = 0
        for part in text.split(":"):
            total = total * 60 + int(part)
        return total
    match = re.fullmatch(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?", text, re.ASCII)
    if not text or not match:
        return None
    hours, minutes, rest = (int(part or 0) for part in match.groups())
    return hours * 3600 + minutes * 60 + rest


def size(text: str) -> int | None:
    """The bytes of a size, in Mi without a unit; 0 for unlimited, None if it is no size."""
    if text == "unlimited":
        return 0
    match = re.fullmatch(r"(\d+)([KMGT]i?|)", text, re.ASCII)
    return int(match[1]) * _UNITS[match[2]] if match else None


def hms(value: float) -> str:
    whole = max(0, int(value))
    return f"{whole // 3600:04}:{whole // 60 % 60:02}:{whole % 60:02}"


def moment(when: float) -> str:
    """A time as in tables: without year and zone."""
    return time.strftime("%m/%d %H:%M:%S", time.localtime(when))


def planned(when: float) -> str:
    return time.strftime("(%m/%d %H:%M)", time.localtime(when))


def date(when: float) -> str:
    """A time as in statistics; the format is assumed."""
    return time.strftime("%Y/%m/%d %H:%M:%S", time.localtime(when)) if when else "-"
