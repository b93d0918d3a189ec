"""All that a seed of quantum jobs draws: a service, a budget, and the flows that buy there."""

from __future__ import annotations

from concurrent.futures import Future
from contextvars import copy_context
from functools import cache, partial
from typing import Any

from qiskit import QuantumCircuit
from qiskit.primitives.containers.sampler_pub import SamplerPub

from hpc_prefect.errors import QuantumServiceError
from hpc_prefect.executor.request import JobSubmitted, Listener
from hpc_prefect.executor.service import Handle
from hpc_prefect.job.provider import Provider
from hpc_prefect.job.quantum_spec import QuantumSpec
from hpc_prefect.job.result import JobResult
from hpc_prefect.job.spec import Site
from hpc_prefect.operations.cancel import Cancellation
from hpc_prefect.operations.kinds import KINDS
from hpc_prefect.operations.snapshot import JobSnapshot
from hpc_prefect.quantum.backends import BackendSpec
from hpc_prefect.quantum.options import SamplerOptions
from hpc_prefect.quantum.purchase.provider import ServiceProvider
from hpc_prefect.quantum.purchase.request import Purchase, QuantumRequest
from hpc_prefect.quantum.purchase.run import QuantumRun
from hpc_prefect.quantum.sampling import Request
from hpc_prefect.quantum.services.ibm.backend import IBMBackend
from hpc_prefect.quantum.services.ibm.client import Account, Client
from hpc_prefect.transports.host import host
from simulation import mix
from simulation.ground import CAMPAIGN, ITS_OWN, Ground
from simulation.life import Life, Listening, Wanted
from simulation.process import Process
from simulation.quantum_client import Primitive, Signed
from simulation.quantum_oracles import Purchases, QuantumJudgements
from simulation.quantum_service import QuantumService
from simulation.world import World


class _Backend(IBMBackend):
    """A block's device, with one process's own client."""

    def __init__(self, spec: BackendSpec, client: Client) -> None:
        super().__init__(spec, Account())
        self._client = client

    @property
    def service(self) -> Client:
        return self._client


class _Kind:
    """How the operations reach quantum jobs: by the client of the process that asks."""

    def __init__(self, place: QuantumPlace) -> None:
        self._place = place

    def provider(self, site: Site) -> Provider:
        here: Any = host()
        return self._place.provider(here.process)

    def attach(self, job: JobSnapshot, listener: Listener, job_id: str) -> JobResult:
        raise NotImplementedError("a process that attaches is another start of a flow here")


class QuantumPlace(Ground):
    """Machines whose user has an account at a quantum service.

    Attributes:
        service: as it really is.
        purchases: what must be so when something is bought.
        spec: of the block.
    """

    troubles = (
        "unreachable",
        "closed to our token",
        "busy",
        "broken",
        "without its device",
        *ITS_OWN,
    )

    def __init__(self, world: World) -> None:
        super().__init__(world)
        chance = world.chance
        self.service = self.programs = QuantumService(world)
        self.weather = self.service.weather
        limit = chance.one_of("budget", (0.0, 0.0, 4.0, 6.0, 10.0, 20.0))
        self.purchases = Purchases(self.service, self.files, limit)
        self.judgements = QuantumJudgements(self.service, self.files, self.purchases)
        self.spec = BackendSpec(
            kind="ibm", backend_name="chip", interface="v2", max_qpu_seconds=limit
        )
        world.coverage.sometimes("a site has a quantum service")
        world.coverage.sometimes(f"a budget is {'there' if limit else 'not there'}")
        self._providers: dict[int, ServiceProvider] = {}
        self._requests: dict[tuple[int, int], Request] = {}
        self._shots: dict[str, int] = {}
        self._before = KINDS.get(QuantumSpec.kind)
        KINDS[QuantumSpec.kind] = _Kind(self)
        self.lives = [self._life(n) for n in range(1, 2 + (chance.below("lives", 4) == 0))]
        self.may_get_into_trouble()

    def _life(self, number: int) -> Life:
        chance = self.world.chance
        count = mix.jobs(chance, (1, 1, 1, 1, 2, 2, 2, 3, 4, 6))
        # A second flow may want jobs of the first one.
        other = number if chance.below("shared", 3) else 1
        keys = [f"{chr(96 + other)}{n}" for n in range(count)]
        for key in keys:
            self._shots.setdefault(key, chance.one_of("shots", (2000, 4000, 4000, 20_000)))
        wanted = [Wanted(key, f"{CAMPAIGN}/ab/{key}", shots=self._shots[key]) for key in keys]
        return QuantumLife(self, number, wanted, starts=mix.starts(chance))

    def provider(self, process: Process) -> ServiceProvider:
        """A process's own way to the service."""
        if process.number not in self._providers:
            client = Client(
                Account(),
                sign_in=lambda account: Signed(process, self.service),
                primitive=lambda kind, interface: Primitive,
            )
            self._providers[process.number] = ServiceProvider(client)
        return self._providers[process.number]

    def request(self, process: Process, shots: int) -> Request:
        """What a process asks for; its digest takes a while to make."""
        known = self._requests.get((process.number, shots))
        if known is None:
            client: Any = self.provider(process).service
            backend = _Backend(self.spec, client)
            known = Request((_pub(shots),), SamplerOptions(shots=shots), backend)
            self._requests[process.number, shots] = known
        return known

    def close(self) -> None:
        super().close()
        if self._before is None:
            del KINDS[QuantumSpec.kind]
        else:
            KINDS[QuantumSpec.kind] = self._before

    def facts(self) -> dict[str, Any]:
        return {
            "scheduler": "none, a quantum service",
            "budget": self.purchases.limit,
            "machines": [f"{each.name} ({each.skew:+g} s)" for each in self.machines],
            "lag": round(self.files.lag, 1),
            "jobs": [len(life.wanted) for life in self.lives],
        }


