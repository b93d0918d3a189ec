"""What the caller of one job gives besides the blocks, and the checks of it."""

from __future__ import annotations

import numbers
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hpc_prefect.blocks.checks import text_problems


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """What the caller of one job gives besides the three blocks; `resolve` checks it.

    Attributes:
        script_filename: the job's name; it becomes part of file names, so it must not be a path.
        work_dir: absolute.
        user_args: texts, numbers or paths, after the command's `default_args`.
        inputs: files that must be there before, relative to `work_dir` or absolute.
        expected_outputs: files that a successful run leaves.
        program: the program if the HPC profile has no executable of the command's key: an
            absolute path, or a bare name found on PATH after set-up.
        overrides: fields of the execution profile for this call only; `environment` is merged into
            the profile's, every other field replaces the profile's.
    """

    script_filename: str
    work_dir: str
    user_args: Sequence[object] | None = None
    inputs: Sequence[object] = ()
    expected_outputs: Sequence[object] = ()
    overrides: Mapping[str, Any] | None = None
    program: str = ""

    @property
    def subject(self) -> str:
        """The job's name in messages."""
        return f"job {self.script_filename!r}"


def name_problems(name: object) -> list[str]:
    """The problems of a `script_filename`, which becomes part of file names."""
    what = f"script_filename {name!r}"
    if not isinstance(name, str):
        return [f"{what}: must be text"]
    if not name.strip():
        return [f"{what}: is empty; give the job a name"]
    if "/" in name or name in (".", ".."):
        return [f"{what}: must be a plain name, no path"]
    if not name.isprintable():
        return [f"{what}: has a character that cannot be printed"]
    if len(name.encode("utf-8", "surrogateescape")) > 200:
        return [f"{what}: is longer than 200 bytes"]
    return []


def read_arguments(
    default: Sequence[str], given: Sequence[object] | None, problems: list[str]
) -> tuple[str, ...]:
    """The program's arguments; adds the problems of those that are invalid."""
    arguments = list(default)
    for position, value in enumerate(_listed("user_args", given or (), problems)):
        text = as_text(value)
        if text is None:
            problems.append(
                f"user_args[{position}]: must be text, a number or a path, "
                f"not {type(value).__name__}"
            )
        else:
            arguments.append(text)
    for position, text in enumerate(arguments):
        where = f"user_args[{position - len(default)}]"
        if position < len(default):
            where = f"command block, default_args[{position}]"
        problems += text_problems(where, text)
    return tuple(arguments)


def as_text(value: object) -> str | None:
    """A text, path or number as the program receives it; None for anything else.

    True and False are refused: one program expects a flag, others 1 or yes.
    """
    if isinstance(value, str):
        return str(value)
    if isinstance(value, bool):
        return None
    if isinstance(value, numbers.Integral):  # also NumPy's
        return str(int(value))
    if isinstance(value, float):  # also numpy.float64, whose own repr is 'np.float64(…)'
        return repr(float(value))
    if isinstance(value, os.PathLike):
        path = os.fspath(value)
        return path if isinstance(path, str) else os.fsdecode(path)
    return None


def read_files(what: str, given: Sequence[object], problems: list[str]) -> tuple[str, ...]:
    """Names of files; adds the problems of those that are invalid."""
    files = []
    for position, value in enumerate(_listed(what, given, problems)):
        where = f"{what}[{position}]"
        text = as_text(value) if isinstance(value, str | os.PathLike) else None
        if text is None:
            problems.append(f"{where}: must be a path, not {type(value).__name__}")
        elif not text.strip():
            problems.append(f"{where}: is empty; write the name of a file")
        else:
            problems += text_problems(where, text)
            files.append(text)
    return tuple(files)


def _listed(what: str, given: object, problems: list[str]) -> list[object]:
    # A text is a sequence of characters, but never meant as one.
    if isinstance(given, Sequence) and not isinstance(given, str | bytes):
        return list(given)
    problems.append(f"{what}: must be a list, not {type(given).__name__}")
    return []
