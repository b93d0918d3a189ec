"""The rehearsal PBS's arrays: the recorded one replayed, and what becomes of wholes and subjobs."""

import json

import pytest

from hpc_rehearsal.common import indices

from .rig import Pbs, recorded, until
from .test_pbs_recorded import counted_from, replay

STEPS = {step["step"]: step for step in recorded("array")}


def shown(pbs, *words):
    """The jobs in an answer of qstat, by their ids."""
    return json.loads(pbs.run("qstat", "-f", "-F", "json", *words)[1]).get("Jobs", {})


def whole(pbs, job):
    return shown(pbs, "-x", job)[job]


def waiting_for(pbs, name):
    return f"until [ -e {pbs.mark(name)} ]; do sleep 0.05; done"


def test_an_array_and_its_subjobs_are_shown_as_recorded(pbs):
    """The scripts are not in the recording: these end as those did, when they are told to."""
    text = '#PBS -N arr\necho "idx=$PBS_ARRAY_INDEX id=$PBS_JOBID arr=$PBS_ARRAY_ID"\n'
    text += f"case $PBS_ARRAY_INDEX in 4) {waiting_for(pbs, 'last')} ;;\n"
    text += f"3) {waiting_for(pbs, 'one')}; kill -9 $$ ;; 2) {waiting_for(pbs, 'two')}; exit 4 ;;\n"
    pbs.script(f"{text}*) {waiting_for(pbs, 'others')} ;; esac", "arr.sh")
    counted_from(pbs, 65)

    def replayed(*names):
        for name in names:
            replay(pbs, STEPS[name], "array")

    replayed("qsub", "running_qstat_parent", "running_qstat_t", "running_qstat_f_parent")
    replayed("running_qstat_f_json_parent", "running_qstat_f_json_subjob1")
    replayed("running_qstat_f_index_out_of_range", "running_qstat_f_number_only")
    pbs.mark("one").touch()  # the last one gets its node, as in the recording
    until(lambda: "Queued:0" in whole(pbs, "65[].opbs")["array_state_count"])
    pbs.mark("two").touch()
    until(lambda: whole(pbs, "65[2].opbs")["job_state"] == "X")
    pbs.mark("others").touch()  # the whole has the status of the last that ended: here 0
    replayed("running_qstat_xt_f_json_parent_running")
    pbs.mark("last").touch()
    replayed("finished_qstat_x_parent", "finished_qstat_xt", "finished_qstat_xf_parent")
    replayed("finished_qstat_xt_f_json", "finished_qstat_xf_subjob2_exit4", "finished_qstat_t_nox")
    for name in ("arr.o65.0", "arr.o65.4"):
        index = name[-1]
        assert (pbs.work / name).read_text() == f"idx={index} id=65[{index}].opbs arr=65[].opbs\n"
    assert {path.name for path in pbs.work.glob("arr.[oe]*")} == {
        f"arr.{letter}65.{index}" for letter in "oe" for index in range(5)
    }


def test_subjobs_that_are_deleted_are_shown_as_recorded(pbs):
    pbs.stop()
    pbs.install(linger=600.0)  # a subjob that was deleted runs on
    pbs.script(f"#PBS -N arr\n{waiting_for(pbs, 'never')}", "arr.sh")
    counted_from(pbs, 67)
    for name in ("qsub_step_throttle", "step_qstat_f_json"):
        replay(pbs, STEPS[name], "array")
    pbs.ok("qdel", "67[4].opbs")
    for index in (6, 8):  # the recording names both in one range, which is not rehearsed
        pbs.ok("qdel", f"67[{index}].opbs")
    for name in ("qdel_array", "qdel_after_xt_json"):
        replay(pbs, STEPS[name], "array")
    pbs.change(linger=0.1)


@pytest.mark.parametrize("name", ["qsub_bad_range", "qsub_single_range", "qsub_huge_range"])
def test_an_array_that_cannot_be_is_refused_as_recorded(pbs, name):
    pbs.script("true", "arr.sh")
    replay(pbs, STEPS[name], "array")


