"""A story: a seed and its few faults, kept as a regression test and told as a timeline."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from simulation.simulate import Outcome, simulate

STORIES = Path(__file__).with_name("stories")
#: Lines of a timeline that say what many others say, too.
_DULL = ("squeue", "sacct", "qstat", "qselect", "pjstat", "is answered", "touch ")


@dataclass(frozen=True)
class Story:
    """Attributes:
    about: what the product did, in a sentence or two.
    found: what was wrong, as the oracle told it.
    mutation: the change that has it wrong again; see `mutations.py`.
    """

    about: str
    seed: int
    faults: list[str]
    found: str = ""
    mutation: str = ""

    @classmethod
    def read(cls, path: Path) -> Story:
        return cls(**json.loads(path.read_text()))

    def write(self, path: Path) -> None:
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(asdict(self), indent=1) + "\n")

    def happen(self) -> Outcome:
        return simulate(self.seed, only=self.faults, keep=True)


def stories() -> list[Path]:
    """Those that are kept."""
    return sorted(STORIES.glob("*.json"))


def timeline(outcome: Outcome, *, dull: bool = False) -> str:
    """What happened, a line each; without `dull` only what changed something."""
    lines = [f"seed {outcome.seed}: {json.dumps(outcome.facts)}"]
    lines += [f"fault: {fault}" for fault in outcome.faults]
    for when, who, what in outcome.timeline:
        if dull or not what.startswith(_DULL):
            lines.append(f"{when:10.3f} s  {who:12}  {what}")
    lines += [f"WRONG ({kind}): {sentence}" for kind, sentence in outcome.wrong]
    return "\n".join(lines)
