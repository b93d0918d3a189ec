"""One of a user's processes on this host asks the scheduler about the jobs of all of them."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hpc_prefect.executor.coordination.host_coordination import HostPeers
from hpc_prefect.job.failure import Reason
from hpc_prefect.job.state import JobState, Observation
from hpc_prefect.schedulers.base import Answer, NoAnswer
from hpc_prefect.transports.host import host

#: Seconds for which a question under way is waited for. The process that asks may be stopped.
_LONGEST = 60.0
#: Seconds by which a timer may fire too early.
_EARLY = 0.002


@dataclass(frozen=True, kw_only=True)
class Turn:
    """Whether this process is to ask, and what is known otherwise.

    Attributes:
        mine: it is this process's turn.
        ids: what to ask about now, for itself and its peers.
        others: those of `ids` that peers wait for.
        began: when it was taken, on this host's clock.
        under_way: a neighbour is asking at this moment.
        idle: seconds since the last answer, whoever asked; 0 after one's own.
        old: seconds since the question behind `answer` was sent.
        answer: what a question brought about `about`; None: nothing new.
    """

    mine: bool = False
    ids: tuple[str, ...] = ()
    others: frozenset[str] = frozenset()
    began: float = 0.0
    under_way: bool = False
    idle: float = 0.0
    old: float = 0.0
    answer: Answer | None = None
    about: frozenset[str] = frozenset()


class SharedPoll:
    """This process's part in the turns. Methods block, shortly: call them in threads."""

    def __init__(self, peers: HostPeers) -> None:
        self._peers = peers
        self._file = f"ids-{peers.me}"
        self._known = float("-inf")  # when the newest question was sent whose answer we have
        self._published: tuple[str, ...] | None = None

    @property
    def known_to_others(self) -> bool:
        """Whether others may ask about jobs of ours."""
        return self._published is not None

    def take(self, ids: Sequence[str], pause: float) -> Turn:
        """Ask for a turn, `pause` seconds after the last answer; let the others know our ids.

        Without a turn there may be an answer that a neighbour got about our jobs.
        """
        own = Turn(mine=True, ids=tuple(ids), began=host().monotonic())
        return self._peers.together(lambda lock: self._take(lock, tuple(ids), pause), own)

    def _take(self, lock: int, ids: tuple[str, ...], pause: float) -> Turn:
        now = host().monotonic()
        names = self._peers.names()
        self._publish(ids, names, now)
        last = _Last.read(self._peers.noted(lock))
        under_way = (
            last.ended is None
            and now - last.began < _LONGEST
            and last.who != self._peers.me
            and self._peers.is_alive(last.who)
        )
        idle = now - (last.began if last.ended is None else last.ended)
        if not under_way and idle >= pause - _EARLY:
            others = self._ids_of_others(names)
            self._peers.note(lock, _Last(now, None, self._peers.me).text())
            self._known = now
            every = tuple(dict.fromkeys((*ids, *others)))
            return Turn(mine=True, ids=every, others=frozenset(others), began=now)
        answer, about = self._news(last, ids)
        return Turn(
            under_way=under_way, idle=idle, old=now - last.began, answer=answer, about=about
        )

    def end(self, turn: Turn, answer: Answer) -> None:
        """Our question is through: the others may see what it brought, and take their turns."""

        def ended(lock: int) -> None:
            if _Last.read(self._peers.noted(lock)).began != turn.began:
                return  # it took so long that another one has asked since
            if turn.others:
                told = {id_: _encoded(answer[id_]) for id_ in turn.others if id_ in answer}
                content = {"began": turn.began, "ids": sorted(turn.others), "answer": told}
                self._peers.write("answer", json.dumps(content).encode())
            last = _Last(turn.began, host().monotonic(), self._peers.me)
            self._peers.note(lock, last.text())

        self._peers.together(ended, None)

    def leave(self) -> None:
        """There is nothing that we wait for any more."""

        def left(lock: int) -> None:
            self._peers.remove(self._file)

        if self._published is not None:
            self._published = None
            self._peers.together(left, None)

    def _publish(self, ids: tuple[str, ...], names: Sequence[str], now: float) -> None:
        if self._published is None:
            self._known = now  # what was answered before is not news to those who begin now
        if ids != self._published or self._file not in names:
            self._peers.publish(self._file, json.dumps(ids).encode())
            self._published = ids

    def _ids_of_others(self, names: Sequence[str]) -> list[str]:
        found: list[str] = []
        for name in names:
            if not name.startswith("ids-") or name == self._file:
                continue
            if not self._peers.is_alive(name.removeprefix("ids-")):
                self._peers.remove(name)
                continue
            with contextlib.suppress(ValueError, TypeError):
                ids = json.loads(self._peers.read(name))
                found += [id_ for id_ in ids if isinstance(id_, str)]
        return found

    def _news(self, last: _Last, ids: Sequence[str]) -> tuple[Answer | None, frozenset[str]]:
        if last.ended is None or last.began <= self._known:
            return None, frozenset()
        self._known = last.began
        try:
            content = json.loads(self._peers.read("answer"))
            if content["began"] != last.began:
                return None, frozenset()  # the last one asked for itself alone
            about = frozenset(content["ids"]).intersection(ids)
            told = {id_: content["answer"][id_] for id_ in about if id_ in content["answer"]}
            return {id_: _decoded(one) for id_, one in told.items()}, about
        except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
            return None, frozenset()  # of another version of this package; ours will ask by itself


@dataclass(frozen=True)
class _Last:
    """The last question, as it is written into the lock's file."""

    began: float = float("-inf")
    ended: float | None = float("-inf")
    who: str = ""

    @classmethod
    def read(cls, text: bytes) -> _Last:
        try:
            began, ended, who = json.loads(text)
            last = cls(float(began), None if ended is None else float(ended), str(who))
        except (ValueError, TypeError):
            return cls()
        return last if last.began <= host().monotonic() else cls()

    def text(self) -> str:
        return json.dumps([self.began, self.ended, self.who])


def _encoded(one: Observation | NoAnswer) -> dict[str, Any]:
    return dataclasses.asdict(one)


def _decoded(one: Mapping[str, Any]) -> Observation | NoAnswer:
    if "state" not in one:
        return NoAnswer(**one)
    cause = one["cause"]
    known = {
        "state": JobState(one["state"]),
        "cause": None if cause is None else Reason(cause),
        "left": tuple((first, last) for first, last in one.get("left", ())),
    }
    return Observation(**{**one, **known})