def test_an_array_that_may_not_be_run_again_is_refused(pbs):
    """Read in the source of 23.06."""
    code, out, err = pbs.run("qsub", "-r", "n", "-J", "0-4", pbs.script("true"))
    assert (code, out) == (2, "")
    assert err.startswith("qsub:  cannot submit non-rerunable Array Job\nusage: qsub")


def test_no_more_subjobs_run_at_once_than_are_allowed(pbs):
    job = pbs.submit(waiting_for(pbs, "go"), "-J", "0-4%2")
    until(lambda: "Running:2" in whole(pbs, job)["array_state_count"])
    assert whole(pbs, job)["array_indices_remaining"] == "2-4"
    pbs.mark("go").touch()
    seen = pbs.ended(job)
    assert (seen["Exit_status"], seen["substate"]) == (0, 92)


def test_subjobs_wait_for_room_in_the_order_of_their_indices(pbs):
    text = f"echo $PBS_ARRAY_INDEX >> {pbs.mark('order')}; {waiting_for(pbs, 'go')}"
    job = pbs.submit(text, "-J", "0-5", "-l", "select=1:ncpus=16")
    until(lambda: pbs.mark("order").exists() and len(pbs.mark("order").read_text().split()) == 4)
    assert whole(pbs, job)["array_indices_remaining"] == "4-5"
    pbs.mark("go").touch()
    pbs.ended(job)
    assert sorted(pbs.mark("order").read_text().split()[:4]) == ["0", "1", "2", "3"]


def test_listings_and_qselect_show_an_array_as_one_job(pbs):
    job = pbs.submit(waiting_for(pbs, "go"), "-J", "0-2", "-N", "named")
    until(lambda: "Running:3" in whole(pbs, job)["array_state_count"])
    assert pbs.ok("qselect", "-N", "named").split() == [job]
    assert list(shown(pbs)) == [job]
    rows = pbs.ok("qstat", "-w", "-u", "root,hpcuser,nobody") + pbs.ok("qstat")
    assert "1[0]" not in rows
    assert list(shown(pbs, "-t")) == [job, *(f"1[{n}].opbs" for n in range(3))]
    pbs.mark("go").touch()


def test_of_several_ids_every_kind_is_told_in_one_answer(pbs):
    last = f"[ $PBS_ARRAY_INDEX != 1 ] || {waiting_for(pbs, 'go')}"
    array = pbs.submit(f"{last}\nexit $PBS_ARRAY_INDEX", "-J", "0-2")
    plain = pbs.submit("true")
    for index in (0, 2):
        until(lambda index=index: whole(pbs, f"1[{index}].opbs")["job_state"] == "X")
    pbs.mark("go").touch()
    pbs.ended(array)
    pbs.ended(plain)
    found = shown(pbs, "-E", "-x", array, "1[2].opbs", plain, "1[7].opbs")
    assert list(found) == [array, "1[2].opbs", plain]
    assert found["1[2].opbs"]["Exit_status"] == 2
    assert found[array]["Exit_status"] == 1  # of the last that ended


def test_a_subjob_that_is_deleted_while_it_waits_has_no_record_of_its_own(pbs):
    job = pbs.submit(waiting_for(pbs, "go"), "-J", "0-2", "-l", "select=1:ncpus=64")
    until(lambda: "Running:1" in whole(pbs, job)["array_state_count"])
    pbs.ok("qdel", "1[1].opbs")
    seen = whole(pbs, "1[1].opbs")
    assert (seen["job_state"], seen["comment"]) == ("X", "Subjob finished")
    assert not seen.keys() & {"Exit_status", "array_index", "array_indices_remaining"}
    code, _, err = pbs.run("qdel", "1[1].opbs")
    assert (code, err) == (168, "qdel: Request invalid for state of job 1[1].opbs\n")
    pbs.mark("go").touch()
    pbs.ended(job)
    assert whole(pbs, "1[1].opbs")["job_state"] == "F"
    assert whole(pbs, "1[1].opbs")["Exit_status"] == 0  # of the whole: nothing of this one


