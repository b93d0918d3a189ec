"""The campaigns of a flow run, as far as this process knows, and what identifies them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from prefect.context import FlowRunContext

from hpc_prefect.executor.service import executor
from hpc_prefect.flow_runs.given import changed_in_flow
from hpc_prefect.flow_runs.lost import opened as noted_open
from hpc_prefect.flow_runs.parameters import (
    ParameterDigest,
    changed_words,
    digest_of,
    parameters_of,
)
from hpc_prefect.flow_runs.per_run import PerRun
from hpc_prefect.flow_runs.scopes import current_run, root_flow
from hpc_prefect.flow_runs.sent import send_along, sent
from hpc_prefect.flow_runs.session import is_interactive
from hpc_prefect.job.identity import digest
from hpc_prefect.ledger.campaign_folder import Campaign
from hpc_prefect.ledger.claim import Claim, Claimant

_TYPED = (
    "an interactive session has no script name by which a later one could find its work. Name the"
    " experiment: with hpc_prefect.campaign('…'): …, or make the call in a flow"
)


class CampaignChoice(NamedTuple):
    """The arguments of `campaign`; `outside`: it is around the outermost flow, not in it."""

    name: str
    fresh: bool
    outside: bool


_DEFAULT = CampaignChoice("", fresh=False, outside=False)
_chosen: ContextVar[CampaignChoice] = ContextVar("hpc_prefect_campaign", default=_DEFAULT)


def chosen() -> CampaignChoice:
    """The choice of the innermost `campaign` around this call."""
    here = _chosen.get()
    told = sent("campaign") if here is _DEFAULT else None
    return here if told is None else CampaignChoice(*told)


@contextmanager
def chosen_as(choice: CampaignChoice) -> Iterator[None]:
    token = _chosen.set(choice)
    try:
        with noted_open(choice.name):
            yield
    finally:
        _chosen.reset(token)


send_along("campaign", chosen)


@dataclass(frozen=True, slots=True)
class Opened:
    """A campaign in one work_dir."""

    campaign: Campaign
    claimant: Claimant


class OpenedKey(NamedTuple):
    """The key of an open campaign. A forked child and a retry open it again."""

    choice: CampaignChoice
    process: int
    attempt: int
    work_dir: str


@dataclass
class Experiments:
    """The campaigns of a flow run, as far as this process knows.

    Attributes:
        refused_in: the attempt in which a call was refused before it had a place, or did not
            succeed and could not be noted in its campaign.
        parameter_digest: the digest of its parameters, once it was asked for.
        claims: this process's, by the folders of its campaigns.
        over: earlier flow runs whose campaigns this one has taken over, each with this run's claim.
    """

    campaigns: dict[OpenedKey, Opened] = field(default_factory=dict)
    refused_in: int = 0
    parameter_digest: ParameterDigest | None = None
    claims: dict[str, Claim] = field(default_factory=dict)
    over: dict[str, Claim] = field(default_factory=dict)

    def hold(self, claim: Claim) -> None:
        """Renew a claim until the run has ended."""
        if (before := self.claims.get(claim.folder)) != claim:
            if before is not None:
                executor().release(before)
            self.claims[claim.folder] = claim
            executor().keep(claim)

    def close(self) -> None:
        """The run has ended: its claims need no renewing."""
        for claim in self.claims.values():
            executor().release(claim)


experiments = PerRun(Experiments, Experiments.close)


def run_parameters_digest() -> ParameterDigest:
    """The digest of this run's parameters, which with the flow's name identifies its experiment.

    Computed once a run: the flow may change its arguments later.
    """
    mine, root = experiments.of(current_run()), root_flow()
    if mine.parameter_digest is None:
        if root is None or root.flow_run is None:
            mine.parameter_digest = (
                ParameterDigest("", _TYPED)
                if is_interactive()
                else ParameterDigest(digest(sys.argv[1:]), "")
            )
        else:
            mine.parameter_digest = digest_of(
                parameters_of(root),
                f"parameter {{which}} of flow {name_of(root)} has no stable identity, so no later"
                f" run could find this experiment again. Name the experiment:"
                " with hpc_prefect.campaign('…'): …",
            )
            if not mine.parameter_digest.problem and (changed := changed_in_flow(root)):
                advice = "Copy what you change, or name the experiment: with"
                problem = f"{changed_words(changed)}. {advice} hpc_prefect.campaign('…'): …"
                mine.parameter_digest = ParameterDigest("", problem)
    return mine.parameter_digest


def name_of(root: FlowRunContext | None) -> str:
    """The name of an experiment without a chosen name: that of its flow or script."""
    if root is None or root.flow_run is None:
        return Path(sys.argv[0] or "script").name
    return root.flow.name if root.flow else root.flow_run.name
