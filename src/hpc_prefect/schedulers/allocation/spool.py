"""The spool of a held allocation, from the flow's side: shell commands and what they print.

The top of `agent.sh` describes the files in the spool. The commands run in any POSIX shell with the
core utilities; all data is in their arguments.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import resources

from hpc_prefect.job.dialogue import Command, Reply

#: The first field of a job's file.
FORMAT = "1"

AGENT = "agent.sh"
BELL, LOG, JOB, GONE, RENEWED = "bell", "log", "job", "gone", "renewed"
HEARTBEAT = "heartbeat"
FOLDERS = ("jobs", "turns", "inbox")
CLOSE, CLOSE_NOW = "CLOSE", "NOW"
#: Stands for the id of a batch job that never had one.
NO_ID = "-"

#: Exit codes of the commands: the spool is not there; something was not written, or not all of it.
_NO_SPOOL, _NOT_WRITTEN = 3, 5

_SUBMIT = f"""\
cd -- "$1" || exit {_NO_SPOOL}
tag=$2
shift 2
new=jobs/.$tag.$$
printf '%s\\0' "$@" > "$new" || exit {_NOT_WRITTEN}
ln -- "$new" "jobs/$tag" 2>/dev/null
rm -f -- "$new"
[ -f "jobs/$tag" ] && : > "inbox/$tag" && echo "$tag $$" > {BELL} || exit {_NOT_WRITTEN}"""

#: The link `turns/TAG` can be made only once. If a cancellation makes it, the agent cannot start
#: the job any more. The agent is notified in any case: it has to end a job that runs, and to forget
#: one that waits.
_CANCEL = f"""\
cd -- "$1" || exit {_NO_SPOOL}
shift
for tag; do
  ln -s -n -- cancelled "turns/$tag" 2>/dev/null
  [ -L "turns/$tag" ] && : > "inbox/cancel.$tag" || exit
done
echo "cancel $$ $*" > {BELL}"""

#: Ages are differences of the file server's own times, of a new file and of the heartbeat's or of
#: the file that the holder touches, so that no two clocks are compared.
_LOOK = f"""\
cd -- "$1" || exit {_NO_SPOOL}
shift
mine=.look.$$
: > "$mine" && now=$(stat -c %Y "$mine") || exit
rm -f -- "$mine"
echo "now $now"
[ ! -e heartbeat ] || {{ : < heartbeat; echo "beat $(stat -c %Y heartbeat) $(cat heartbeat)"; }}
[ ! -e {RENEWED} ] || {{ : < {RENEWED}; echo "renewed $(stat -c %Y {RENEWED})"; }}
[ ! -L agent ] || echo "agent $(readlink agent)"
[ ! -f {JOB} ] || echo "job $(cat {JOB})"
[ ! -f {GONE} ] || echo "gone $(cat {GONE})"
for tag; do [ ! -f "jobs/$tag" ] || echo "there $tag"; done
find turns -lname cancelled -printf 'cancelled %f\\n'
[ ! -f {LOG} ] || {{ grep '^X' {LOG}; printf ' %s \\n' "$@" | grep -F -f - {LOG}; }}
exit 0"""

#: Notifies the agent again: a submission that was interrupted may not have done it.
_RING_AGAIN = f"""\
cd -- "$1" || exit {_NO_SPOOL}
shift
for tag; do [ ! -f "jobs/$tag" ] || : > "inbox/$tag" || exit; done
echo "again $$ $*" > {BELL}"""


_END = f"""\
cd -- "$1" || exit {_NO_SPOOL}
: > "inbox/$2" && echo "$2 $$" > {BELL}"""


def agent_text() -> str:
    """The agent's script."""
    return (resources.files(__package__) / AGENT).read_text()


def ask_to_submit(spool: str, tag: str, fields: Sequence[str]) -> Command:
    """Write a job's file and notify the agent; a file that is there already stays as it is."""
    return _shell(_SUBMIT, spool, tag, FORMAT, *fields)


def ask_to_cancel(spool: str, tags: Sequence[str]) -> Command:
    return _shell(_CANCEL, spool, *tags)


def ask_to_end(spool: str, word: str) -> Command:
    """Have the agent end when its jobs have ended (`CLOSE`), or at once with its jobs"
    " (`CLOSE_NOW`)."""
    return _shell(_END, spool, word)


def ask_to_look(spool: str, tags: Sequence[str]) -> Command:
    return _shell(_LOOK, spool, *tags)


