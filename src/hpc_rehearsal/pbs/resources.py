"""The resources of a job (-l) and the nodes that it gets: checks and sums."""

from __future__ import annotations

from hpc_rehearsal.common.text import Refusal, split
from hpc_rehearsal.pbs.formats import SERVER, seconds, size, size_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Record = dict[str, Any]

UNKNOWN_RESOURCE, BAD_VALUE, NOT_WITH_SELECT = 187, 166, 5
_NUMBERS = ("ncpus", "mpiprocs", "ompthreads", "ngpus", "nice")
_SIZES = ("mem", "vmem", "pmem", "pvmem", "file")
_TIMES = ("walltime", "cput", "pcput")
_TEXTS = ("arch", "host", "vnode", "software", "nodes", "select", "place")
_OF_CHUNKS = ("ncpus", "mpiprocs", "ompthreads", "mem", "vmem", "ngpus", "arch", "host", "vnode")
_PLACES = ("free", "pack", "scatter", "vscatter")


def pairs(value: str) -> list[tuple[str, str]]:
    """Names and values of one -l: walltime=00:10:00,place=pack:excl"""
    found = []
    for part in split(value, ","):
        name, _, text = part.partition("=")
        found.append((name.strip(), text.strip()))
    return found


def request(
    asked: list[tuple[str, str]], extra: list[str], more: dict[str, int] | None = None
) -> Record:
    """The job's Resource_List and its chunks, checked as the server checks them.

    `extra` names the resources that a site has added; `more` has defaults for chunks.
    """
    given = {name: text for name, text in asked if (name, text) != ("nodes", "")}
    for name, text in given.items():
        _check(name, text, extra, where="Resource_List.")
    if "select" in given:
        for name in given:
            if name in _OF_CHUNKS:
                text = '"-lresource=" cannot be used with "select" or "place", resource is: '
                raise Refusal(f"{text}{name}\n", NOT_WITH_SELECT)
        place = given.get("place", "free")
    elif "nodes" in given:
        # Assumed: the old form is rewritten like this.
        given["select"], place = _of_nodes(given["nodes"]), "scatter"
    else:
        words = [f"{name}={given[name]}" for name in _OF_CHUNKS if name in given]
        if "ncpus" not in given:
            words.insert(0, "ncpus=1")
        given["select"], place = ":".join(["1", *words]), given.get("place", "pack")
    if place.split(":")[0] not in (*_PLACES, "excl", "exclhost", "shared"):
        raise Refusal("Illegal attribute or resource value Resource_List.place\n", BAD_VALUE)
    chunks = [_chunk(text, extra, more or {}) for text in split(given["select"], "+")]
    given = {**given, **_sums(chunks), "place": place}
    for name in _TIMES:
        if name in given:
            given[name] = _time_text(given[name])
    return {"list": dict(sorted(given.items())), "chunks": chunks}


def _time_text(text: str) -> str:
    value = seconds(text) or 0
    return f"{value // 3600:02}:{value // 60 % 60:02}:{value % 60:02}"


def _check(name: str, text: str, extra: list[str], where: str) -> None:
    bad = Refusal(f"Illegal attribute or resource value {where}{name}\n", BAD_VALUE)
    if name in _NUMBERS:
        if not (text.isascii() and text.isdecimal()):
            raise bad
    elif name in _SIZES:
        if size(text) is None:
            raise bad
    elif name in _TIMES:
        if seconds(text) is None:
            raise bad
    elif name not in _TEXTS and name not in extra:
        # The server words it differently for a chunk.
        said = f": {name}" if where == "select." else f" {where}{name}"
        raise Refusal(f"Unknown resource{said}\n", UNKNOWN_RESOURCE)


def _chunk(text: str, extra: list[str], more: dict[str, int]) -> Record:
    first, *rest = split(text, ":")
    count = "1"
    if "=" in first:
        rest.insert(0, first)
    else:
        count = first
    if not (count.isascii() and count.isdecimal()):
        raise Refusal("Illegal attribute or resource value Resource_List.select\n", BAD_VALUE)
    if int(count) == 0:
        raise Refusal("Illegal attribute or resource value\n", BAD_VALUE)
    found: Record = {"count": int(count), "ncpus": 1, "mem": 0, "texts": {}, **more}
    for part in rest:
        name, _, value = part.partition("=")
        _check(name, value, extra, where="select.")
        if name == "mem":
            found["mem"] = size(value)
        elif name in _NUMBERS:
            found[name] = int(value)
        found["texts"][name] = value
    return found


