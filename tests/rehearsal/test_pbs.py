"""The rehearsal PBS: real jobs and their ends, hostile words, a site's table, and each fault."""

import os
import re
import signal
import subprocess
import time

import pytest

from hpc_rehearsal.pbs.install import install, stop

from .rig import ME, PATIENCE, Pbs, until

HOSTILE = "a b'c\"d$(touch pwned)`touch pwned`;&|<>\\ *é\n"


# What a job finds and gives back


def test_a_job_starts_at_home_and_inherits_nothing_of_the_submitter(pbs):
    job = pbs.submit('pwd; echo "$PBS_O_WORKDIR|$PBS_JOBID|$PBS_QUEUE|$SECRET"', SECRET="leaked")
    pbs.ended(job)
    assert (pbs.work / "job.sh.o1").read_text().splitlines() == [
        str(pbs.home),
        f"{pbs.work}|{job}|workq|",
    ]


def test_the_node_file_has_a_line_for_each_mpi_process(pbs):
    job = pbs.submit(
        'cat $PBS_NODEFILE; echo "$NCPUS $OMP_NUM_THREADS"; [ -d "$TMPDIR" ] && echo scratch',
        *("-l", "select=2:ncpus=8:mpiprocs=3:ompthreads=2"),
    )
    pbs.ended(job)
    lines = (pbs.work / "job.sh.o1").read_text().splitlines()
    assert lines == [os.uname().nodename] * 6 + ["2 2", "scratch"]


def test_directives_count_and_the_command_line_wins(pbs):
    job = pbs.submit(
        '#PBS -N "inside"\n#PBS -l walltime=1:00,select=1:ncpus=2\n#PBS -j oe\n\n# a remark\n'
        "#PBS -q regular-c\necho out; echo err >&2\n#PBS -N too_late",
        *("-N", "outside", "-l", "walltime=2:00"),
    )
    seen = pbs.ended(job)
    assert (seen["Job_Name"], seen["queue"], seen["Join_Path"]) == ("outside", "regular-c", "oe")
    assert seen["Resource_List"]["walltime"] == "00:02:00"
    assert seen["Resource_List"]["select"] == "1:ncpus=2"
    assert (pbs.work / "outside.o1").read_text() == "out\nerr\n"
    assert not (pbs.work / "outside.e1").exists()


def test_kept_output_is_written_to_its_place_while_the_job_runs(pbs):
    wait = f"until [ -e {pbs.mark('go')} ]; do sleep 0.05; done"
    job = pbs.submit(f"echo now; {wait}", "-k", "oed", "-o", "here.txt")
    until(lambda: pbs.mark("here.txt").exists() and pbs.mark("here.txt").read_text() == "now\n")
    assert pbs.job(job)["job_state"] == "R"
    pbs.mark("go").touch()
    assert pbs.ended(job)["Stageout_status"] == 1


def test_output_that_cannot_be_delivered_is_lost_and_the_job_looks_well(pbs):
    seen = pbs.ended(pbs.submit("echo lost", "-o", "no/such/folder/out"))
    assert (seen["Exit_status"], seen["Stageout_status"]) == (0, 0)
    assert not list(pbs.work.glob("job.sh.*"))


@pytest.mark.parametrize(
    ("text", "options", "status", "substate"),
    [
        ("true", (), 0, 92),
        ("exit 255", (), 255, 93),
        ("kill -9 $PPID", (), 256 + 9, 93),
        ("sleep 60", ("-l", "walltime=1"), -29, 93),
        ("trap 'exit 77' TERM; sleep 60", ("-l", "walltime=1"), -29, 93),
        ("no_such_program_anywhere", (), 127, 93),
    ],
)
def test_an_end_has_its_status(pbs, text, options, status, substate):
    seen = pbs.ended(pbs.submit(text, *options))
    assert (seen["Exit_status"], seen["substate"]) == (status, substate)


def test_a_job_whose_supervisor_is_killed_ends_like_one_of_a_lost_node(pbs):
    job = pbs.submit("sleep 60")
    pbs.reaches(job, "R")
    script, supervisor = pbs.process_of_a_job()
    os.kill(supervisor, signal.SIGKILL)
    os.kill(script, signal.SIGKILL)
    assert pbs.ended(job)["Exit_status"] == -4


