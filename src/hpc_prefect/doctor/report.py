"""The program of the trial's job, and the findings from its report. Pure.

The job is an ordinary one: its script has the profile's modules, set-up and environment. Only its
program is ours, a few lines for bash, which print one line a fact.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from hpc_prefect.doctor.profile import EXECUTABLE, LAUNCHER
from hpc_prefect.schedulers.finding import Finding, ok, unknown, wrong

#: Arguments: the file to write, its content, the launcher's first word and whole line, and what to
#: look for. What the launcher says is on one line of the report.
PROGRAM = r"""
look() {
  local found word
  found=$(type -P -- "$3")
  if [ -n "$found" ] && [ ! -d "$found" ] && [ -x "$found" ]; then word=ok
  elif [ -d "$3" ]; then word=folder
  elif [ -e "$3" ]; then word=closed
  else word=missing
  fi
  printf '%s\t%s\t%s\t%s\n' "$1" "$2" "$word" "$found"
}
file=$1 content=$2 first=$3 line=$4
shift 4
if printf '%s\n' "$content" > "$file"; then printf 'wrote\tyes\n'; else printf 'wrote\tno\n'; fi
number=0
for program; do
  look executable "$number" "$program"
  number=$((number + 1))
done
if [ -n "$first" ]; then look launcher 0 "$first"; fi
if [ -n "$line" ]; then
  said=$( (eval "$line") 2>&1 < /dev/null)
  code=$?
  if [ "${#said}" -gt 600 ]; then said=${said: -600}; fi
  printf 'launched\t%s\t%s\n' "$code" "${said//[$'\n\t\r']/ }"
fi
printf 'end\n'
"""


@dataclass(frozen=True, slots=True)
class Report:
    """What the job found.

    Attributes:
        wrote: whether it could write in work_dir; None when it did not say.
        executables: word and path by number; `launcher` the same for the launcher's first word.
        launched: exit status of the launcher's line, and what it said.
    """

    wrote: bool | None = None
    executables: dict[int, tuple[str, str]] = field(default_factory=dict)
    launcher: tuple[str, str] | None = None
    launched: tuple[int, str] | None = None


def read_report(text: str) -> Report:
    """Accepts any text: lines that a set-up line printed in between are ignored."""
    wrote, launcher, launched = None, None, None
    executables = {}
    for line in text.split("\n"):
        words = line.split("\t", 3)
        if words[0] == "wrote" and len(words) == 2:
            wrote = words[1] == "yes"
        elif words[0] == "executable" and len(words) == 4 and words[1].isdecimal():
            executables[int(words[1])] = (words[2], words[3])
        elif words[0] == "launcher" and len(words) == 4:
            launcher = (words[2], words[3])
        elif words[0] == "launched" and len(words) == 3 and words[1].isdecimal():
            launched = (int(words[1]), words[2])
    return Report(wrote, executables, launcher, launched)


def executable_findings(report: Report, paths: Mapping[str, str]) -> list[Finding]:
    found = []
    for number, (key, path) in enumerate(paths.items()):
        word, where = report.executables.get(number, ("", ""))
        found.append(executable_finding(key, path, (word, where), "in a job's shell"))
    return found


def executable_finding(key: str, path: str, look: tuple[str, str], at: str) -> Finding:
    """`look`: a word of the report and the path that was found; `at`: where, in words."""
    check = f"{EXECUTABLE} {key}"
    word, where = look
    if word == "ok":
        return ok(check, f"{where or path}, {at}")
    if word == "closed":
        return wrong(check, f"{path} exists but may not be executed", f"chmod +x {path}")
    if word == "folder":
        remedy = "give the path of the program in it in the HPC profile's executables"
        return wrong(check, f"{path} is a folder", remedy)
    if word == "missing":
        seen = f"{path} does not exist" if "/" in path else f"{path!r} is not on PATH after set-up"
        remedy = (
            "correct the path in the HPC profile's executables, or the modules that bring it;"
            " it must be where nodes see it"
        )
        return wrong(check, f"{seen}, {at}", remedy)
    return unknown(check, "the job did not get that far")


def launcher_findings(report: Report, line: str, first: str) -> list[Finding]:
    if not line:
        return []
    if report.launcher and report.launcher[0] != "ok":
        remedy = (
            "correct the launcher of the HPC profile, or load the module that brings it"
            " (modules, setup)"
        )
        return [wrong(LAUNCHER, f"{first!r} is not on PATH after set-up", remedy)]
    if report.launched is None:
        return [unknown(LAUNCHER, "the job did not get that far, or the launcher did not end")]
    code, said = report.launched
    if code != 0:
        remedy = f"correct the launcher of the HPC profile; it was run as: {line}"
        return [
            wrong(LAUNCHER, f"it ended with {code}: {said.strip() or 'it said nothing'}", remedy)
        ]
    where = f" ({report.launcher[1]})" if report.launcher else ""
    return [ok(LAUNCHER, f"it started one rank{where}")]


# --- clocks


@dataclass(frozen=True, slots=True, kw_only=True)
class Moments:
    """Times of one job, in seconds since 1970.

    Attributes:
        submitted, seen: by our clock, before the submission and when we saw the end.
        started, ended: by the node's clock, from the records.
        stamped: by the file server's clock, when the start record was written.
        file_server: how far the file server's clock is ahead of ours.
    """

    submitted: float
    seen: float
    started: float
    ended: float
    stamped: float
    file_server: float


#: Seconds. Times in results are off by as much; nothing else of ours depends on it.
_SKEW = 5.0
#: Seconds. An NFS client may keep what it knows of a file for a minute.
_LATE = 60.0


def ahead(times: Moments) -> float:
    """By how many seconds the node's clock is at least ahead of ours; negative: behind.

    By the file server, which stamped the start record; where the node itself stamps files, only by
    what must come before what: the submission, the start, the end, our seeing it.
    """
    by_stamp = times.started - times.stamped + times.file_server
    behind = min(0.0, times.started - times.submitted)
    before = max(0.0, times.ended - times.seen)
    return max((by_stamp, behind, before), key=abs)


def clock_findings(times: Moments) -> Sequence[Finding]:
    skew = ahead(times)
    late = max(0.0, times.seen - (times.ended - skew))
    seen = f"the node is {abs(skew):.2f} s {'ahead of' if skew > 0 else 'behind'} this machine"
    remedy = (
        "queue and run times in results are off by as much: tell the site (NTP), or set this"
        " machine's clock"
    )
    late_remedy = (
        "nothing is lost, but ends are seen late: choose a work_dir on a file system whose changes"
        " show here sooner"
    )
    shown = f"seen {late:.2f} s after the job had written it"
    return (
        wrong("clock", seen, remedy) if abs(skew) > _SKEW else ok("clock", seen),
        wrong("exit record", shown, late_remedy) if late > _LATE else ok("exit record", shown),
    )
