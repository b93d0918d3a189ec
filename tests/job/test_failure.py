"""Every reason has its own word and its own advice."""

from __future__ import annotations

import json
import pickle

import pytest

from hpc_prefect.job.failure import ADVICE, Reason


def test_each_reason_has_one_advice_of_its_own() -> None:
    assert set(ADVICE) == set(Reason)
    assert len({advice.remedy for advice in ADVICE.values()}) == len(Reason)


def test_on_disk_it_is_a_code_and_for_people_words() -> None:
    for reason in Reason:
        assert json.loads(json.dumps(reason)) == reason.value == reason.name.lower()
        assert f"{reason}" == str(reason) == reason.words
        assert Reason(reason.value) is Reason(reason.words) is reason
        assert pickle.loads(pickle.dumps(reason)) is reason
    assert f"{Reason.SETUP_FAILED}: {Reason.LOST:>6}" == "set-up failed:   lost"
    with pytest.raises(ValueError, match="no reason"):
        Reason("no reason")
