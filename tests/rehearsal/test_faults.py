"""The faults that every rehearsed scheduler has beside those that its own tests show."""

from __future__ import annotations

import os
import subprocess

import pytest

from .rig import until


class Words:
    """PBS's and PJM's words for the same thing."""

    def __init__(self, rig, queue, history, submit, delete):
        self.rig, self.queue, self.history = rig, queue, history
        self.submit, self.delete = submit, delete

    def listed(self, job):
        """Whether queue or history shows it."""
        shown = self.rig.ok(*self.queue) + self.rig.ok(*self.history)
        return job.partition(".")[0] in shown.replace(".", " ").split()


@pytest.fixture(params=["pbs", "pjm"])
def words(request):
    rig = request.getfixturevalue(request.param)
    if request.param == "pbs":
        return Words(rig, ["qselect"], ["qselect", "-x"], "qsub", "qdel")
    jid = ("--choose", "jid")
    return Words(rig, ["pjstat", *jid], ["pjstat", "-H", *jid], "pjsub", "pjdel")


def test_a_question_that_fails_is_no_trouble_of_other_commands(words):
    rig = words.rig
    rig.fault("query-fails")
    job = rig.submit(f"touch {rig.mark('ran')}")
    assert [rig.run(*words.queue)[0] != 0, rig.run(*words.history)[0] != 0] == [True, True]
    until(rig.mark("ran").exists, "the run of a job that cannot be asked about")
    rig.fault("query-fails", on=False)
    until(lambda: words.listed(job), "its place in the history")


def test_a_question_that_hangs_is_no_trouble_of_other_commands(words):
    rig = words.rig
    rig.fault("query-hangs")
    with pytest.raises(subprocess.TimeoutExpired):
        rig.run(*words.queue, timeout=1)
    job = rig.submit("true")
    rig.fault("query-hangs", on=False)
    until(lambda: words.listed(job), "its place in the history")


def test_a_submission_that_is_answered_with_an_error_has_made_a_job(words):
    rig = words.rig
    rig.fault("error-after-submit")
    code, out, err = rig.run(words.submit, rig.script(f"touch {rig.mark('ran')}"))
    assert (code != 0, out, err != "") == (True, "", True)
    until(rig.mark("ran").exists, "its run")


def test_a_job_that_is_not_listed_runs_all_the_same(words):
    rig = words.rig
    rig.fault("unlisted")
    job = rig.submit(f"touch {rig.mark('ran')}")
    until(rig.mark("ran").exists, "its run")
    assert not words.listed(job)
    assert rig.run(words.delete, job)[0] != 0
    rig.fault("unlisted", on=False)
    until(lambda: words.listed(job), "its place in the history")


def test_a_waiting_job_that_is_forgotten_does_not_come_back(words):
    rig = words.rig
    rig.fault("late")  # it waits
    job = rig.submit(f"touch {rig.mark('ran')}")
    rig.fault("forgets")
    assert not words.listed(job)
    for name in ("forgets", "late"):
        rig.fault(name, on=False)
    other = rig.submit("true")
    until(lambda: words.listed(other), "the next job's place in the history")
    assert (words.listed(job), rig.mark("ran").exists()) == (False, False)


def test_a_node_that_fails_takes_its_job_along(words):
    rig = words.rig
    job = rig.submit(f"echo $$ > {rig.mark('pid')}; sleep 60; touch {rig.mark('ended')}")
    until(lambda: rig.mark("pid").exists() and rig.mark("pid").read_text(), "its start")
    rig.fault("node-fails")
    pid = int(rig.mark("pid").read_text())
    until(lambda: not os.path.exists(f"/proc/{pid}"), "the end of its process")
    until(lambda: job not in rig.ok(*words.queue), "its end")
    assert not rig.mark("ended").exists()
