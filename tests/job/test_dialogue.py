"""What a reply and a command say of themselves."""

from __future__ import annotations

import pytest

from hpc_prefect.job.dialogue import Command, Reply


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (Reply(1, "out", " why \n"), "exit status 1, why"),
        (Reply(0, " out\n", " "), "exit status 0, out"),
        (Reply(None), "no answer in time, nothing"),
        (Reply(2, "", "x" * 700), "exit status 2, " + "x" * 600),
    ],
)
def test_a_reply_is_told_in_a_few_words(reply: Reply, said: str) -> None:
    assert reply.said == said


def test_a_command_is_shown_as_its_words() -> None:
    assert str(Command(("qstat", "-x"), stdin="secret")) == "qstat -x"
