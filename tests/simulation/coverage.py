"""What must have happened in a run of many lives, or the run has shown little: "sometimes"."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable


class Coverage:
    """How often each thing happened."""

    def __init__(self) -> None:
        self.seen: Counter[str] = Counter()

    def sometimes(self, what: str) -> None:
        """This happened."""
        self.seen[what] += 1

    def missing(self, expected: Iterable[str]) -> list[str]:
        """What never did."""
        return [what for what in expected if not self.seen[what]]


#: What a job's listener is told, by a part of it: the ways through submission and take-over.
TOLD = (
    "already done as",
    "attached to",
    "found in the queue as",
    "was a duplicate of",
    "never started; it is submitted again",
    "could not start its program",
    "waiting for a slot",
    "the queue is full",
    "not clear whether the job was submitted",
    "cancelling",
    "running as",
    "held as",
)

#: Each kind of trouble, and each end that a job can come to, in a run of ten thousand lives.
EXPECTED = (
    # processes and machines
    "a process dies before a step",
    "a process dies torn a step",
    "a process dies after a step",
    "a process dies power a step",
    "a process is stopped for a while",
    "a stopped process is taken for dead",
    "a login node loses its power",
    "Prefect is wrong about a run",
    # the file server
    "a listing is late",
    "a name is remembered as absent",
    "an unsynced write is lost",
    "no space is left",
    "the file server errs",
    # the scheduler
    "a site has slurm",
    "a site has pbs",
    "a site has pjm",
    "the reply to a submission is lost",
    "a submission is lost",
    "a submission is made and answered with an error",
    "a submission is answered with an error and not made",
    "a submission is made twice",
    "a submission is refused",
    "the queue is full",
    "the scheduler goes down with a submission",
    "the scheduler is down",
    "the scheduler is hung",
    "the scheduler is unlisted",
    "the scheduler is forgetful",
    "the scheduler is garbage",
    "an id is given again",
    "a node dies",
    "a job is requeued",
    "a job is started again without being counted",
    "a job exceeds its walltime",
    "a job is cancelled by the operator while running",
    "a job is cancelled by the product while pending",
    "a job is cancelled by the product while running",
    # the script
    "a script refuses with 117",
    "a script refuses with 118",
    "a script finds a start that was not counted",
    "a script's program.sh is not whole",
    # what is told
    "a process is at rest",
    "an error: JobHeld",
    "an error: LedgerError",
    "an error: SchedulerError",
    "an error: TransportError",
    "two jobs of one name are told of",
    "a cancelling command says confirmed",
    "a cancelling command says unconfirmed",
    "an end is not confirmed",
    "the end is: succeeded",
    "the end is: program failed",
    "the end is: set-up failed",
    "the end is: job folder not writable",
    "the end is: walltime exceeded",
    "the end is: node failure",
    "the end is: preempted",
    "the end is: cancelled",
    "the end is: cancelled by someone else",
    "the end is: timed out",
    "the end is: rejected at submit",
    "the end is: output lost",
    "the end is: lost",
    *(f"told: {part}" for part in TOLD),
    # arrays
    "a member's end is: succeeded",
    "a member's end is: program failed",
    "a member's end is: output lost",
    "a member's end is: never started",
    "a member's end is: cancelled",
    "a member's end is: lost",
    "a member's end is: walltime exceeded",
    "members of an element are not begun",
    "the members of an array are listed",
    "cancelling a member is told as confirmed",
    # calls that are alike
    "starts make the same calls in another order",
    "a task run makes its calls again",
    # held allocations
    "a job runs in an allocation",
    "members of an array run in an allocation",
    "what is said to an agent is broken off",
    "an allocation has two batch jobs",
    "an allocation is cancelled by a command",
    "an allocation's log is full",
    "a flow leaves its block by an error",
    "a flow's process is told to end",
    "an agent ends: closed",
    "an agent ends: idle",
    "an agent ends: orphan",
    "an agent ends: signalled",
    "an agent ends: walltime",
    "an allocation's end is: succeeded",
    "an allocation's end is: cancelled",
    "nobody holds an allocation any more",
    "the end is: allocation ended",
)
#: The same of the seeds that have a quantum service; in a thousand lives.
QUANTUM = (
    "a site has a quantum service",
    "a budget is there",
    "a budget is not there",
    "the quantum service is unreachable",
    "the quantum service is closed to our token",
    "the quantum service is busy",
    "the quantum service is broken",
    "the quantum service is without its device",
    "a token of the quantum service expires",
    "an answer of the quantum service is lost",
    "a list of quantum jobs is late",
    "the reply to a POST is lost",
    "a POST is lost",
    "a POST is taken and answered with 503",
    "a POST is answered with 503 and not taken",
    "a POST is made twice",
    "a POST is refused",
    "a POST is made by who was stopped before",
    "a cancellation is accepted and forgotten",
    "somebody else cancels a quantum job",
    "a quantum job is cancelled while queued",
    "a quantum job is cancelled while running",
    "a quantum job ends as DONE",
    "a quantum job ends as ERROR",
    "a quantum job ends as CANCELLED",
    "a call is told the id of its quantum job",
    "a flow leaves a quantum job to itself",
    "an error: QuantumServiceError",
    "a quantum job's end is not confirmed",
    "a quantum job's end is: succeeded",
    "a quantum job's end is: failed at the service",
    "a quantum job's end is: cancelled",
    "a quantum job's end is: cancelled by someone else",
    "a quantum job's end is: timed out",
    "a quantum job's end is: rejected at submit",
    "a quantum job's end is: over budget",
)
#: What is told of when it has not happened, and may well not in a few thousand lives.
RARE = (
    "an agent is killed",
    "an agent finds another one's link",
    "an agent's text is not whole",
    "a person cancels an allocation",
    "the node of an allocation dies",
    "an allocation's walltime is over early",
    "an allocation's end is: lost",
    "the script of a job in an allocation is not whole",
    "a script finds its program's success",
    "the end is: never started",
    "the end is: second job of one attempt",
    "told: it had been submitted after all",
    "a member's end is: node failure",
    "a member's end is: cancelled by someone else",
    "cancelling a member is told as unconfirmed",
    "another process follows an array to its end",
    "the lines of an array's members are not whole",
)