def _of_nodes(text: str) -> str:
    chunks = []
    for part in text.split("+"):
        count, *properties = part.split(":")
        ppn = [word[4:] for word in properties if word.startswith("ppn=")]
        if not count.isdecimal() or not all(word.isdecimal() for word in ppn):
            raise Refusal("Illegal attribute or resource value Resource_List.nodes\n", BAD_VALUE)
        each = ppn[0] if ppn else "1"
        chunks.append(f"{count}:ncpus={each}:mpiprocs={each}")
    return "+".join(chunks)


def _sums(chunks: list[Record]) -> dict[str, Any]:
    total: dict[str, Any] = {"nodect": sum(chunk["count"] for chunk in chunks)}
    total["ncpus"] = sum(chunk["count"] * chunk["ncpus"] for chunk in chunks)
    for name in ("mpiprocs", "ngpus"):
        if any(name in chunk for chunk in chunks):
            total[name] = sum(chunk["count"] * chunk.get(name, 0) for chunk in chunks)
    memory = [chunk for chunk in chunks if "mem" in chunk["texts"]]
    if len(memory) == 1 and memory[0]["count"] == 1:
        total["mem"] = memory[0]["texts"]["mem"]
    elif memory:
        total["mem"] = size_text(sum(chunk["count"] * chunk["mem"] for chunk in memory))
    return total


def over(limits: dict[str, Any], wanted: dict[str, Any]) -> bool:
    """Whether the job asks for more than the queue's resources_max."""
    for name, limit in limits.items():
        if name in wanted:
            asked, most = str(wanted[name]), str(limit)
            read = seconds if name in _TIMES else size
            if (read(asked) or 0) > (read(most) or 0):
                return True
    return False


# Nodes


class Nodes:
    """The free part of the machine. All nodes are alike."""

    def __init__(self, count: int, ncpus: int, memory: int) -> None:
        self.total = {"ncpus": count * ncpus, "mem": count * memory}
        self._free = [{"ncpus": ncpus, "mem": memory} for _ in range(count)]
        self._tasks: set[int] = set()

    def take(self, placed: Record) -> None:
        """Take the resources of a running job."""
        for part in placed["parts"]:
            for name in ("ncpus", "mem"):
                self._free[part["node"]][name] -= part[name]
        self._tasks.update(placed["tasks"])

    def lacking(self, job: Record) -> str:
        """Why the job cannot start now, as PBS's comment; empty if it can."""
        chunks = job["resources"]["chunks"]
        for name in ("ncpus", "mem"):
            needs = sum(chunk["count"] * chunk[name] for chunk in chunks)
            free = sum(node[name] for node in self._free)
            if needs > free:
                total = self.total[name]
                # Assumed: A (available) is what is free now, even if the job can never run.
                head = "Can Never Run" if needs > total else "Not Running"
                free = total if needs > total else free
                numbers = (needs, free, total)
                texts = [size_text(n) if name == "mem" else str(n) for n in numbers]
                amounts = f"(R: {texts[0]} A: {texts[1]} T: {texts[2]})"
                return f"{head}: Insufficient amount of resource: {name} {amounts}"
        return ""

    def place(self, job: Record) -> Record:
        """Place each chunk. A chunk that fits on no node is spread over several."""
        parts: list[Record] = []
        chunks: list[str] = []
        hosts: list[str] = []
        tasks: list[int] = []
        for chunk in job["resources"]["chunks"]:
            for _ in range(chunk["count"]):
                got = self._room(chunk)
                for part in got:
                    for name in ("ncpus", "mem"):
                        self._free[part["node"]][name] -= part[name]
                parts += got
                chunks.append("(" + "+".join(_vnode(part) for part in got) + ")")
                task = next(n for n in range(10**6) if n not in self._tasks)
                self._tasks.add(task)
                tasks.append(task)
                times = f"*{chunk['ncpus']}" if chunk["ncpus"] != 1 else ""
                hosts.append(f"{SERVER}/{task}{times}")
        exec_host, exec_vnode = "+".join(hosts), "+".join(chunks)
        return {"parts": parts, "tasks": tasks, "exec_host": exec_host, "exec_vnode": exec_vnode}

    def _room(self, chunk: Record) -> list[Record]:
        wanted = {name: chunk[name] for name in ("ncpus", "mem")}
        for node, free in enumerate(self._free):
            if all(free[name] >= wanted[name] for name in wanted):
                return [{"node": node, **wanted}]
        got = []
        for node, free in enumerate(self._free):
            part = {name: min(max(free[name], 0), wanted[name]) for name in wanted}
            if any(part.values()):
                got.append({"node": node, **part})
                wanted = {name: wanted[name] - part[name] for name in wanted}
        return got


def _vnode(part: Record) -> str:
    memory = f":mem={part['mem'] // 1024}kb" if part["mem"] else ""
    return f"c{part['node'] + 1:03}:ncpus={part['ncpus']}{memory}"