def test_a_running_subjob_is_deleted_alone(pbs):
    job = pbs.submit(waiting_for(pbs, "go"), "-J", "0-1")
    until(lambda: "Running:2" in whole(pbs, job)["array_state_count"])
    pbs.ok("qdel", "1[0].opbs")
    until(lambda: whole(pbs, "1[0].opbs")["job_state"] == "X")
    assert whole(pbs, "1[0].opbs")["substate"] == 91
    assert whole(pbs, "1[1].opbs")["job_state"] == "R"
    pbs.mark("go").touch()
    assert pbs.ended(job)["substate"] == 91


def test_an_array_that_is_deleted_before_it_begins_ends_with_all_its_subjobs(pbs):
    job = pbs.submit("true", "-J", "0-2", "-q", "stopped-c")
    assert whole(pbs, job)["job_state"] == "Q"
    pbs.ok("qdel", job)
    assert pbs.ended(job)["array_indices_remaining"] == "-"
    assert whole(pbs, "1[2].opbs")["job_state"] == "F"


def test_all_subjobs_deleted_one_by_one_are_the_end_of_the_whole(pbs):
    job = pbs.submit("true", "-J", "0-1", "-q", "stopped-c")
    pbs.ok("qdel", "1[0].opbs", "1[1].opbs")
    assert "Exit_status" not in pbs.ended(job)


def test_a_subjob_that_is_run_again_waits_again_under_its_id(tmp_path):
    pbs = Pbs(tmp_path, operator=True)
    try:
        text = f"echo $PBS_JOBID >> {pbs.mark('runs')}; {waiting_for(pbs, 'go')}"
        job = pbs.submit(text, "-J", "0-1")
        until(lambda: pbs.mark("runs").exists() and len(pbs.mark("runs").read_text().split()) == 2)
        pbs.ok("qrerun", "1[0].opbs")
        until(lambda: len(pbs.mark("runs").read_text().split()) == 3)
        assert whole(pbs, "1[0].opbs")["run_count"] == 2
        pbs.mark("go").touch()
        assert pbs.ended(job)["Exit_status"] == 0
        assert pbs.mark("runs").read_text().split().count("1[0].opbs") == 2
    finally:
        pbs.stop()


def test_a_daemon_that_is_killed_neither_forgets_nor_repeats_a_subjob(pbs):
    text = f"echo $PBS_ARRAY_INDEX >> {pbs.mark('runs')}; {waiting_for(pbs, 'go')}"
    job = pbs.submit(text, "-J", "0-5", "-l", "select=1:ncpus=16")
    until(lambda: pbs.mark("runs").exists() and len(pbs.mark("runs").read_text().split()) == 4)
    pbs.kill_daemon()
    pbs.mark("go").touch()
    pbs.submit("true")
    assert pbs.ended(job)["array_indices_remaining"] == "-"
    assert sorted(pbs.mark("runs").read_text().split()) == list("012345")


def test_a_server_without_a_history_knows_an_ended_subjob_only_by_the_whole(pbs):
    job = pbs.submit(f"[ $PBS_ARRAY_INDEX = 0 ] || {waiting_for(pbs, 'go')}", "-J", "0-1")
    until(lambda: whole(pbs, "1[0].opbs")["job_state"] == "X")
    pbs.fault("no-history")
    seen = shown(pbs, "1[0].opbs")["1[0].opbs"]
    assert (seen["job_state"], "array_index" in seen) == ("X", False)
    pbs.mark("go").touch()
    until(lambda: pbs.run("qstat", job)[0] == 153)


def test_indices_leave_and_return_to_their_runs():
    runs = [[0, 8]]
    for index in (0, 4, 6):
        runs = indices.without(runs, index, 2)
    assert (runs, indices.text(runs, 2)) == ([[2, 2], [8, 8]], "2,8")
    runs = indices.with_one(indices.with_one(runs, 4, 2), 6, 2)
    assert (indices.text(runs, 2), indices.count(runs, 2)) == ("2-8:2", 4)
    assert not indices.holds(runs, 3, 2)
    assert indices.text([]) == "-"
