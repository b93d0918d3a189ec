"""What many commands print: texts of others, and times."""

from __future__ import annotations

import time


def printable(text: str) -> str:
    """Text of others in one line that cannot do anything to a terminal."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else "?" for each in text)


def moment(seconds: object) -> str:
    """A time on this machine's clock; the day only when it is not today."""
    if not isinstance(seconds, int | float) or not seconds:
        return "-"
    try:
        then, now = time.localtime(seconds), time.localtime()
    except (OverflowError, ValueError, OSError):  # a record that makes no sense
        return "?"
    today = then[:3] == now[:3]
    return time.strftime("%H:%M:%S" if today else "%Y-%m-%d %H:%M", then)
