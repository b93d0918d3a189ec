"""Records of the spool: flat JSON, written without the `json` package."""

from __future__ import annotations

import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from json.encoder import encode_basestring_ascii as quote
    from typing import Any

    Record = dict[str, Any]
else:
    try:  # the `json` package would take a third of a submission's time
        from _json import encode_basestring_ascii as quote
    except ImportError:
        from json.encoder import encode_basestring_ascii as quote


def ending(end: str, *, message: str = "", by: str | None = None) -> Record:
    return {
        "end": end,
        "exit_code": None,
        "signal": None,
        "by": by,
        "message": message,
        "ended": time.time(),
        "max_rss": None,
        "cpu_seconds": None,
    }


def dumps(record: Record) -> str:
    """A flat record as one line of JSON."""
    fields = []
    for key, value in record.items():
        text = "null" if value is None else quote(value) if isinstance(value, str) else repr(value)
        fields.append(f"{quote(key)}: {text}")
    return "{" + ", ".join(fields) + "}\n"


def element_id(array_id: str, index: int) -> str:
    return f"{array_id}_{index}"
