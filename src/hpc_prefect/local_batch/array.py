"""The supervisor of an array: one process for all its elements, whatever their number.

An element takes its cpus while it runs, has a walltime of its own, and is over when none of its
processes is left. A process that has left its session and cleared its environment cannot be
assigned to an element: it is ended with the array.
"""

from __future__ import annotations

import time

from . import process
from .records import element_id, ending
from .script import Script
from .supervisor import (
    CANCEL_LOOK_SECONDS,
    MEMORY_LOOK_SECONDS,
    STOP,
    Supervisor,
    wait,
    with_status,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal

    from .records import Record
    from .spool import Spool
else:
    import _signal as signal

_TROUBLE_SECONDS = 1.0


class Running:
    """An element that has started and is not over.

    Attributes:
        end: why it has to end, once that is known.
        status: as wait4 gives it, once its script is over.
        clear: none of its processes is left.
        kill_at: when its remaining processes get SIGKILL; None while none was asked to end.
    """

    def __init__(self, index: int, script: Script, walltime: float | None) -> None:
        self.index, self.script = index, script
        self.began = time.time()
        # The monotonic clock stops while the laptop sleeps, as the element does.
        self.deadline = None if walltime is None else time.monotonic() + walltime
        self.end: Record | None = None
        self.status: int | None = None
        self.over = 0.0
        self.max_rss = self.peak = 0
        self.cpu_seconds = 0.0
        self.clear = False
        self.kill_at: float | None = None
        self._pause = 0.02

    @property
    def is_ending(self) -> bool:
        return not self.clear and (self.end is not None or self.status is not None)

    def stop(self, family: list[str], grace: float) -> None:
        """Send its remaining processes SIGTERM, and SIGKILL after `grace` seconds."""
        now = time.monotonic()
        if not family:
            self.clear = self.status is not None
        elif self.kill_at is None:
            for who in family:
                process.send(who, signal.SIGTERM)
            self.kill_at = now + grace
        elif now >= self.kill_at:
            reached = [who for who in family if process.send(who, signal.SIGKILL)]
            self.clear = not reached  # set-uid programs: not ours to end
            self.kill_at = now + self._pause
            self._pause = min(1.0, self._pause * 2)

    def ending(self, cancel: Record | None) -> Record:
        """How it ended. `cancel`: a request to end it that was noticed only now."""
        if self.end is None and cancel:
            self.end = ending("CANCELLED", by=cancel.get("by"))
        end = {**(self.end or ending("EXITED")), "started": self.began}
        if self.status is None:
            return end
        end["max_rss"] = max(self.max_rss, self.peak)
        end["cpu_seconds"] = self.cpu_seconds
        fault, forced = self.script.fault(), self.end is not None
        return with_status(end, self.status, self.over, fault, forced=forced)


class ArraySupervisor(Supervisor):
    """The supervisor of an array."""

    def __init__(self, spool: Spool, n: int, record: Record) -> None:
        super().__init__(spool, n, record)
        self._elements = spool.elements(n, record)
        self._ahead = list(range(record["array"] - 1, -1, -1))  # not started; the next one is last
        self._running: dict[int, Running] = {}  # by their numbers
        self._scripts: dict[int, Running] = {}  # by the pids of their scripts, while these live
        self._changed = False  # a process has ended since the last look
        self._trouble_until = 0.0

    def run(self) -> None:
        while True:
            self.reap()
            self._look_at_requests()
            self._look_at_limits()
            self._clear_up()
            self._turn()
            if not self._ahead and not self._running:
                break
            if wait(self._pause()) == STOP:
                self.stopped = True
        self.end_tree()
        self.conclude()

    def ending(self) -> Record:
        return self.end or ending("EXITED")

    def collected(self, pid: int, status: int, max_rss: int, cpu_seconds: float) -> None:
        self._changed = True
        if element := self._scripts.pop(pid, None):
            element.status, element.over = status, time.time()
            element.max_rss, element.cpu_seconds = max_rss, cpu_seconds

    def _in_trouble(self) -> bool:
        return time.monotonic() < self._trouble_until

    # What has to end

    def _look_at_requests(self) -> None:
        self._elements.refresh()
        self.asked_to_end()
        for element in self._running.values():
            if element.end is None and self.end is not None:
                element.end = self.end
            elif element.end is None and (cancel := self._elements.cancel(element.index)):
                element.end = ending("CANCELLED", by=cancel.get("by"))

    def _look_at_limits(self) -> None:
        walltime, limit, now = self.record["walltime"], self.record["memory"], time.monotonic()
        for element in self._running.values():
            if element.end is not None or element.status is not None:
                continue
            if element.deadline is not None and now >= element.deadline:
                message = f"over its walltime of {walltime:g} s"
                element.end = ending("TIMEOUT", message=message)
            elif limit is not None:
                used = process.memory(element.script.pid, limit, itself=True)
                element.peak = max(element.peak, used)
                if used > limit:
                    message = f"used {used} of {limit} bytes of memory"
                    element.end = ending("OUT_OF_MEMORY", message=message)

    def _clear_up(self) -> None:
        """End the remaining processes of elements that are over or have to end."""
        elements = [each for each in self._running.values() if each.is_ending]
        if not elements:
            return
        # The usual end: the scripts are over and have left no process; one look tells that.
        over = {each.index for each in elements if each.status is not None}
        if len(over) == len(elements) and not process.has_adopted(self._scripts):
            for each in elements:
                each.clear = True
            return
        now = time.monotonic()
        if self._changed or any(each.kill_at is None or now >= each.kill_at for each in elements):
            self._changed = False
            scripts = {each.index: (each.script.pid, self._marks(each.index)) for each in elements}
            families = process.families(scripts, over)
            for each in elements:
                each.stop(families[each.index], self.record["kill_grace"])

    def _marks(self, index: int) -> dict[bytes, bytes]:
        return self.spool.marks(element_id(self.record["id"], index))

    # The turn in the queue

    def _turn(self) -> None:
        """Note the ends, and start what may start."""
        done = [element for element in self._running.values() if element.clear]
        if self._in_trouble() or not (done or self._ahead):
            return
        try:
            with self.spool.lock:
                if not self.mine():
                    self._ahead.clear()
                    self._forget(done)
                    return
                self._end(done)
                self._start_some()
                self._show()
                self.spool.wake_next(self.queue, but=self.n)
        except FileNotFoundError:  # the spool was removed
            self._ahead.clear()
            self._forget(done)
        except OSError:  # a full disk must not cost the verdicts
            self._trouble_until = time.monotonic() + _TROUBLE_SECONDS

    def _forget(self, elements: list[Running]) -> None:
        for element in elements:
            del self._running[element.index]

    def _end(self, done: list[Running]) -> None:
        # If `cancel` has said "cancelled", it ends as cancelled, even if it ended by itself since.
        self._elements.refresh()
        self.asked_to_end()
        whole = self.end if self.end and self.end["end"] == "CANCELLED" else None
        ends = [
            (each.index, each.ending(self._elements.cancel(each.index) or whole)) for each in done
        ]
        unbegun = set(self._elements.cancelled()).intersection(self._ahead)
        for index in self._ahead if self.end else unbegun:
            cancel = self._elements.cancel(index) or {}
            ends.append((index, self.end or ending("CANCELLED", by=cancel.get("by"))))
        self._elements.append("E", ends)
        self._forget(done)
        if self.end:
            self._ahead.clear()
        elif unbegun:
            self._ahead = [index for index in self._ahead if index not in unbegun]

    def _start_some(self) -> None:
        while self._wants_more():
            self._show()
            if not self.spool.may_start(self.queue, self.entry):
                return
            self._start(self._ahead[-1])
            self._ahead.pop()

    def _wants_more(self) -> bool:
        at_once = self.record["at_once"] or len(self._ahead) + len(self._running)
        return bool(self._ahead) and len(self._running) < at_once

    def _start(self, index: int) -> None:
        script = Script(
            self.spool, self.n, self.record, held=self.held, rename=self.rename, index=index
        )
        start = {"process": process.identity(script.pid), "started": time.time()}
        try:
            self._elements.append("S", [(index, start)])
        except OSError:
            script.drop()
            raise
        element = Running(index, script, self.record["walltime"])
        self._running[index] = self._scripts[script.pid] = element
        # Only now may it run: its process is on record.
        script.go()

    def _show(self) -> None:
        """Write into the queue how many cpus the array uses, and whether its next element waits."""
        cpus = self.record["cpus"]
        self.spool.show(
            self.queue,
            self.n,
            uses=len(self._running) * cpus,
            wants=cpus if self._wants_more() else 0,
            slots=self.record["slots"],
        )

    def _pause(self) -> float:
        """Seconds until the next look, unless an event comes before."""
        now = time.monotonic()
        pauses = [CANCEL_LOOK_SECONDS]
        if self._in_trouble():
            pauses.append(self._trouble_until - now)
        for element in self._running.values():
            if element.kill_at is not None:
                pauses.append(element.kill_at - now)
            elif element.deadline is not None and element.end is None:
                pauses.append(element.deadline - now)
        if self.record["memory"] is not None and self._running:
            pauses.append(MEMORY_LOOK_SECONDS)
        return min(pauses)
