"""A job's record as `qstat -f` shows it: which attributes, in which order, as text or as JSON."""

from __future__ import annotations

from hpc_rehearsal.pbs import arrays
from hpc_rehearsal.pbs.formats import SERVER, VERSION, hms, listed, moment

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Record = dict[str, Any]
    Value = str | int | dict[str, Any]

# PBS reports what a job uses every few seconds: recorded jobs of up to one second had no
# session_id, those of two seconds and more had one.
REPORT_SECONDS = 2.0

_FIRST_WIDTH, _WIDTH, _TAB = 79, 78, 8
_NOT_COPIED = ("history_timestamp", "project", "Submit_Host")
# The attributes of the alternative display, in its order: `qstat -fHw` shows only these.
_ALTERNATIVE = ("Resource_List", "Job_Name", "Job_Owner", "resources_used", "job_state", "queue")


def attributes(job: Record, now: float) -> dict[str, Value]:
    """The attributes in the server's order; None values are not shown."""
    reported = job["used"] is not None or (job["stime"] and now - job["stime"] >= REPORT_SECONDS)
    running = job["state"] == "R"
    substate = 42 if running and reported else job["substate"]
    array, options = job.get("array"), job["options"]
    if whole := bool(array) or "copied" in job:
        reported = False  # nothing is used by it itself
    begun = job["stime"] and not whole
    moments = {
        name: moment(job[name]) if job[name] else None
        for name in ("ctime", "mtime", "qtime", "stime", "obittime", "etime")
    }
    part = "parent" in job  # a subjob with a record of its own lacks some attributes
    every: dict[str, Value | None] = {
        "Job_Name": job["name"],
        "Job_Owner": job["owner"],
        "resources_used": used(job, now) if job["stime"] and reported else None,
        "job_state": job["state"],
        "queue": job["queue"],
        "server": SERVER,
        "Account_Name": options.get("A"),
        "Checkpoint": None if part else "u",
        "ctime": moments["ctime"],
        "depend": job["depend"] or None,
        "Error_Path": job["err"],
        "exec_host": job["placed"]["exec_host"] if job["placed"] else None,
        "exec_vnode": job["placed"]["exec_vnode"] if job["placed"] else None,
        "Execution_Time": moment(job["at"]) if job["at"] else None,
        "group_list": job["group"] or None,
        "Hold_Types": None if part else job["hold"],
        "Join_Path": options.get("j", "n"),
        "Keep_Files": options.get("k", "n"),
        "Mail_Points": options.get("m", "a"),
        "mtime": moments["mtime"],
        "Output_Path": job["out"],
        "Priority": int(options.get("p", 0)),
        "qtime": moments["qtime"],
        "Rerunable": "False" if options.get("r") == "n" else "True",
        "Resource_List": job["resources"]["list"],
        "stime": moments["stime"],
        "obittime": moments["obittime"],
        "session_id": job["session"] if reported and job["session"] else None,
        "Shell_Path_List": options.get("S"),
        "jobdir": job["home"] if begun and (reported or not running) else None,
        "substate": substate,
        "Variable_List": ",".join(job["variables"]),
        "comment": job["comment"] or None,
        "etime": moments["etime"],
        "block": "True" if job["block"] else None,
        "run_count": job["runs"] or None,
        "Stageout_status": job["stageout"],
        "Exit_status": job["exit"],
        "Submit_arguments": None if part else job["arguments"],
        **_command(job["command"]),
        **arrays.attributes(job, over=job["state"] == "F"),
        "history_timestamp": int(job["history"]) if job["history"] else None,
        "project": options.get("P", "_pbs_project_default"),
        "Submit_Host": SERVER,
        "max_run_subjobs": (array["at_once"] or None) if array else None,
    }
    if "copied" in job:  # nothing behind the arguments
        every = {name: value for name, value in every.items() if name not in _NOT_COPIED}
    return {name: value for name, value in every.items() if value is not None}


def used(job: Record, now: float) -> dict[str, Value]:
    """The resources used. If a job ran too briefly to be reported, all are 0 but its cpus."""
    found = job["used"] or {"walltime": now - job["stime"], "cpu": 0.0, "memory": 0}
    if found["walltime"] < REPORT_SECONDS:
        found = {**found, "cpu": 0.0, "memory": 0}
    memory = f"{found['memory'] // 1024}kb"
    return {
        "cpupercent": 0,  # assumed: not measured here
        "cput": hms(found["cpu"]),
        "mem": memory,
        "ncpus": job["resources"]["list"]["ncpus"],
        "vmem": memory,  # assumed: the same
        "walltime": hms(found["walltime"]),
    }


