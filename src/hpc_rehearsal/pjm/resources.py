"""The resources of a job (-L): checks and sums."""

from __future__ import annotations

import math
import re

from hpc_rehearsal.pjm.formats import invalid_argument, refusal, seconds, size, unknown_argument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Record = dict[str, Any]

_SHORT = {"ru": "rscunit", "rg": "rscgrp"}
_SIZES = ("node-mem", "vnode-mem", "core-mem")
_OTHERS = ("jobenv", "exepjrsh", "freq", "eco_state", "retention_state", "proc-core", "proc-stack")
_NODE = re.compile(r"(\d{1,7})((?:x\d{1,7}){0,2})((?::[a-z-]+)*)", re.ASCII)
_DAY_SECONDS = 86400


def request(config: Record, given: dict[str, str]) -> Record:
    """The resources' part of a job's record, checked as pjsub does."""
    asked = {_SHORT.get(name, name): value for name, value in given.items()}
    unit = _named(config, asked, "rscunit", {name: {} for name in config["rscunits"]})
    group = _named(config, asked, "rscgrp", config["rscgrps"])
    limits = config["rscgrps"][group]
    _known(config, asked)
    nodes, shape = _nodes(asked)
    elapse = _elapse(asked, limits)
    for name, text, value, read in (
        ("node", asked.get("node", str(nodes)), nodes, str),
        ("elapse", str(elapse), elapse, str),
    ):
        low, high = limits.get(name, (0, None))
        if value < low:
            said = f"{name}={text} is less than the lower limit ({read(low)})."
            raise refusal("pjsub", 54, said)
        if high is not None and value > high:
            said = f"{name}={text} is greater than the upper limit ({read(high)})."
            raise refusal("pjsub", 57, said)
    sizes = [size(asked[name]) or 0 for name in _SIZES if name in asked]
    return {
        "rscunit": unit,
        "rscgrp": group,
        "nodes": nodes,
        "shape": shape,
        "vnode": asked.get("vnode", "-").partition("(")[0],
        "core": asked.get("vnode-core", "-"),
        "vmem": asked.get("vnode-mem", "-"),
        "elapse": elapse,
        "memory": min((each for each in sizes if each), default=0) * nodes,
    }


def _named(config: Record, asked: Record, kind: str, known: dict[str, Record]) -> str:
    name = asked.get(kind) or config[f"default_{kind}"]
    if not name:
        raise refusal("pjsub", 69, f"{kind} in -L option is not specified.")
    if name not in known:
        raise refusal("pjsub", 58, f"{kind}={name} does not exist.")
    if not known[name].get("enabled", True):
        raise refusal("pjsub", 59, f"{kind}={name} is disabled.")
    return str(name)


def _known(config: Record, asked: Record) -> None:
    """Check that pjsub knows every item, and that each value is valid."""
    ours = ("rscunit", "rscgrp", "node", "elapse", "vnode", "vnode-core", "gpu")
    for name, value in asked.items():
        item = f"{name}={value}"
        if name not in (*ours, *_SIZES, *_OTHERS, *config["resources"]):
            raise unknown_argument("pjsub", "-L", item)
        wrong = not value or (name in _SIZES and size(value) is None)
        if wrong or (name in ("vnode-core", "gpu") and not value.isdecimal()):
            raise invalid_argument("pjsub", "-L", item)


def _nodes(asked: Record) -> tuple[int, str]:
    """The number of nodes, and its text in NODE_REQUIRE."""
    text = asked.get("node", "1")
    match = _NODE.fullmatch(text)
    if not match:
        raise invalid_argument("pjsub", "-L", f"node={text}")
    shape = match[1] + match[2]
    count = math.prod(int(number) for number in shape.split("x"))
    if not count:
        raise invalid_argument("pjsub", "-L", f"node={text}")
    return count, f"{count}:{shape}" if match[2] else str(count)


def _elapse(asked: Record, limits: Record) -> int:
    if "elapse" not in asked:
        return int(limits.get("elapse_default", limits.get("elapse", (0, _DAY_SECONDS))[1]))
    found = seconds(asked["elapse"])
    if not found:
        raise invalid_argument("pjsub", "-L", f"elapse={asked['elapse']}")
    return found
