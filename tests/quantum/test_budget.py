"""QPU seconds of one experiment: promised once, also where another host cannot see it yet."""

from __future__ import annotations

import pytest

from hpc_prefect.errors import BudgetExceeded
from hpc_prefect.ledger.job_folder import JobFolder
from hpc_prefect.quantum.purchase.budget import Budget
from hpc_prefect.transports.local import LocalTransport


@pytest.fixture
def campaign(tmp_path):
    folder = tmp_path / ".hpc-prefect" / "c"
    for key in ("one-1", "two-1"):
        LocalTransport().make_folder(f"{folder}/ab/{key}")
    return folder


def buy(budget: Budget, seconds: float, key: str) -> float:
    """Have a job's part promised, and write its intent."""
    folder = f"{budget.campaign}/ab/{key}"
    with budget.reserved(seconds, 8.0, folder) as left:
        job = {"estimated_seconds": seconds}
        JobFolder(LocalTransport(), folder).note("intent", tag=key, job=job)
    return left


class ListsLate(LocalTransport):
    """Another host, whose NFS client remembers the folder's names from before."""

    def list(self, path):
        return [name for name in super().list(path) if name != "one-1"]


class KnowsNoJournal(LocalTransport):
    """Another host, whose NFS client remembers that there is no journal."""

    def read(self, path, offset=0, size=-1):
        return None if path.endswith("one-1/journal.jsonl") else super().read(path, offset, size)


@pytest.mark.parametrize("transport", [LocalTransport(), ListsLate(), KnowsNoJournal()])
def test_what_another_host_has_promised_counts_before_its_folder_can_be_seen(campaign, transport):
    assert buy(Budget(campaign), 5.0, "one-1") == 8.0

    elsewhere = Budget(campaign, transport)
    with pytest.raises(BudgetExceeded, match=r"3\.0 of the 8"):
        buy(elsewhere, 5.0, "two-1")
    assert elsewhere.total() == 5.0
    assert buy(elsewhere, 3.0, "two-1") == 3.0


def test_a_promise_whose_job_was_never_intended_is_given_to_that_job_again(campaign):
    budget = Budget(campaign)
    folder = f"{campaign}/ab/one-1"
    with pytest.raises(KeyboardInterrupt), budget.reserved(5.0, 8.0, folder):
        raise KeyboardInterrupt  # killed before the intent

    assert budget.total() == 5.0
    with pytest.raises(BudgetExceeded):
        buy(budget, 5.0, "two-1")
    assert buy(budget, 5.0, "one-1") == 8.0
    assert budget.total() == 5.0
