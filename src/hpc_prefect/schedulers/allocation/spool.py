"""The spool of a held allocation, seen from where flows run: shell texts, and what they print.

What the files in it are is told at the top of `agent.sh`. The texts run in any POSIX shell with the
core utilities; everything that is data is an argument.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import resources

from hpc_prefect.job.dialogue import Command, Reply

#: Of a file that the agent reads as a job: a field each.
FORMAT = "1"

AGENT = "agent.sh"
BELL, LOG, JOB, GONE, RENEWED = "bell", "log", "job", "gone", "renewed"
HEARTBEAT = "heartbeat"
FOLDERS = ("jobs", "turns", "inbox")
CLOSE, CLOSE_NOW = "CLOSE", "NOW"
#: Stands for the id of a batch job that never had one.
NO_ID = "-"

#: Both say why; `_NOT_WRITTEN` leaves open whether the job is there.
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

#: Whoever cancels a job before its turn has taken its turn: nobody starts it any more. The agent is
#: told in any case, so that it neither ends a job that runs unasked nor waits for room for one that
#: is not to run.
_CANCEL = f"""\
cd -- "$1" || exit {_NO_SPOOL}
shift
for tag; do
  ln -s -n -- cancelled "turns/$tag" 2>/dev/null
  [ -L "turns/$tag" ] && : > "inbox/cancel.$tag" || exit
done
echo "cancel $$ $*" > {BELL}"""

#: Ages are told by the file server alone: of a file of ours, of the agent's and of the holder's.
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

#: A submission that was broken off may have left out that the agent is to look.
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
    """Hand over a job; one that is there already is left as it is."""
    return _shell(_SUBMIT, spool, tag, FORMAT, *fields)


def ask_to_cancel(spool: str, tags: Sequence[str]) -> Command:
    return _shell(_CANCEL, spool, *tags)


def ask_to_end(spool: str, word: str) -> Command:
    """Tell the agent to end when no job runs (`CLOSE`), or with those that run (`CLOSE_NOW`)."""
    return _shell(_END, spool, word)


def ask_to_look(spool: str, tags: Sequence[str]) -> Command:
    return _shell(_LOOK, spool, *tags)


def ask_to_ring_again(spool: str, tags: Sequence[str]) -> Command:
    return _shell(_RING_AGAIN, spool, *tags)


def _shell(text: str, *arguments: str) -> Command:
    return Command(("/bin/sh", "-c", text, "hpc-prefect", *arguments), timeout=30.0)


def surely_refused(reply: Reply) -> bool:
    """Whether a job that was to be handed over is not there, for sure."""
    return reply.code == _NO_SPOOL


@dataclass(frozen=True, slots=True)
class JobLine:
    """What the agent's log says of a job: `S` started, `E` ended, `R` not taken; when, and how."""

    event: str
    at: float
    words: tuple[str, ...]


@dataclass(slots=True)
class SpoolLook:
    """What a look into a spool has seen.

    Attributes:
        beat_age: seconds since the agent's last sign of life; None when there was none.
        unheld_for: seconds since the last sign of life of who submits it, and holds it; None when
            there was none.
        left: seconds of its walltime that it had then for jobs; none once it takes no more.
        used, held: for how long nodes had a job, or were there; hundredths of a second times nodes.
        ids: of the allocation's own job: what the agent says, then what its holder says.
        gone: why it has ended, by its holder; empty when it says nothing. `gone_as` is the id of
            the job that has, or `NO_ID`.
        end: the agent's last words: why, for how long nodes were held, and used; as `used`.
        there: jobs that were handed over; `cancelled`: those cancelled before their turn.
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
        """Whether its holder says that it has ended. What is said of an earlier batch job, which
        never used this spool, does not count: it may be said late."""
        own = self.ids[0] if self.ids else NO_ID
        return bool(self.gone) and self.gone_as == own


def gone_text(job_id: str, why: str) -> str:
    """What a holder writes once the batch job of that id, or one without an id, has ended."""
    return f"{job_id or NO_ID} {why}\n"


def has_ended(tail: str) -> bool:
    """Whether the end of an agent's log has its last words."""
    return any(line.startswith("X - ") and line.endswith(" .") for line in tail.split("\n"))


def read_look(reply: Reply) -> SpoolLook | None:
    """None when it is no useful answer. A line that makes no sense is left out."""
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
