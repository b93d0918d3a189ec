"""What a caller gives for each of many jobs, and the checks of it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from hpc_prefect.blocks.call import read_arguments, read_files
from hpc_prefect.blocks.checks import environment_problems, text_problems


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One of the jobs of `run_jobs_from_blocks`: what differs from the other jobs.

    Attributes:
        user_args: arguments after the command's default ones; texts, numbers and paths. They reach
            the program byte for byte.
        inputs: files that must be there, relative to its `work_dir` or absolute; their content is
            part of the member's identity.
        expected_outputs: files that a success must have written.
        work_dir: the program's working directory, relative to that of the call or absolute; made if
            it is not there. None for that of the call.
        environment: variables beside those of the profiles; they win.
        job_key: identifies the member, instead of what it runs; when a member of the same key has
            succeeded, it is not run again.
    """

    user_args: Sequence[object] = ()
    inputs: Sequence[str | os.PathLike[str]] = ()
    expected_outputs: Sequence[str | os.PathLike[str]] = ()
    work_dir: str | os.PathLike[str] | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    job_key: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadMember:
    """A member whose values have valid types; paths are as they were given."""

    arguments: tuple[str, ...]
    inputs: tuple[str, ...]
    expected_outputs: tuple[str, ...]
    work_dir: str
    environment: dict[str, str]
    job_key: str | None


def read_member(
    given: object, default_args: tuple[str, ...], work_dir: str, problems: list[str]
) -> ReadMember | None:
    """Read a member; adds what is wrong to `problems`, and returns None if it is no `Member`.

    Args:
        default_args: the command's.
        work_dir: of the call, absolute.
    """
    if not isinstance(given, Member):
        problems.append(f"is a {type(given).__name__}; give a Member(user_args=[…], …)")
        return None
    environment = dict(given.environment) if isinstance(given.environment, Mapping) else None
    if environment is None:
        kind = type(given.environment).__name__
        problems.append(f"environment: must map names to values, not {kind}")
        environment = {}
    problems += [f"environment: {text}" for text in environment_problems(environment)]
    return ReadMember(
        arguments=default_args + read_arguments((), given.user_args, problems),
        inputs=read_files("inputs", given.inputs, problems),
        expected_outputs=read_files("expected_outputs", given.expected_outputs, problems),
        work_dir=_work_dir(given.work_dir, work_dir, problems),
        environment=environment,
        job_key=_key(given.job_key, problems),
    )


def _work_dir(given: object, work_dir: str, problems: list[str]) -> str:
    if given is None:
        return work_dir
    path = os.fspath(given) if isinstance(given, str | os.PathLike) else given
    if not isinstance(path, str) or not path:
        problems.append(f"work_dir is {given!r}; it must be a path, or None")
        return work_dir
    if wrong := text_problems("work_dir", path):
        problems += wrong
        return work_dir
    return os.path.normpath(os.path.join(work_dir, os.path.expanduser(path)))


def _key(given: object, problems: list[str]) -> str | None:
    if given is None:
        return None
    if not isinstance(given, str) or not given:
        problems.append(f"job_key is {given!r}; it must be text that is not empty, or None")
        return None
    problems += text_problems("job_key", given)
    return given
