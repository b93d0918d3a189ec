"""The rehearsal PJM's bulk jobs: what the manual says of them, with real processes.

Dialect and rehearsal are made from the same pages. What both take for granted and nobody here has
seen: that -E goes with --choose and --filter, that a filter by `jid` leaves a bulk job its sub
jobs, that /dev/null can be given to -o and -e of a bulk job (of other jobs users do so).
"""

import pytest

from .rig import Pjm, cells, until

FOR_EVER = "sleep 600"


def waiting_for(pjm, name):
    return f"until [ -e {pjm.mark(name)} ]; do sleep 0.05; done"


def submit(pjm, text, numbers="0-3", *options):
    return pjm.submit(text, "--bulk", "--sparam", numbers, *options)


def rows(pjm, *words):
    """The rows by their ids, each by the heads of its columns."""
    head, *lines = pjm.ok("pjstat", *words, "--choose", "jid,jnam,jmdl,st,lst,ec,pc,sn").split("\n")
    found = [cells(head, line) for line in lines if line]
    return {row["JOB_ID"]: row for row in found}


def states(pjm, *words):
    return {job: row["ST"] for job, row in rows(pjm, *words).items()}


def ended(pjm, job):
    return until(lambda: rows(pjm, "-H", "-E", job), f"{job} in the history")


def test_a_bulk_job_is_one_row_and_with_its_sub_jobs_a_row_each(pjm):
    job = submit(pjm, FOR_EVER, "1-5", "-N", "bulk.sh")
    parts = [f"1[{number}]" for number in range(1, 6)]
    until(lambda: set(states(pjm, "-E").values()) == {"RUN"})
    assert list(states(pjm)) == [job]
    assert list(states(pjm, "-E")) == [job, *parts]
    assert list(states(pjm, "-E", "--filter", f"jid={job}")) == [job, *parts]
    assert list(states(pjm, "-E", "--filter", "jnam=bulk.sh,jid=2")) == []
    seen = rows(pjm, "-E")
    assert {row["MD"] for row in seen.values()} == {"BU"}
    assert [seen[job][name] for name in ("EC", "PC", "SN")] == ["-", "-", "-"]
    assert [seen["1[3]"][name] for name in ("EC", "PC", "SN")] == ["0", "0", "0"]


def test_sub_jobs_are_asked_for_alone_by_their_ids_or_a_range_of_them(pjm):
    submit(pjm, FOR_EVER)
    plain = pjm.submit(FOR_EVER)
    assert list(states(pjm, "1[1]", "1[3]")) == ["1[1]", "1[3]"]
    assert list(states(pjm, "-E", "1[1-2]", "1[7]", plain)) == ["1[1]", "1[2]", plain]
    code, _, err = pjm.run("pjstat", "--filter", "jid=1[1]")
    assert (code, err) == (
        1,
        "[ERR.] PJM 0204 pjstat Invalid option argument: --filter jid=1[1].\n",
    )


def test_each_sub_job_knows_its_number_and_has_files_of_its_own(pjm):
    text = 'echo "$PJM_BULKNUM $PJM_JOBID $PJM_SUBJOBID"'
    job = submit(pjm, text, "0-1", "-N", "b.sh", "-s")
    ended(pjm, job)
    names = ["err", "out", "stats"]
    parts = {f"b.sh.1[{number}].{name}" for number in (0, 1) for name in names}
    assert {path.name for path in pjm.work.glob("b.sh.*")} == parts
    assert (pjm.work / "b.sh.1[1].out").read_text() == "1 1 1[1]\n"


def test_files_are_named_by_the_marks_for_sub_jobs(pjm):
    job = submit(pjm, "echo out", "2-3", "-o", "%j-%b.o", "-e", "%J.e")
    ended(pjm, job)
    assert {path.name for path in pjm.work.glob("*.[oe]")} == {
        *("1-2.o", "1-3.o", "1[2].e", "1[3].e"),
    }


def test_sub_jobs_that_have_ended_stay_in_the_queue_until_the_last_has(pjm):
    text = f'[ "$PJM_BULKNUM" = 0 ] && exit 3; {waiting_for(pjm, "go")}'
    job = submit(pjm, text, "0-1", "-o", "/dev/null", "-e", "/dev/null")
    until(lambda: states(pjm, "-E").get("1[0]") == "EXT")
    seen = rows(pjm, "-E")
    assert [seen["1[0]"][name] for name in ("EC", "PC", "SN")] == ["3", "0", "0"]
    assert (seen[job]["ST"], seen["1[1]"]["ST"]) == ("RUN", "RUN")
    assert rows(pjm, "-H", "-E") == {}
    pjm.mark("go").touch()
    history = ended(pjm, job)
    assert {name: row["ST"] for name, row in history.items()} == dict.fromkeys(
        (job, "1[0]", "1[1]"), "EXT"
    )
    assert (history[job]["EC"], history["1[0]"]["EC"]) == ("-", "3")
    assert list(rows(pjm, "-H")) == [job]
    assert rows(pjm, "-E") == {}
    assert pjm.ok("pjwait", job) == "1 - - -\n"


