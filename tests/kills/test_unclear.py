"""What PBS and PJM, in rehearsal, leave unclear: each program runs once, and the truth is told."""

from __future__ import annotations

import contextlib
from dataclasses import replace

import places
import pytest
from lives import Driver, jobs_of, program, runs, until, wrong

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

MAKERS = {"pbs": places.in_pbs, "pjm": places.in_pjm}
#: So that each silence can be waited for.
PATIENCE = {"find": 2.0, "record": 6.0, "absent": 3.0, "lost": 12.0, "silent": 60.0}


@pytest.fixture(scope="module", params=MAKERS)
def driver(request, tmp_path_factory):
    place = MAKERS[request.param](tmp_path_factory.mktemp(request.param))
    driver = Driver(replace(place, patience=PATIENCE))
    yield driver
    driver.close()
    place.end()


@contextlib.contextmanager
def faults(driver, *names):
    files = [driver.place.faults / name for name in names]
    for file in files:
        file.touch()
    try:
        yield
    finally:
        for file in files:
            file.unlink(missing_ok=True)


def noted(folder, event):
    """How often the journal has this event."""
    journals = folder.glob(".hpc-prefect/*/*/*/journal.jsonl")
    return sum(journal.read_text().count(f'"{event}"') for journal in journals)


@pytest.mark.parametrize("name", ["dies-after-submit", "error-after-submit"])
def test_a_submission_whose_reply_says_nothing_or_no_made_a_job(driver, tmp_path, name):
    program(tmp_path, gate="go")
    with faults(driver, name):
        life = driver.begin(tmp_path, jobs_of(tmp_path, ["one"]))
        until(lambda: runs(tmp_path) or life.over, "its start")
    (tmp_path / "go").touch()
    assert life.wait()
    assert wrong(tmp_path, ["one"], life.said) == []


def test_a_job_that_shows_after_the_grace_is_followed_and_its_second_turned_away(driver, tmp_path):
    program(tmp_path)
    with faults(driver, "late"), faults(driver, "error-after-submit"):
        life = driver.begin(tmp_path, jobs_of(tmp_path, ["one"]))
        until(lambda: noted(tmp_path, "intent") >= 2 or life.over, "another submission")
    assert life.wait()
    if "error" in life.said:  # both wait: two hits are an error that names them
        assert "holds 2 jobs" in life.said["error"] or "three submissions" in life.said["error"]
        life = driver.begin(tmp_path, jobs_of(tmp_path, ["one"]))
        assert life.wait()
    assert wrong(tmp_path, ["one"], life.said) == []


@pytest.mark.parametrize("name", ["unlisted", "query-fails"])
def test_a_job_that_is_not_listed_or_asked_in_vain_has_not_ended(driver, tmp_path, name):
    program(tmp_path, gate="go")
    life = driver.begin(tmp_path, jobs_of(tmp_path, ["one"]))
    until(lambda: runs(tmp_path), "its start")
    with faults(driver, name):
        assert not life.wait(2.5)  # longer than it takes to ask; shorter than the grace
    (tmp_path / "go").touch()
    assert life.wait()
    assert wrong(tmp_path, ["one"], life.said) == []


def test_a_job_that_vanishes_for_good_is_told_of_by_its_own_record(driver, tmp_path):
    program(tmp_path, gate="go")
    life = driver.begin(tmp_path, jobs_of(tmp_path, ["one"]))
    until(lambda: runs(tmp_path), "its start")
    with faults(driver, "unlisted"):
        (tmp_path / "go").touch()
        assert life.wait()
    assert wrong(tmp_path, ["one"], life.said) == []


def test_a_job_that_vanishes_while_it_runs_is_lost_and_not_submitted_again(driver, tmp_path):
    program(tmp_path, gate="go")
    jobs = jobs_of(tmp_path, ["one"])
    life = driver.begin(tmp_path, jobs)
    until(lambda: runs(tmp_path), "its start")  # else it never began, and is submitted again
    with faults(driver, "unlisted"):
        for call in range(2):  # the second call finds the same, and makes no other job
            life = driver.begin(tmp_path, jobs) if call else life
            assert life.wait()
            (result,) = life.said["results"]
            assert (result["state"], result["attempt"]) == ("lost", 1)
    (tmp_path / "go").touch()
    last = driver.begin(tmp_path, jobs)
    assert last.wait()
    assert wrong(tmp_path, ["one"], last.said) == []


def test_a_job_that_is_forgotten_before_it_starts_is_submitted_again(driver, tmp_path):
    program(tmp_path)
    more = driver.place.fill(tmp_path, tmp_path / "go")
    life = driver.begin(tmp_path, jobs_of(tmp_path, ["one"], **more))
    until(lambda: noted(tmp_path, "submitted"), "its place in the queue")
    with faults(driver, "forgets"):
        until(lambda: list(tmp_path.glob(".hpc-prefect/*/*/*-2")) or life.over, "its next attempt")
        (tmp_path / "go").touch()
    assert life.wait()
    assert wrong(tmp_path, ["one"], life.said) == []
    assert life.said["results"][0]["attempt"] >= 2


def test_a_node_that_dies_is_told_as_that(driver, tmp_path):
    program(tmp_path, gate="go")
    life = driver.begin(tmp_path, jobs_of(tmp_path, ["one"]))
    until(lambda: runs(tmp_path), "its start")
    with faults(driver, "node-fails"):
        assert life.wait()
    (result,) = life.said["results"]
    assert (result["state"], runs(tmp_path)["one"]) == ("failed", 1), result
    if driver.place.scheduler == "pjm":  # PBS's words for it are not known
        assert result["verdict"]["reason"] == "node_failure"


def test_an_exit_record_that_comes_late_is_waited_for(driver, tmp_path):
    program(tmp_path)
    life = driver.begin(tmp_path, jobs_of(tmp_path, ["one"]), stale=3.0)
    assert life.wait()
    assert wrong(tmp_path, ["one"], life.said) == []