def test_after_some_seconds_a_running_job_shows_what_it_uses(pbs):
    def submitted():
        """On a busy machine its first seconds may be over before anybody has looked."""
        job = pbs.submit("sleep 600")
        seen = pbs.reaches(job, "R")
        return (job, seen) if seen["substate"] == 41 else None

    job, fresh = until(submitted, "a job that is seen in its first seconds")
    assert not fresh.keys() & {"session_id", "resources_used", "jobdir"}
    seen = until(lambda: seen if (seen := pbs.job(job))["substate"] == 42 else None)
    assert seen.keys() >= {"session_id", "resources_used", "jobdir"}
    os.kill(seen["session_id"], signal.SIGKILL)
    assert pbs.ended(job)["session_id"] == seen["session_id"]


# Queues and slots


def test_what_does_not_fit_waits_with_its_reason_and_then_runs(pbs):
    wait = f"until [ -e {pbs.mark('go')} ]; do sleep 0.05; done"
    first = pbs.submit(wait, "-l", "ncpus=64")
    pbs.reaches(first, "R")
    second = pbs.submit("true", "-l", "select=1:ncpus=4")
    until(lambda: "comment" in pbs.job(second))
    reason = "Not Running: Insufficient amount of resource: ncpus (R: 4 A: 0 T: 64)"
    assert pbs.job(second)["comment"] == reason
    pbs.mark("go").touch()
    assert pbs.ended(second)["Exit_status"] == 0


def test_a_routing_queue_hands_the_job_on(pbs):
    job = pbs.submit("true", "-q", "inter-c")
    assert pbs.ended(job)["queue"] == "debug-c"


def test_resources_of_the_site_are_taken_when_it_has_them(pbs):
    assert pbs.run("qsub", "-l", "storage=gdata/x+scratch/x", "-", given=b"true")[0] == 187
    pbs.install(resources=["storage"])
    job = pbs.ok("qsub", "-l", "storage=gdata/x+scratch/x", given=b"true").strip()
    assert pbs.ended(job)["Resource_List"]["storage"] == "gdata/x+scratch/x"


def test_many_submitted_at_once_all_run_once(pbs):
    pbs.script('echo x >> "$PBS_O_WORKDIR/ran.$PBS_JOBID"')
    together = [
        subprocess.Popen(["qsub", "job.sh"], cwd=pbs.work, env=pbs.environment(), stdout=-1)
        for _ in range(12)
    ]
    ids = {one.communicate()[0].decode().strip() for one in together}
    assert ids == {f"{n}.opbs" for n in range(1, 13)}
    for job in ids:
        pbs.ended(job)
    assert [file.read_text() for file in pbs.work.glob("ran.*")] == ["x\n"] * 12


def test_a_listing_can_be_of_a_queue_or_of_a_user(pbs):
    pbs.submit("true", "-h", "-q", "workq")
    pbs.submit("true", "-h", "-q", "regular-c")
    assert re.findall(r"^\d+\.opbs", pbs.ok("qstat", "regular-c"), re.M) == ["2.opbs"]
    assert re.findall(r"^\d+\.opbs", pbs.ok("qstat", "-u", ME), re.M) == ["1.opbs", "2.opbs"]
    assert pbs.ok("qstat", "-u", "nobody") == ""
    assert pbs.ok("qselect", "-q", "workq", "-s", "H") == "1.opbs\n"


def test_a_wide_record_is_not_cut(pbs):
    job = pbs.submit("true", "-h", "-A", "x" * 200)
    assert f"    Account_Name = {'x' * 200}\n" in pbs.ok("qstat", "-f", "-w", job)
    assert f"{'x' * 200}" not in pbs.ok("qstat", "-f", job)


# Cancelling


def test_a_deleted_job_stays_running_for_a_moment_and_takes_its_tree_with_it(pbs):
    pbs.install(linger=600.0)
    job = pbs.submit(f"sleep 600 & echo $! > {pbs.mark('pid')}; wait")
    pid = int(until(lambda: pbs.mark("pid").exists() and pbs.mark("pid").read_text().strip()))
    pbs.ok("qdel", job)
    moment = pbs.job(job)
    assert (moment["job_state"], "Exit_status" in moment) == ("R", False)
    assert moment["comment"].endswith(f"and terminated by {ME}@opbs")
    pbs.change(linger=0.1)
    seen = pbs.ended(job)
    assert (seen["Exit_status"], seen["substate"]) == (271, 91)
    assert not os.path.exists(f"/proc/{pid}")


def test_a_job_deleted_while_it_waits_has_no_status(pbs):
    job = pbs.submit("true", "-h")
    pbs.ok("qdel", job)
    seen = pbs.ended(job)
    assert seen["substate"] == 91
    assert not seen.keys() & {"Exit_status", "stime", "exec_host"}


