"""Every reason has its own word and its own advice."""

from __future__ import annotations

from hpc_prefect.job.failure import ADVICE, Reason


def test_each_reason_has_one_advice_of_its_own() -> None:
    assert set(ADVICE) == set(Reason)
    assert len({advice.remedy for advice in ADVICE.values()}) == len(Reason)
