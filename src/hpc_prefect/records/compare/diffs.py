"""What differs in texts: a flow's code, and what jobs ran as scripts. Reads files, and asks git."""

from __future__ import annotations

import difflib
import os
import re
import stat
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hpc_prefect.job import folder as names
from hpc_prefect.records.compare.values import natural
from hpc_prefect.records.fold import DIFF, Record

#: Lines of a diff that are shown, bytes of a file that are read, and files of scripts that are: on
#: a slow file system each takes a millisecond.
LINES, BYTES, SCRIPTS = 60, 1 << 20, 600
#: Changed files beside the flow's own that are named.
_NAMED = 8
_PATIENCE = 10.0
_COMMIT = re.compile(r"[0-9a-f]{7,64}")
#: What a job's script alone knows: drawn anew for each submission.
_WORD = re.compile(r"\b[0-9a-f]{32}\b")
#: `--seed 7`, `seed=7`, `random_state: 7`
_SEEDED = re.compile(
    r"((?:\b|_)(?:seed|random[_-]state)['\"]?(?:\s*[=:]\s*|\s+)['\"]?)\d+\b", re.IGNORECASE
)

#: A job in each of the runs; None where a run has none.
Jobs = Mapping[str, Sequence[Mapping[str, Any] | None]]


@dataclass(frozen=True, slots=True)
class TextDiff:
    """A unified diff.

    Attributes:
        title: of what.
        lines: of the diff, those that are kept.
        cut: how many more it had.
    """

    title: str
    lines: tuple[str, ...]
    cut: int = 0

    def as_dict(self) -> dict[str, Any]:
        return {"title": self.title, "lines": list(self.lines), "cut": self.cut}


def _kept(title: str, lines: Sequence[str], most: int | None) -> TextDiff:
    kept = lines if most is None else lines[:most]
    return TextDiff(title, tuple(kept), len(lines) - len(kept))


def _read(path: str) -> str | None:
    """A plain file's text; None where there is none, or more than a script or a diff ever has."""
    try:
        found = os.stat(path)
        if not stat.S_ISREG(found.st_mode) or found.st_size > BYTES:  # a FIFO would block
            return None
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(BYTES + 1)
    except (OSError, ValueError):
        return None


# --- code


def code_diffs(records: Sequence[Record], most: int | None) -> tuple[list[TextDiff], list[str]]:
    """How the code of the first run and that of the first one with another differ.

    Returns:
        The diffs; and sentences on what could not be had, or lies beside the flow's file.
    """
    first, *others = records
    other = next((each for each in others if _version(each) != _version(first)), None)
    if other is None:
        return [], []
    diffs, notes = _committed(first, other, most)
    diffs += _uncommitted(first, other, most)
    if not diffs and first.code.get("sha256") != other.code.get("sha256"):
        notes.append(
            "the files differ; how, cannot be shown, because neither their commits nor a stored"
            " diff can be read here"
        )
    return diffs, notes


def _version(record: Record) -> tuple[Any, ...]:
    return tuple(record.code.get(name) for name in ("sha256", "commit", "diff_sha256"))


def _committed(a: Record, b: Record, most: int | None) -> tuple[list[TextDiff], list[str]]:
    """Between two commits: the flow's file in full, of the others the names."""
    commits = [str(each.code.get("commit") or "") for each in (a, b)]
    if commits[0] == commits[1] or not all(map(_COMMIT.fullmatch, commits)):
        return [], []
    file = str(b.code.get("file") or "")
    for folder in (os.path.dirname(file), str(b.code.get("repository") or "")):
        changed = _git(folder, "diff", "--name-only", *commits) if folder else None
        if changed is not None:
            break
    else:
        return [], [f"commits {commits[0][:12]} and {commits[1][:12]} cannot both be read here"]
    text = _git(
        folder, "diff", "--no-color", "--no-ext-diff", "--no-textconv", *commits, "--", file
    )
    short = f"{commits[0][:12]}..{commits[1][:12]}"
    diffs = [_kept(f"{file} {short}", text.splitlines(), most)] if text else []
    beside = [name for name in changed.splitlines() if not f"/{file}".endswith(f"/{name}")]
    named = ", ".join(beside[:_NAMED]) + (", …" if len(beside) > _NAMED else "")
    notes = [f"{short} changes {len(beside)} more files: {named}"] if beside else []
    return diffs, notes


def _uncommitted(a: Record, b: Record, most: int | None) -> list[TextDiff]:
    """Of two kept diffs the diff; one that stands alone as it is."""
    if a.code.get("diff_sha256") == b.code.get("diff_sha256"):
        return []
    kept = [_read(f"{each.folder}/{DIFF}") if each.folder else None for each in (a, b)]
    texts = [text.splitlines() if text else [] for text in kept]
    changed = [bool(each.code.get("diff_sha256")) for each in (a, b)]
    if all(texts):
        return [_kept("what was not committed", _unified(texts[0], texts[1], a, b), most)]
    for record, own, is_changed in zip((a, b), texts, changed, strict=True):
        if own and sum(changed) == is_changed:  # the other one has nothing beside its commit
            return [_kept(f"not committed in {record.name or record.id}", own, most)]
    return []