def _command(words: list[str] | None) -> dict[str, Value]:
    """The command of `qsub -- command`, as XML."""
    if not words:
        return {}
    tags = [f"<jsdl-hpcpa:Executable>{_xml(words[0])}</jsdl-hpcpa:Executable>"]
    rest = [f"<jsdl-hpcpa:Argument>{_xml(word)}</jsdl-hpcpa:Argument>" for word in words[1:]]
    return {"executable": tags[0], **({"argument_list": "".join(rest)} if rest else {})}


def _xml(text: str) -> str:
    for character, name in (("&", "amp"), ("<", "lt"), (">", "gt"), ('"', "quot"), ("'", "apos")):
        text = text.replace(character, f"&{name};")
    return text


# Text


def as_text(job: Record, now: float, *, wide: bool = False, short: bool = False) -> str:
    """One record and the empty line behind it."""
    shown = attributes(job, now)
    if short:
        shown = {name: shown[name] for name in _ALTERNATIVE if name in shown}
    lines = [f"Job Id: {job['id']}"]
    for name, value in shown.items():
        if isinstance(value, dict):
            lines += [line(f"{name}.{part}", str(text), wide) for part, text in value.items()]
        else:
            lines.append(line(name, str(value), wide))
    return "\n".join(lines) + "\n\n"


def line(name: str, value: str, wide: bool) -> str:
    """One attribute, cut at commas where that is possible; `wide` cuts nothing."""
    out = f"    {name} = "
    if wide:
        return out + _printable(value)
    column, first = len(out), True
    parts = _at_commas(_printable(value))
    for part in parts:
        if column + len(part) < _FIRST_WIDTH:
            out, column, first = out + part, column + len(part), False
            continue
        limit = _FIRST_WIDTH
        if not first:
            out, column, limit = out + "\n\t", _TAB, _WIDTH
        for character in part:
            if column >= limit and character != ",":
                out, column, limit = out + "\n\t", _TAB, _WIDTH
            out, column = out + character, column + 1
        first = False
    return out


def _at_commas(text: str) -> list[str]:
    """Pieces that end with a comma; a comma after a backslash does not end one."""
    parts, piece, before = [], "", ""
    for character in text:
        piece += character
        if character == "," and before != "\\":
            parts.append(piece)
            piece = ""
        before = character
    return [*parts, piece]


def _printable(text: str) -> str:
    return "".join(
        f"^{chr(ord(c) ^ 64)}" if (ord(c) < 32 and c not in "\n\t") or ord(c) == 127 else c
        for c in text
    )


# JSON, as the library that PBS uses prints it


def as_json(jobs: list[Record], now: float) -> str:
    whole: dict[str, Any] = {
        "timestamp": int(now),
        "pbs_version": VERSION,
        "pbs_server": SERVER,
    }
    if jobs:
        whole["Jobs"] = {job["id"]: _json_values(attributes(job, now)) for job in jobs}
    return _object(whole, 1) + "\n"


def _json_values(shown: dict[str, Value]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, value in shown.items():
        if name == "Variable_List":
            values[name] = {key: _number(text) for key, text in listed(str(value))}
        elif isinstance(value, dict):
            values[name] = {key: _number(text) for key, text in value.items()}
        else:
            # Assumed: of all attributes only the job's name stays a text whatever it looks like.
            values[name] = value if name == "Job_Name" else _number(value)
    return values


def _number(value: object) -> object:
    """A text that looks like a number becomes one, as in PBS: 00123 becomes 123."""
    if not isinstance(value, str):
        return value
    body = value.removeprefix("-")
    if not body[:1].isdecimal() or not set(value) <= set("0123456789.eE+-"):
        return value
    try:
        return float(value)
    except ValueError:
        return value


def _object(value: dict[str, Any], depth: int) -> str:
    tabs = "\t" * depth
    lines = [f"{tabs}{_text(key)}:\t{_value(item, depth)}" for key, item in value.items()]
    return "{\n" + ",\n".join(lines) + "\n" + "\t" * (depth - 1) + "}"


def _value(item: object, depth: int) -> str:
    if isinstance(item, dict):
        return _object(item, depth + 1)
    if isinstance(item, int):
        return str(item)
    if isinstance(item, float):
        return _float(item)
    return _text(str(item))


def _float(number: float) -> str:
    if number in (float("inf"), float("-inf")):
        return "null"
    if number == int(number) and abs(number) < 2**31:
        return str(int(number))
    short = f"{number:.15g}"
    return short if float(short) == number else f"{number:.17g}"


_ESCAPES = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r", "\b": "\\b"}


def _text(text: str) -> str:
    """A JSON string; bytes that are no UTF-8 are kept as they are."""
    out = []
    for c in text:
        if c in _ESCAPES or c == "\f":
            out.append(_ESCAPES.get(c, "\\f"))
        else:
            out.append(f"\\u{ord(c):04x}" if ord(c) < 32 else c)
    return '"' + "".join(out) + '"'