def test_sub_jobs_wait_for_nodes_in_the_order_of_their_numbers(pjm):
    text = f'echo "$PJM_BULKNUM" >> {pjm.mark("order")}; {waiting_for(pjm, "go")}'
    job = submit(pjm, text, "0-2", "-L", "node=190")
    until(lambda: list(states(pjm, "-E").values()).count("RUN") == 3)  # the whole and two
    seen = states(pjm, "-E")
    assert [seen[f"1[{number}]"] for number in range(3)] == ["RUN", "RUN", "QUE"]
    pjm.mark("go").touch()
    ended(pjm, job)
    assert sorted(pjm.mark("order").read_text().split()) == ["0", "1", "2"]


def test_the_whole_waits_until_anything_of_it_has_begun(pjm):
    pjm.install(wait=600.0)
    job = submit(pjm, "true")
    until(lambda: states(pjm) == {job: "QUE"})
    assert set(states(pjm, "-E").values()) == {"QUE"}


def test_a_sub_job_is_deleted_alone_whether_it_waits_or_runs(pjm):
    job = submit(pjm, waiting_for(pjm, "go"), "0-2", "-L", "node=190")
    until(lambda: states(pjm, "-E")["1[1]"] == "RUN")
    said = pjm.ok("pjdel", "1[0]", "1[2]")
    assert said == "".join(
        f"[INFO] PJM 0100 pjdel Accepted job {each}.\n" for each in ("1[0]", "1[2]")
    )
    until(lambda: states(pjm, "-E")["1[0]"] == "CCL")
    seen = rows(pjm, "-E")
    assert seen["1[2]"]["PC"] == seen["1[0]"]["PC"] == "1"
    assert (seen[job]["ST"], seen["1[1]"]["ST"]) == ("RUN", "RUN")
    code, _, err = pjm.run("pjdel", "1[0]")
    assert (code, err) == (
        *(1, "[ERR.] PJM 0113 pjdel Job 1[0] is not in the state that pjdel can be accepted.\n"),
    )
    assert pjm.run("pjdel", "1[9]")[2] == "[ERR.] PJM 0112 pjdel Job 1[9] does not exist.\n"
    pjm.mark("go").touch()
    assert {name: row["ST"] for name, row in ended(pjm, job).items()} == {
        job: "EXT",
        "1[0]": "CCL",
        "1[1]": "EXT",
        "1[2]": "CCL",
    }


def test_a_range_of_sub_jobs_is_deleted_in_one_word(pjm):
    submit(pjm, FOR_EVER)
    until(lambda: set(states(pjm, "-E").values()) == {"RUN"})
    assert pjm.ok("pjdel", "1[0-2]") == "[INFO] PJM 0100 pjdel Accepted job 1[0-2].\n"
    until(lambda: list(states(pjm, "-E").values()).count("CCL") == 3)


def test_a_bulk_job_is_deleted_with_all_its_sub_jobs(pjm):
    job = submit(pjm, FOR_EVER, "0-2", "-L", "node=190")
    until(lambda: states(pjm, "-E")["1[1]"] == "RUN")
    assert pjm.ok("pjdel", job) == "[INFO] PJM 0100 pjdel Accepted job 1.\n"
    history = ended(pjm, job)
    assert {row["ST"] for row in history.values()} == {"CCL"}
    assert {row["PC"] for name, row in history.items() if name != job} == {"1"}


def test_a_daemon_that_is_killed_neither_forgets_nor_repeats_a_sub_job(pjm):
    text = f'echo "$PJM_BULKNUM" >> {pjm.mark("runs")}; {waiting_for(pjm, "go")}'
    job = submit(pjm, text, "0-4", "-L", "node=190")
    until(lambda: list(states(pjm, "-E").values()).count("RUN") == 3)
    pjm.kill_daemon()
    pjm.mark("go").touch()
    pjm.submit("true")
    ended(pjm, job)
    assert sorted(pjm.mark("runs").read_text().split()) == list("01234")


def test_a_site_may_not_let_its_users_submit_bulk_jobs(tmp_path):
    pjm = Pjm(tmp_path, bulk=False)
    code, out, err = pjm.run("pjsub", "--bulk", "--sparam", "0-9", pjm.script("true"))
    said = "[ERR.] PJM 0070 pjsub No execute permission: pjsub-bulk.\n"
    assert (code, out, err) == (1, "", said)


@pytest.mark.parametrize("numbers", ["5-1", "3-3", "0-1000000", "0", "a-b", "0-9:2", ""])
def test_numbers_of_sub_jobs_that_cannot_be_are_refused(pjm, numbers):
    code, _, err = pjm.run("pjsub", "--bulk", f"--sparam={numbers}", pjm.script("true"))
    assert (code, "PJM 0004 pjsub Invalid option argument: --sparam" in err) == (1, True)
