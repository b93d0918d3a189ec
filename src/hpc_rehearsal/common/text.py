"""Refusals, and the splitting and quoting of text, for all schedulers."""

from __future__ import annotations


class Refusal(Exception):
    """A command refuses what it was asked: the text for stderr, and the exit status."""

    def __init__(self, text: str, code: int) -> None:
        super().__init__(text)
        self.text, self.code = text, code


def split(text: str, separators: str) -> list[str]:
    """Split at separators that are neither quoted nor after a backslash; quotes are kept."""
    parts, quote, escaped = [""], "", False
    for character in text:
        if escaped or (character == "\\" and quote != "'"):
            escaped = not escaped
        elif quote:
            quote = "" if character == quote else quote
        elif character in "\"'":
            quote = character
        elif character in separators:
            parts.append("")
            continue
        parts[-1] += character
    return parts


def unquoted(text: str) -> str:
    """The text without the quotes around its parts and the backslashes before its characters."""
    out, quote, escaped = "", "", False
    for character in text:
        if escaped:
            out, escaped = out + character, False
        elif character == "\\" and quote != "'":
            escaped = True
        elif quote and character == quote:
            quote = ""
        elif not quote and character in "\"'":
            quote = character
        else:
            out += character
    return out


def shell_quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"
