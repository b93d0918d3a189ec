"""The rehearsal PJM: pjwait, pjacl, and jobs whose nodes are given to something else."""

import os
import subprocess

import pytest

from .rig import until

FOR_EVER = "sleep 600"
GROUPS = {"small": {"node": (1, 10)}, "spot": {"yields": True}, "off": {"enabled": False}}


# pjwait; the manual's own example has these lines, with other ids


def test_how_jobs_ended_is_told_in_the_manuals_words(pjm):
    pjm.submit("exit 1")
    killed = pjm.submit(FOR_EVER)
    pjm.reaches(killed, "RUN")
    pjm.ok("pjdel", killed)
    assert pjm.ok("pjwait", "1", "2") == "1 0 1 0\n2 1 1 9\n"
    assert pjm.ok("pjwait", "1-9") == "1 0 1 0\n2 1 1 9\n"


def test_pjwait_waits(pjm):
    job = pjm.submit(f"while [ ! -e {pjm.mark('end')} ]; do sleep 0.05; done")
    with subprocess.Popen(
        ["pjwait", job], env=pjm.environment(), stdout=subprocess.PIPE, text=True
    ) as waiting:
        pjm.reaches(job, "RUN")
        assert waiting.poll() is None
        pjm.mark("end").touch()
        assert waiting.communicate(timeout=60)[0] == f"{job} 0 0 0\n"


def test_waitnone_tells_at_once_what_is_so_far(pjm):
    running = pjm.submit(FOR_EVER)
    pjm.reaches(running, "RUN")
    held = pjm.submit("true", "--at", "203001010000")
    pjm.ok("pjhold", held)
    pjm.reaches(held, "HLD")
    pjm.fault("error")
    wrong = pjm.submit("true")
    pjm.reaches(wrong, "ERR")
    assert pjm.ok("pjwait", "-w", "waitnone", running, held, wrong, "77") == (
        f"{running} X - -\n{held} H - -\n{wrong} E - -\n"
    )


def test_what_pjwait_refuses(pjm):
    assert pjm.run("pjwait")[2].startswith("[ERR.] PJM 0610 pjwait No jobid(s) specified.\nTry ")
    assert pjm.run("pjwait", "r1") == (1, "", "[ERR.] PJM 0611 pjwait Invalid jobid: r1.\n")
    assert pjm.run("pjwait", "-z", "1")[2].startswith("[ERR.] PJM 0601 pjwait Unknown option or no")
    said = "[ERR.] PJM 0603 pjwait Unknown option argument: -w soon.\n"
    assert pjm.run("pjwait", "-w", "soon", "1")[2].startswith(said)
    pjm.fault("down")
    said = "[ERR.] PJM 0690 pjwait PJM daemon is not present.\n"
    assert pjm.run("pjwait", "1") == (1, "", said)


def test_a_rejected_job_is_not_told_of(pjm):
    pjm.fault("late")
    pjm.submit("true")
    pjm.fault("late", on=False)
    job = pjm.submit("true", "--at", "203001010000")
    assert pjm.ok("pjwait", "-w", "waitnone", "99") == ""
    assert pjm.ok("pjwait", "-w", "waitnone", job) == f"{job} X - -\n"


# pjacl


def test_a_resource_group_that_is_not_there_is_refused(pjm):
    pjm.install(rscgrps=GROUPS)
    assert pjm.ok("pjacl", "--rg", "small").startswith("RSCUNIT: rscunit_ft01\nRSCGRP: small\n")
    said = "[ERR.] PJM 3298 pjacl Resource group does not exist: nosuch.\n"
    assert pjm.run("pjacl", "--rg", "nosuch") == (1, "", said)
    said = "[ERR.] PJM 3297 pjacl Resource unit does not exist: fx.\n"
    assert pjm.run("pjacl", "--ru=fx") == (1, "", said)
    assert "deny all" in pjm.ok("pjacl", "--rg", "off")
    assert pjm.run("pjacl", "--nosuch")[2].startswith("[ERR.] PJM 3201 pjacl Unknown option")


# Jobs that lose their nodes


def test_a_job_of_low_priority_makes_room(pjm):
    pjm.install(rscgrps=GROUPS, nodes=4)
    yielding = [pjm.submit(FOR_EVER, "-L", "rscgrp=spot,node=2") for _ in range(2)]
    for job in yielding:
        pjm.reaches(job, "RUN")
    wanted = pjm.submit(FOR_EVER, "-L", "rscgrp=small,node=2")
    pjm.reaches(wanted, "RUN")
    assert pjm.row(yielding[0])["ST"] == "RUN"  # the newer one was enough
    seen = pjm.ended(yielding[1])
    assert [seen[name] for name in ("ST", "PC", "REASON")] == ["CCL", "0", "ANOTHER JOB STAR"]


def test_no_job_is_stopped_for_one_that_could_not_start_then(pjm):
    pjm.install(rscgrps={**GROUPS, "small": {}}, nodes=4)
    firm = pjm.submit(FOR_EVER, "-L", "rscgrp=small,node=2")
    yielding = pjm.submit(FOR_EVER, "-L", "rscgrp=spot,node=2")
    for job in (firm, yielding):
        pjm.reaches(job, "RUN")
    waiting = pjm.submit("true", "-L", "rscgrp=small,node=4")
    until(lambda: pjm.row(waiting)["REASON"] == "INSUFF NODE")
    other = pjm.submit("true", "-L", "rscgrp=spot,node=1")
    until(lambda: pjm.row(other)["REASON"] == "INSUFF NODE")
    assert pjm.row(yielding)["ST"] == "RUN"


@pytest.mark.parametrize("trapped", [False, True])
def test_a_deadline_ends_what_runs(pjm, trapped):
    job = pjm.submit(f"{'trap : TERM XCPU; ' * trapped}{FOR_EVER}")
    pjm.reaches(job, "RUN")
    pjm.fault("deadline")
    assert pjm.end(job) == ("EXT", "0", "7", "9")
    (err,) = pjm.work.glob("*.err")
    assert err.read_text().splitlines()[-1] == (
        f"[ERR.] PJM 7001 Job {job} was canceled. A deadline schedule was set on nodes running the"
        " job."
    )
    assert os.path.exists(pjm.state / "faults" / "deadline")
