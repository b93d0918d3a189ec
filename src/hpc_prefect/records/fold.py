"""A run's record, made from its events.

    <campaign's folder>/runs/<run's id>/
        events.jsonl     one line an event, appended by one process; further processes of the run
                         (a resumed one, a pool's workers) append to events-2.jsonl, …
        run.json         the same without jobs and generators, as of `updated`: for people
        code.diff        changes that were not committed, if any
        parameters.json  the parameters as they were given, if the record shows them cut

The events, in their fields beside `time` (seconds since 1970) and `event`:

    began        format, run, parameters, inexact, apart, environment     once for each attempt
    code         code                                 the source that runs
    campaign     name, id, identity, instance, folder, work_dir, chosen_outside    an experiment
                                                          that it works on
    block        digest, kind, name, values           configuration that a call was given, without
                                                          secrets; once more if it changed back
    job          key, kind, name, folder, scope, n, blocks         a call: this job is wanted
    job-ended    key, attempt, and everything about it             an attempt of it has ended
    loop         loop, folder, scope, n, seed, entropy, stop, variable, parameters, watched
                                                          a loop starts or goes on
    iteration    loop, folder, number, row            of a loop
    generators   loop, folder, number, states         of random numbers, after that iteration
    measures     values                               what the flow recorded of itself
    ended        state, message                       how the run ended

What a later version adds is kept, but not read. `run.schema.json` describes the record in full.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from hpc_prefect.job.failure import Reason
from hpc_prefect.job.result import state_of

FORMAT = 1
#: The folder of the runs, in a campaign's.
RUNS = "runs"
EVENTS = "events.jsonl"
RUN = "run.json"
DIFF = "code.diff"
PARAMETERS = "parameters.json"

_EVENTS = (
    *("began", "code", "campaign", "block", "job", "job-ended"),
    *("loop", "iteration", "generators", "measures", "ended"),
)
#: Seconds since 1970 that are too late to be a time.
_LATEST = 1e11
#: The columns of a loop's row that come from a clock.
CLOCK = ("seconds", "time")
#: The costs of a job, and of a run (sums of what is known).
COSTS = ("queue_seconds", "run_seconds", "node_hours", "core_hours", "gpu_hours", "qpu_seconds")


@dataclass
class Totals:
    """What a run has done, counted as it goes.

    Attributes:
        jobs: how many have ended, by state; each member of an array counts.
        reused: how many of them an earlier run had done.
        costs: of this run's own jobs, over all of their attempts, by the names of `COSTS`.
        saved: what the reused jobs had cost; it was not paid again.
        unknown: for each cost, the number of own jobs of which it is not known.
    """

    jobs: Counter[str] = field(default_factory=Counter)
    reused: int = 0
    costs: dict[str, float] = field(default_factory=dict)
    saved: dict[str, float] = field(default_factory=dict)
    unknown: Counter[str] = field(default_factory=Counter)

    def add(self, job: Mapping[str, Any], *, reused: bool, times: int = 1) -> None:
        """A job's attempt has ended; `times` is -1 to take back what was added.

        Raises:
            ValueError, TypeError: a cost is no possible number; nothing was added.
        """
        costs = {name: _cost(job[name]) for name in COSTS if name in job}
        ended = _ends(job)
        for state, count in ended.items():
            self.jobs[state] += times * count
        self.reused += times * reused * ended.total()
        sums = self.saved if reused else self.costs
        for name, cost in costs.items():
            if cost is None:
                self.unknown[name] += times * (not reused)
            else:
                sums[name] = sums.get(name, 0.0) + times * cost

    def as_dict(self) -> dict[str, Any]:
        """JSON values only."""
        return {
            "jobs": {state: count for state, count in sorted(self.jobs.items()) if count},
            "reused": self.reused,
            "costs": _rounded(self.costs),
            "saved": _rounded(self.saved),
            "unknown": {name: count for name, count in sorted(self.unknown.items()) if count},
        }


def _ends(job: Mapping[str, Any]) -> Counter[str]:
    """How many jobs have ended with this event, by state; for an array, its members.

    Raises:
        ValueError, TypeError: they are no numbers.
    """
    if not job.get("ends"):
        return Counter({str(job.get("state")): 1})
    found: Counter[str] = Counter()
    for reason, count in job["ends"].items():
        found[_state(reason)] += int(count)
    return found


def _state(reason: str) -> str:
    try:
        return state_of(Reason(reason))
    except ValueError:  # of a version to come
        return "failed"


def _cost(value: Any) -> float | None:
    if value is None:
        return None
    cost = float(value)
    if not 0 <= cost < 1e15:
        raise ValueError(f"a cost of {cost}")
    return cost


def _rounded(sums: Mapping[str, float]) -> dict[str, float]:
    return {name: round(float(value), 6) for name, value in sorted(sums.items())}


@dataclass
class Record:
    """What the events of a run say so far.

    Attributes:
        folder: of the record.
        run: id, name, kind ("flow" or "script"), flow, entrypoint, attempt …
        parameters: of the flow; secrets are asterisks.
        inexact: names of parameters that the record does not hold as they were given.
        apart: names of parameters that are cut here, and whole in parameters.json.
        code: file, sha256, and of git: commit, branch, dirty, diff_sha256.
        environment: host, user, pid, process, cwd, argv, python, platform, packages.
        campaigns: by their folder.
        blocks: what calls were given, by digest: kind, name, values.
        newest: the digest of the block that was given last, by kind and name.
        jobs: the newest attempt of each, by key; empty without `with_jobs`.
        loops: seed, stop rule, parameters and watched column of each loop.
        iterations: of each loop its rows, by number.
        generators: of each loop the states of its random number generators after each iteration,
            by number; 0 is before the first one.
        measures: the newest value of each. A column of a loop's last row counts as well, if the
            flow recorded no measure of that name.
        state: `running` until an end is known; then completed, failed, cancelled or crashed.
        started, ended, updated: seconds since 1970; 0 for not known.
        completed_by: events made from the jobs' folders, because no process had written them.
        counted: the final ends of jobs that `totals` has, by key, attempt and id; the value is
            whether an earlier run did the job.
        open: keys of jobs that were asked for and of which no end is known.
        succeeded: keys of jobs that have succeeded.
    """

    folder: str = ""
    with_jobs: bool = True
    run: dict[str, Any] = field(default_factory=dict)
    parameters: dict[str, Any] = field(default_factory=dict)
    inexact: list[str] = field(default_factory=list)
    apart: list[str] = field(default_factory=list)
    code: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)
    campaigns: dict[str, dict[str, Any]] = field(default_factory=dict)
    blocks: dict[str, dict[str, Any]] = field(default_factory=dict)
    newest: dict[tuple[str, str], str] = field(default_factory=dict)
    jobs: dict[str, dict[str, Any]] = field(default_factory=dict)
    loops: dict[str, dict[str, Any]] = field(default_factory=dict)
    iterations: dict[str, dict[int, dict[str, Any]]] = field(default_factory=dict)
    generators: dict[str, dict[int, dict[str, Any]]] = field(default_factory=dict)
    recorded: dict[str, Any] = field(default_factory=dict)
    totals: Totals = field(default_factory=Totals)
    state: str = "running"
    message: str = ""
    started: float = 0.0
    ended: float = 0.0
    updated: float = 0.0
    completed_by: list[dict[str, Any]] = field(default_factory=list)
    counted: dict[tuple[str, str, str], bool] = field(default_factory=dict)
    open: set[str] = field(default_factory=set)
    succeeded: set[str] = field(default_factory=set)
    _began_at: float = 0.0
    _lost: dict[tuple[str, str, str], dict[str, Any]] = field(default_factory=dict)
    _labels: dict[str, str] = field(default_factory=dict)
    _wrote: dict[str, None] = field(default_factory=dict)

    @property
    def id(self) -> str:
        return str(self.run.get("id", ""))

    @property
    def name(self) -> str:
        return str(self.run.get("name", ""))

    @property
    def flow(self) -> str:
        return str(self.run.get("flow", ""))

    @property
    def wall_seconds(self) -> float:
        """Seconds from its beginning to its end, or to the last known event."""
        return max(0.0, (self.ended or self.updated) - self.started)

    @property
    def measures(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for loop in self._wrote:  # the one that wrote last wins
            rows = self.iterations[loop]
            found |= rows[max(rows)]
        return found | self.recorded

    def add(self, event: Mapping[str, Any]) -> None:
        """Take an event in; an invalid one is ignored."""
        if event.get("event") not in _EVENTS:
            return
        take = getattr(self, f"_{event['event'].replace('-', '_')}")
        try:
            time = float(event["time"])
            if not 0 <= time < _LATEST:
                return
            take(dict(event) | {"time": time})
        except Exception:  # noqa: BLE001 - anybody may have written anything there
            return
        self.updated = max(self.updated, time)

    def _began(self, event: dict[str, Any]) -> None:
        self.run = dict(event["run"])
        self.parameters = dict(event["parameters"])
        self.inexact = list(event.get("inexact") or ())
        self.apart = list(event.get("apart") or ())
        self.environment = dict(event["environment"])
        self.code = dict(event.get("code") or self.code)
        self._began_at = max(self._began_at, event["time"])
        if event["time"] >= self.ended:  # it runs again, if it had ended
            self.state, self.message, self.ended = "running", "", 0.0
        self.started = min(self.started or event["time"], event["time"])

    def _code(self, event: dict[str, Any]) -> None:
        self.code = dict(event["code"])

    def _campaign(self, event: dict[str, Any]) -> None:
        self.campaigns[str(event["folder"])] = _without_frame(event)

    def _block(self, event: dict[str, Any]) -> None:
        digest = str(event["digest"])
        self.blocks[digest] = _without_frame(event)
        self.newest[str(event["kind"]), str(event["name"])] = digest

    def _job(self, event: dict[str, Any]) -> None:
        key = str(event["key"])
        if key not in self.succeeded:  # else the call gets the result that is there
            self.open.add(key)
        if self.with_jobs:
            job = self.jobs.setdefault(key, {})
            job |= _without_frame(event) | {"wanted_at": event["time"]}
            job |= {"state": "wanted"} if key in self.open else {}

    def _job_ended(self, event: dict[str, Any]) -> None:
        key, state = str(event["key"]), str(event["state"])
        which = (key, str(event.get("attempt")), str(event.get("job_id")))
        again = which in self.counted
        event["collected"] = self._count(which, event)
        self.open.discard(key)
        if state == "succeeded":
            self.succeeded.add(key)
        if self.with_jobs:
            job = self.jobs.setdefault(key, {})
            if again:  # a final end does not become "lost"
                job |= {"state": state} if state != "lost" else {}
            elif event["time"] >= job.get("ended_at", 0.0):  # an earlier attempt may be told later
                job |= _without_frame(event) | {"ended_at": event["time"]}

    def _count(self, which: tuple[str, str, str], event: dict[str, Any]) -> bool:
        """Count an end once: each retry and repeated call records it again.

        When a lost job is found, its new end counts in place of "lost".

        Returns:
            Whether an earlier run did it.
        """
        if which in self.counted:
            return self.counted[which]
        lost = self._lost.pop(which, None)
        if lost is not None:
            self.totals.add(lost, reused=lost["collected"], times=-1)
        reused = self.is_reused(event)
        self.totals.add(event, reused=reused)
        if event["state"] == "lost":
            self._lost[which] = event
        else:
            self.counted[which] = reused
        return reused

    def is_reused(self, job: Mapping[str, Any]) -> bool:
        """Whether an earlier run did it. What this run finds of its own after a kill is its own."""
        if not job.get("collected") or job.get("made_by") == self.id:
            return False
        return not float(job.get("finished_at") or 0.0) >= self.started > 0.0

    def _loop(self, event: dict[str, Any]) -> None:
        self.loops[self._label(event)] = _without_frame(event)

    def _label(self, event: Mapping[str, Any]) -> str:
        """A loop's name, with a number if it is not the first loop of that name."""
        folder, name = str(event.get("folder")), str(event["loop"])
        if (known := self._labels.get(f"{name} {folder}")) is not None:
            return known
        alike = sum(each.partition(" ")[0] == name for each in self._labels)
        label = self._labels[f"{name} {folder}"] = f"{name} ({alike + 1})" if alike else name
        return label

    def _iteration(self, event: dict[str, Any]) -> None:
        loop, number, row = self._label(event), int(event["number"]), dict(event["row"])
        self.iterations.setdefault(loop, {})[number] = row
        self._wrote.pop(loop, None)
        self._wrote[loop] = None

    def _generators(self, event: dict[str, Any]) -> None:
        states = {int(event["number"]): dict(event["states"])}
        self.generators.setdefault(self._label(event), {}).update(states)

    def _measures(self, event: dict[str, Any]) -> None:
        self.recorded |= dict(event["values"])

    def _ended(self, event: dict[str, Any]) -> None:
        if event["time"] < self._began_at:  # the end of an earlier attempt
            return
        self.state, self.message = str(event["state"]), str(event.get("message", ""))
        self.ended = event["time"]

    def summary(self) -> dict[str, Any]:
        """What a list of runs shows: JSON values. Their size does not grow with the jobs."""
        return {
            "format": FORMAT,
            "id": self.id,
            "name": self.name,
            "kind": self.run.get("kind", ""),
            "flow": self.flow,
            "campaign": [each.get("name", "") for each in self.campaigns.values()][:1],
            "folder": self.folder,
            "host": self.environment.get("host", ""),
            "pid": self.environment.get("pid", 0),
            "process": self.environment.get("process", ""),
            "state": self.state,
            "started": self.started,
            "ended": self.ended,
            "updated": self.updated,
            "parameters": self.parameters,
            "measures": self.measures,
            "totals": self.totals.as_dict() | {"wall_seconds": round(self.wall_seconds, 3)},
        }

    def as_dict(self) -> dict[str, Any]:
        """The whole record as JSON values, as `run.schema.json` describes them."""
        whole = self.summary() | {
            "message": self.message,
            "run": self.run,
            "inexact": self.inexact,
            "apart": self.apart,
            "code": self.code,
            "environment": self.environment,
            "campaigns": list(self.campaigns.values()),
            "blocks": list(self.blocks.values()),
            "loops": list(self.loops.values()),
            "iterations": {
                loop: [rows[number] for number in sorted(rows)]
                for loop, rows in self.iterations.items()
            },
        }
        if not self.with_jobs:
            return whole
        generators = {
            loop: [{"iteration": number} | states[number] for number in sorted(states)]
            for loop, states in self.generators.items()
        }
        return whole | {"generators": generators, "jobs": list(self.jobs.values())}


def _without_frame(event: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in event.items() if name not in ("event", "time")}


def fold(
    events: Iterable[Mapping[str, Any]], *, folder: str = "", with_jobs: bool = True
) -> Record:
    """A record from its events, in the order of their times."""
    record = Record(folder=folder, with_jobs=with_jobs)
    for event in events:
        record.add(event)
    return record


def begun_in_words(times: object) -> str:
    """How often a run has begun, in words; empty for once."""
    often = isinstance(times, int) and times > 1
    return f"{times} times: it was retried or resumed" if often else ""


def label_of(job: Mapping[str, Any]) -> str:
    """What a person calls a job: its name; for a submission of an array with its number of jobs."""
    name = str(job.get("name") or job.get("key") or "")
    return f"{name} ({job['members']} jobs)" if job.get("members") else name