def ask_to_ring_again(spool: str, tags: Sequence[str]) -> Command:
    return _shell(_RING_AGAIN, spool, *tags)


def _shell(text: str, *arguments: str) -> Command:
    return Command(("/bin/sh", "-c", text, "hpc-prefect", *arguments), timeout=30.0)


def surely_refused(reply: Reply) -> bool:
    """Whether the reply to `ask_to_submit` proves that no job's file was written."""
    return reply.code == _NO_SPOOL


@dataclass(frozen=True, slots=True)
class JobLine:
    """A line of the agent's log about a job.

    Attributes:
        event: `S` started, `E` ended, `R` not taken.
        at: seconds since 1970, by the node's clock.
        words: the hosts of a start; how it ended and its exit code; why it was not taken.
    """

    event: str
    at: float
    words: tuple[str, ...]


@dataclass(slots=True)
class SpoolLook:
    """What the files of a spool say.

    Attributes:
        now: the file server's time, in seconds since 1970.
        beat_age: the age of the agent's heartbeat in seconds; None if there is none.
        unheld_for: seconds since the flow that submits and holds the allocation touched its file;
            None if it never did.
        left: seconds of walltime that were left for jobs at that heartbeat; 0 once the agent takes
            no more jobs.
        used, held: node-time with a job, and in all, in hundredths of a second times nodes.
        ids: the ids of the allocation's job, by the agent, and by the flow that holds it.
        gone: why the allocation has ended, by the flow that holds it; empty if it does not say so.
        gone_as: the id of the job that `gone` is about, or `NO_ID`.
        end: the agent's last log line: why it ended, node-time that was held, and used.
        there: tags of the jobs that were submitted.
        cancelled: tags of those that were cancelled before they started.
        lines: the log's lines about each job, by tag and event.
    """

    now: float = 0.0
    beat_age: float | None = None
    unheld_for: float | None = None
    left: int | None = None
    used: int = 0
    held: int = 0
    ids: list[str] = field(default_factory=list)
    gone: str = ""
    gone_as: str = ""
    end: tuple[str, ...] = ()
    there: set[str] = field(default_factory=set)
    cancelled: set[str] = field(default_factory=set)
    lines: dict[str, dict[str, JobLine]] = field(default_factory=dict)

    @property
    def is_gone(self) -> bool:
        """Whether the flow that holds the allocation has noted its end. A note about an earlier
        batch job, which may come late, does not count."""
        own = self.ids[0] if self.ids else NO_ID
        return bool(self.gone) and self.gone_as == own


def gone_text(job_id: str, why: str) -> str:
    """What the flow writes into the spool once the batch job of that id (empty: none) has ended."""
    return f"{job_id or NO_ID} {why}\n"


def has_ended(tail: str) -> bool:
    """Whether the agent's log, of which this is the end, says that the agent has ended."""
    return any(line.startswith("X - ") and line.endswith(" .") for line in tail.split("\n"))


def read_look(reply: Reply) -> SpoolLook | None:
    """Read the output of `ask_to_look`; None if it failed. Invalid lines are left out."""
    if reply.code != 0:
        return None
    look = SpoolLook()
    for line in reply.stdout.split("\n"):
        words = line.split()
        try:
            if words:
                _take(look, words[0], words[1:])
        except (ValueError, IndexError):
            continue
    return look if look.now else None


def _take(look: SpoolLook, word: str, rest: list[str]) -> None:
    if word == "now":
        look.now = float(rest[0])
    elif word == "beat":
        look.beat_age = max(0.0, look.now - float(rest[0]))
        look.left, look.used, look.held = int(rest[1]), int(rest[2]), int(rest[3])
    elif word == "renewed":
        look.unheld_for = max(0.0, look.now - float(rest[0]))
    elif word in ("agent", "job"):
        look.ids.append(rest[0])
    elif word == "gone":
        look.gone_as, look.gone = rest[0], " ".join(rest[1:])
    elif word == "there":
        look.there.add(rest[0])
    elif word == "cancelled":
        look.cancelled.add(rest[0])
    elif rest and rest[-1] == ".":  # a line of the log that is whole
        if word == "X":
            look.end = tuple(rest[2:-1])
        else:
            line = JobLine(word, float(rest[1]), tuple(rest[2:-1]))
            look.lines.setdefault(rest[0], {})[word] = line