def test_a_mom_that_is_killed_loses_no_job_and_starts_none_twice(pbs):
    wait = f"echo x >> {pbs.mark('ran')}; until [ -e {pbs.mark('go')} ]; do sleep 0.05; done"
    job = pbs.submit(wait)
    until(lambda: pbs.mark("ran").exists())
    pbs.kill_daemon()
    other = pbs.submit("true")
    pbs.ended(other)
    pbs.mark("go").touch()
    assert pbs.ended(job)["Exit_status"] == 0
    assert pbs.mark("ran").read_text() == "x\n"


# Hostile words


def test_arguments_of_a_command_arrive_as_they_are(pbs):
    text = b"\xff" + HOSTILE.encode()
    job = pbs.ok("qsub", "-N", "exe", "--", "/bin/printf", "%s|", text, "", "-n").strip()
    pbs.ended(job)
    assert (pbs.work / "exe.o1").read_bytes() == text + b"||-n|"
    assert pbs.run("qstat", "-xf", job)[0] == 0
    assert not list(pbs.work.parent.rglob("pwned"))


def test_a_script_and_output_of_a_hostile_name_work(pbs):
    name = HOSTILE.replace("\n", "").replace("/", "")
    job = pbs.ok("qsub", "-N", "ok", "-o", name + ".out", pbs.script("echo fine", name)).strip()
    pbs.ended(job)
    assert (pbs.work / f"{name}.out").read_text() == "fine\n"
    assert not list(pbs.work.parent.rglob("pwned"))


def test_everything_may_live_in_a_folder_of_a_hostile_name(tmp_path):
    pbs = Pbs(tmp_path / HOSTILE.replace("\n", " ").replace("/", ""))
    try:
        job = pbs.ok("qsub", "-", given=b"echo $PBS_JOBID").strip()
        assert pbs.ended(job)["Exit_status"] == 0
        assert (pbs.work / "STDIN.o1").read_text() == f"{job}\n"
        assert not list(tmp_path.rglob("pwned"))
    finally:
        pbs.stop()


def test_bytes_that_are_no_text_go_through_the_json_as_they_are(pbs):
    job = pbs.ok("qsub", "-v", "A", "-h", "--", "/bin/true", A=b"\xff\xfe").strip()
    raw = subprocess.run(
        ["qstat", "-f", "-F", "json", job], env=pbs.environment(), capture_output=True
    ).stdout
    assert b'"A":\t"\xff\xfe",\n' in raw


@pytest.mark.parametrize(
    "word", ["", "-1", "1;2", "../1", "1.opbs.x", "²", "9" * 40, "1[]", "\udcff"]
)
def test_no_id_breaks_a_command(pbs, word):
    for command in (["qstat", "-f", "-F", "json", word], ["qdel", word], ["qhold", word]):
        done = subprocess.run(
            [os.fsencode(part) for part in command], env=pbs.environment(), capture_output=True
        )
        assert b"Traceback" not in done.stderr
        assert done.returncode in (0, 1, 2, 153, 170)


# Faults


def test_a_hung_server_answers_when_it_is_back(pbs):
    pbs.fault("hung")
    with pytest.raises(subprocess.TimeoutExpired):
        pbs.run("qstat", timeout=0.5)
    waiting = subprocess.Popen(
        ["qsub", "-h", "--", "/bin/true"], cwd=pbs.work, env=pbs.environment(), stdout=-1
    )
    assert waiting.poll() is None
    pbs.fault("hung", on=False)
    assert waiting.communicate(timeout=PATIENCE)[0] == b"1.opbs\n"


def test_a_submission_whose_answer_is_lost_has_made_a_job(pbs):
    pbs.fault("dies-after-submit")
    code, out, err = pbs.run("qsub", "-N", "tagged", "--", "/bin/true")
    assert (code, out, err) == (-signal.SIGKILL, "", "")
    assert pbs.ended("1.opbs")["Exit_status"] == 0
    assert pbs.ok("qselect", "-x", "-u", ME, "-N", "tagged") == "1.opbs\n"


def test_a_submission_that_hangs_has_made_a_job(pbs):
    pbs.fault("hangs-after-submit")
    with pbs.hanging("qsub", "--", "/bin/true"):
        assert pbs.ended("1.opbs")["Exit_status"] == 0


def test_a_late_job_shows_and_runs_only_later(pbs):
    pbs.fault("late")
    job = pbs.submit(f"touch {pbs.mark('ran')}")
    assert pbs.run("qstat", "-x", job)[0] == 153
    assert pbs.ok("qselect", "-x") == pbs.ok("qstat", "-x") == ""
    other = pbs.state / "faults" / "late"
    assert not pbs.mark("ran").exists()
    other.unlink()
    assert pbs.ended(job)["Exit_status"] == 0