def _unified(one: list[str], two: list[str], a: Record, b: Record) -> list[str]:
    heads = (a.name or a.id, b.name or b.id)
    return [line.rstrip("\n") for line in difflib.unified_diff(one, two, *heads, lineterm="")]


def _git(folder: str, *arguments: str) -> str | None:
    """What git prints in a folder; None where it has no answer, or is not there."""
    quiet = {"GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}
    # A repository's own settings may name programs: none is started for a look at it.
    command = ["git", "-C", folder, "--no-pager", "-c", "core.fsmonitor=false", *arguments]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_PATIENCE,
            env=os.environ | quiet,
            check=True,
        )
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    return done.stdout.decode(errors="replace")


# --- scripts


def without_seeds(text: str) -> str:
    """Text without the numbers that it says to be seeds."""
    return _SEEDED.sub(r"\1<seed>", text)


@dataclass(frozen=True, slots=True)
class Scripts:
    """How the scripts of jobs differ.

    Attributes:
        differing: the jobs whose scripts do, by their names.
        alike: in how many of them the first two that differ do so as in the diffs.
        compared: of how many jobs the scripts were read in two runs or more.
        unread: of how many jobs they could not be, or were not because there are so many.
        variants: of the first one that differs, which script each run has: 1, 2, …; 0 for none.
        diffs: of that job, in the first two runs in which it differs.
    """

    differing: tuple[str, ...] = ()
    alike: int = 0
    compared: int = 0
    unread: int = 0
    variants: tuple[int, ...] = ()
    diffs: tuple[TextDiff, ...] = ()


def script_diffs(
    records: Sequence[Record], jobs: Jobs, most: int | None, *, seeds: bool = True
) -> Scripts:
    """Compare what jobs ran as scripts, by the texts in their folders.

    The digests of the records do not tell it: each script has a word in it that was drawn for it,
    and its folder. Those are taken out before texts are compared; without `seeds` seeds are, too.
    """
    texts: dict[str, list[tuple[str, str] | None]] = {}
    budget = SCRIPTS
    for name in _one_of_each_name_first(jobs):
        budget -= 2 * sum(job is not None for job in jobs[name])
        if budget < 0 and texts:
            break
        texts[name] = [
            _texts(job, seeds) if job else None
            for record, job in zip(records, jobs[name], strict=True)
        ]
    read = {name: each for name, each in texts.items() if sum(map(bool, each)) > 1}
    differing = sorted((name for name in read if len({*read[name]} - {None}) > 1), key=natural)
    changes = [_changes(_first_two(read[name])) for name in differing]
    diffs: list[TextDiff] = []
    for file, lines in changes[0].items() if changes else ():
        diffs.append(_kept(f"{file} of {differing[0]}", lines, most))
    return Scripts(
        differing=tuple(differing),
        alike=sum(each == changes[0] for each in changes),
        compared=len(read),
        unread=len(jobs) - len(read),
        variants=_variants(read[differing[0]]) if differing else (),
        diffs=tuple(diffs),
    )


def _one_of_each_name_first(jobs: Jobs) -> list[str]:
    """Where not all can be read: jobs of one name have much the same script."""
    seen: dict[str, int] = {}
    turns = {}
    for name in sorted(jobs, key=natural):
        own = next(str(job.get("name")) for job in jobs[name] if job is not None)
        turns[name] = seen[own] = seen.get(own, -1) + 1
    return sorted(turns, key=lambda name: turns[name])


def _texts(job: Mapping[str, Any], seeds: bool) -> tuple[str, str] | None:
    """What the job does, and what the scheduler was given, without what is its own alone."""
    folder = str(job.get("folder") or "")
    outer, inner = _read(f"{folder}/{names.SCRIPT}"), _read(f"{folder}/{names.PROGRAM}")
    if not folder or (outer is None and inner is None):
        return None
    own = {folder: "<job>", str(job.get("work_dir") or ""): "<work_dir>"}
    key = str(job.get("key") or "")
    own |= {key: "<key>"} if len(key) > 7 else {}
    if not seeds:
        inner = without_seeds(inner or "")
    inner, outer = inner or "", _WORD.sub("<word>", outer or "")
    for text, placeholder in sorted(own.items(), key=lambda each: -len(each[0])):
        if len(text) > 1:
            inner, outer = inner.replace(text, placeholder), outer.replace(text, placeholder)
    return inner, outer


def _variants(texts: Sequence[tuple[str, str] | None]) -> tuple[int, ...]:
    different = list(dict.fromkeys(each for each in texts if each))
    return tuple(different.index(each) + 1 if each else 0 for each in texts)


def _first_two(texts: Sequence[tuple[str, str] | None]) -> tuple[tuple[str, str], tuple[str, str]]:
    there = [each for each in texts if each]
    return there[0], next(each for each in there if each != there[0])


def _changes(pair: tuple[tuple[str, str], tuple[str, str]]) -> dict[str, list[str]]:
    """The diff of each of the two files that differs."""
    found = {}
    for file, one, two in zip((names.PROGRAM, names.SCRIPT), *pair, strict=True):
        if one != two:
            lines = difflib.unified_diff(
                one.splitlines(), two.splitlines(), file, file, lineterm=""
            )
            found[file] = [line.rstrip("\n") for line in lines]
    return found
