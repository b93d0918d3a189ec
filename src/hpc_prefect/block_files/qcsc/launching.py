"""Makes one launcher line of their launcher and options, and finds their number of ranks."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

#: Options that give numbers, by what they count. `-N` counts ranks per node for Open MPI's
#: launchers and nodes for srun.
_RANKS = ("-n", "--n", "-np", "--np", "--ntasks")
_PER_NODE = ("-ppn", "--ppn", "-perhost", "-npernode", "--npernode", "--ntasks-per-node")
_NODES = ("-N", "--nodes")
_THREADS = ("-c", "--cpus-per-task")


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """The job's numbers, with which those of a launcher line are compared."""

    nodes: int
    ranks_per_node: int
    threads: int = 1

    @property
    def ranks(self) -> int:
        return self.nodes * self.ranks_per_node


def told_ranks(options: Sequence[str]) -> int | None:
    """The number of ranks in a launcher's options; None if they have none."""
    found = [int(number) for _, _, number in _numbers(_joined(options), _RANKS)]
    return found[-1] if found else None


def launcher_line(launcher: str, options: Sequence[str], shape: Shape) -> tuple[str, list[str]]:
    """Their launcher as a launcher line, and the options whose number is not the job's.

    A number that is the job's becomes a placeholder, so that the line serves other jobs too.
    Without a number of ranks their launcher started as many as the job had, so the line gets it.
    """
    text, odd = _joined(options), []
    counted = {
        **dict.fromkeys(_RANKS, ("ranks", shape.ranks)),
        **dict.fromkeys(_PER_NODE, ("ranks_per_node", shape.ranks_per_node)),
    }
    if launcher == "srun":
        counted |= dict.fromkeys(_NODES, ("nodes", shape.nodes))
        counted |= dict.fromkeys(_THREADS, ("threads", shape.threads))
    else:
        counted["-N"] = ("ranks_per_node", shape.ranks_per_node)
    for option, between, number in _numbers(text, tuple(counted)):
        name, own = counted[option]
        if int(number) != own:
            odd.append(f"{option}{between}{number}")
            continue
        pattern = rf"(?<!\S){re.escape(option + between + number)}(?!\S)"
        text = re.sub(pattern, f"{option}{between}{{{name}}}", text)
    if told_ranks(options) is None:
        text = f"-n {{ranks}} {text}"
    return " ".join(f"{launcher} {text}".split(" ")).strip() + " {command}", odd


def _joined(options: Sequence[str]) -> str:
    return " ".join(option.strip() for option in options)


def _numbers(text: str, names: tuple[str, ...]) -> list[tuple[str, str, str]]:
    """(option, what stands between, number) for each of these options that has a number."""
    wanted = "|".join(re.escape(name) for name in sorted(names, key=len, reverse=True))
    return re.findall(rf"(?<!\S)({wanted})([ =])([0-9]+)(?!\S)", text)


def pjm_ranks(options: Sequence[str], nodes: int) -> tuple[int | None, list[str]]:
    """The ranks in PJM's `--mpi` directives, and the items about other things.

    Without `proc` PJM starts as many on each node as are allowed.
    """
    ranks, per_node, rest = None, None, []
    for item in (item.strip() for option in options for item in option.split(",")):
        name, _, value = item.partition("=")
        if name == "proc" and _is_number(value):
            ranks = int(value)
        elif name == "max-proc-per-node" and _is_number(value):
            per_node = int(value)
        elif item:
            rest.append(item)
    if ranks is None and per_node is not None:
        ranks = nodes * per_node
    return ranks, rest


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and 0 < int(text) < 10**9