def test_over_the_limit_is_refused_and_nothing_is_made(pbs):
    pbs.fault("over-limit")
    code, out, err = pbs.run("qsub", "--", "/bin/true")
    assert (code, out) == (38, "")
    assert err == "qsub: would exceed queue generic's per-user limit\n"
    assert pbs.ok("qselect", "-x") == ""


def test_without_history_an_ended_job_is_unknown(pbs):
    job = pbs.submit("true")
    pbs.ended(job)
    pbs.fault("no-history")
    assert pbs.run("qstat", "-f", job)[::2] == (153, f"qstat: Unknown Job Id {job}\n")
    assert pbs.run("qdel", job)[0] == 153
    # Read in its source: whoever asks for a history is told of no job at all, with status 0.
    none = "PBS is not configured to maintain job history"
    assert pbs.run("qstat", "-x", "-f", job)[::2] == (0, f"qstat: {none} {job}\n")
    assert pbs.run("qselect", "-x") == (0, "", f"qselect: {none}\n")
    pbs.install(history=False)
    pbs.fault("no-history", on=False)
    assert pbs.run("qstat", "-f", job)[0] == 153


def test_an_ended_job_stays_exiting_while_its_output_is_stuck(pbs):
    pbs.fault("exiting")
    job = pbs.submit("echo out; exit 3")
    seen = pbs.reaches(job, "E")
    assert (seen["substate"], seen["Exit_status"]) == (51, 3)
    assert not (pbs.work / "job.sh.o1").exists()
    pbs.fault("exiting", on=False)
    assert pbs.ended(job)["substate"] == 93
    assert (pbs.work / "job.sh.o1").read_text() == "out\n"


# A site's own table


@pytest.fixture
def site(pbs):
    pbs.install(qstat="table")
    return pbs


def test_a_site_says_that_there_is_nothing(site):
    banner, empty, line = site.ok("qstat").splitlines()
    assert re.fullmatch(r".* scheduled stop time: \S+ \S+ \(Remain: \d+days [\d:]+\)", banner)
    assert (empty, line) == ("", "No unfinished job found. ")
    assert site.ok("qstat", "-H").splitlines()[2] == "No matching job found. "


def test_a_site_lists_jobs_under_the_recorded_heads(site):
    job = site.submit("sleep 60", "-q", "regular-c", "-W", "group_list=gz00", "-N", "h5gds_job_x")
    row = r"1                 h5gds_job_ RUNNING   gz00       regular-c       "
    row += r"\d\d/\d\d \d\d:\d\d:\d\d   00:00:\d\d        0.0    1   -"
    until(lambda: "RUNNING" in site.ok("qstat"))
    _, _, heads, line = site.ok("qstat").splitlines()
    assert heads == (
        "JOB_ID            JOB_NAME   STATUS    PROJECT    QUEUE           "
        "START_DATE       ELAPSE        TOKEN NODE MIG"
    )
    assert re.fullmatch(row, line)
    assert "h5gds_job_x " in site.ok("qstat", "-ll")
    assert f"Job Id: {job}\n" in site.ok("qstat", "-f", job)


def test_a_site_shows_a_finished_job_only_as_history(site):
    job = site.submit("exit 3")
    until(lambda: "FINISH" in site.ok("qstat", "-H"))
    assert "No unfinished job found." in site.ok("qstat")
    assert site.run("qstat", "-f", job)[0] != 0
    for options in (["-H", "-f"], ["-fH"]):
        assert "    Exit_status = 3\n" in site.ok("qstat", *options, job)


@pytest.mark.parametrize("options", [["-u", "x"], ["-x"], ["-xf", "1"], ["-Q"], ["-F", "json"]])
def test_a_site_refuses_what_its_table_does_not_do(site, options):
    code, out, err = site.run("qstat", *options)
    assert (code, out) == (2, "")
    assert "invalid option" in err


# Installing


def test_an_option_that_does_not_exist_is_refused(tmp_path):
    with pytest.raises(TypeError, match="colour"):
        install(tmp_path / "bin", tmp_path / "state", colour="red")


def test_stop_ends_everything_whatever_is_wrong(tmp_path):
    pbs = Pbs(tmp_path)
    running = pbs.submit("trap '' TERM; sleep 600", "-q", "regular-c")
    pbs.reaches(running, "R")
    pbs.submit("true", "-a", time.strftime("%Y%m%d%H%M", time.localtime(time.time() + 7200)))
    pbs.submit("true", "-h")
    pbs.fault("exiting")
    stop(pbs.state)
    states = re.findall(r" (\w) workq| (\w) regular-c", pbs.ok("qstat", "-x"))
    assert {one or other for one, other in states} == {"F"}
    until(lambda: not pbs.has_daemon())