class QuantumLife(Life):
    """A flow that samples on a quantum computer."""

    place: QuantumPlace
    errors = (*Life.errors, QuantumServiceError)

    def hand_over(self, job: Wanted, process: Process, run: str) -> Handle[JobResult]:
        handle = process.executor.start(self._to_buy(job, process, run), QuantumRun)
        if self.world.chance.fault("a flow leaves a quantum job", 0.05):
            delay = self.world.chance.number("left after", 0.0, 30.0)
            self.world.later(delay, partial(self._leave, process, job, handle))
        return handle

    def _to_buy(self, job: Wanted, process: Process, run: str) -> QuantumRequest:
        """As `quantum.purchase.call.to_buy` has it, or `to_attach`, which know Prefect."""
        place, chance = self.place, self.world.chance
        attaches = chance.fault("a call only attaches", 0.04)
        provider = place.provider(process)
        request = place.request(process, job.shots)
        purchase = Purchase(request=request, made_by=run, context=copy_context())
        return QuantumRequest(
            spec=QuantumSpec(
                name="qpu",
                site=Site(scheduler=provider.name, options={"block": "qpu"}),
                digest=request.digest,
            ),
            provider=provider,
            base=job.base,
            key=job.key,
            claimant=process.claimant(run),
            timeout=self.timeout_of(job),
            listener=Listening(self.world.coverage),
            is_over=partial(place.prefect_says_over, process),
            provenance={"campaign": "c", "scope": [], "n": 1},
            attach_only=attaches,
            submit_only=not attaches and chance.fault("a call only submits", 0.08),
            purchase=None if attaches else purchase,
        )

    def _ended(self, process: Process, job: Wanted, future: Future[Any]) -> None:
        """A result was handed over, or the id of a job that goes on by itself."""
        submitted = not future.cancelled() and future.exception() is None
        if not (submitted and isinstance(future.result(), JobSubmitted)):
            super()._ended(process, job, future)
        elif self._process is not process:
            self._over_in(process, job)
        elif not process.dead:
            self.world.coverage.sometimes("a call is told the id of its quantum job")
            self.world.note(self._name, f"is told of {job.key}: {future.result().job_id}")
            self._done_with(process, job)

    def _leave(self, process: Process, job: Wanted, handle: Handle[JobResult]) -> None:
        if process.dead or handle.result.done() or self._process is not process:
            return
        self.world.coverage.sometimes("a flow leaves a quantum job to itself")
        self.world.note(self._name, f"leaves {job.key}")
        handle.leave()
        self._done_with(process, job)

    def _done_with(self, process: Process, job: Wanted) -> None:
        self._open.pop(job.key, None)
        self._calls[process].discard(job.key)
        if not self._open:
            self.world.later(0.1, partial(self._end, process))

    def _told(self, done: Cancellation) -> None:
        self.world.note("jobs cancel", f"says {done.confirmed}: {done.words}")
        self.world.coverage.sometimes(
            f"a cancelling command says {'confirmed' if done.confirmed else 'unconfirmed'}"
        )


@cache
def _pub(shots: int) -> SamplerPub:
    circuit = QuantumCircuit(1)
    circuit.h(0)
    circuit.measure_all()
    return SamplerPub.coerce(circuit, shots)
