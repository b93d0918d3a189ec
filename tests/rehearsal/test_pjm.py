"""The rehearsal PJM: what listings and manuals show, real jobs and their ends, and each fault."""

import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpc_rehearsal.pjm import formats as words
from hpc_rehearsal.pjm.install import install

from .rig import ME, PATIENCE, Pjm, until

RECORDED = Path(__file__).parents[1] / "transcripts" / "pjm"
FOR_EVER = "sleep 600"


# As printed


def lines(name):
    text = (RECORDED / f"{name}.txt").read_text()
    return [line for line in text.split("\n") if not line.startswith("#") and line]


def test_a_listing_has_the_columns_of_fugaku_to_the_last_blank(pjm):
    """Only what differs from job to job is put in the place of what was there."""
    head, recorded = lines("fugaku_queue")[:2]
    pjm.install(acquire=600.0)
    pjm.submit("true", "-N", "job1.sh", "-L", "node=12,elapse=1:00")
    pjm.reaches("1", "RNA")
    ours, row = pjm.ok("pjstat", "-v").splitlines()
    assert ours == head
    row = row.replace("1      ", "6291500", 1).replace(ME.ljust(8), "a03010  ", 1)
    row = re.sub(r"\(\d\d/\d\d \d\d:\d\d\)", "(04/12 11:25)", row)
    row = re.sub(r"\d\d/\d\d \d\d:\d\d:\d\d", "04/12 11:25:50", row)
    assert row == recorded


def over_its_limit(pjm, text, *options, trap=""):
    """The id of a job that had begun when its limit of a second came.

    On a busy machine one may not have, and ends in another way.
    """

    def ended():
        pjm.mark("begun").unlink(missing_ok=True)
        text_ = f"{trap}touch {pjm.mark('begun')}; {text}"
        job = pjm.submit(text_, *options, "-L", "elapse=1")
        pjm.ended(job)
        return pjm.mark("begun").exists() and job

    return until(ended, "a job that begins within a second")


def test_the_history_shows_a_job_over_its_limit_as_fugaku_does(pjm):
    """There the blanks at the end of the lines are lost."""
    head, _, recorded = lines("fugaku_history")
    over_its_limit(pjm, "exec sleep 600", "-N", "lucj-qpy-bench")
    ours, *_, row = (line.rstrip() for line in pjm.ok("pjstat", "-H", "-v").splitlines())
    assert ours == head
    assert without_what_differs(row) == without_what_differs(recorded)


def without_what_differs(row):
    row = re.sub(r"^\d+ +", "", row)
    row = re.sub(r"EXT \S+ +\S+ +", "EXT ", row)
    row = re.sub(r"\d\d/\d\d \d\d:\d\d:\d\d", "DATE", row)
    return re.sub(r"\d{4}:\d\d:\d\d", "TIME", row)


def test_chosen_columns_are_those_of_a_real_listing(pjm):
    text = (RECORDED / "bsc_states.txt").read_text()
    recorded = next(line for line in text.split("\n") if line.startswith("JOB_ID     ST"))
    assert pjm.ok("pjstat", "-v", "--choose", "jid,st,ermsg") == f"{recorded}\n"


def test_the_default_columns_are_the_manuals(pjm):
    heads = "JOB_ID JOB_NAME MD ST USER START_DATE ELAPSE_LIM NODE_REQUIRE VNODE CORE V_MEM"
    assert pjm.ok("pjstat").split() == heads.split()


def test_sums_stand_before_the_table(pjm):
    pjm.install(nodes=1)
    for _ in range(2):
        pjm.submit(FOR_EVER)
    pjm.reaches("1", "RUN")
    assert pjm.ok("pjstat", "--with-summary").splitlines()[:3] == [
        "  ACCEPT QUEUED RUNING RUNOUT   HOLD  ERROR SUSPND REJECT   EXIT CANCEL  TOTAL",
        "       0      1      1      0      0      0      0      0      0      0      2",
        "s      0      1      1      0      0      0      0      0      0      0      2",
    ]


def test_what_the_commands_say(pjm):
    pjm.script(FOR_EVER)
    assert pjm.ok("pjsub", "job.sh") == "[INFO] PJM 0000 pjsub Job 1 submitted.\n"
    assert pjm.ok("pjsub", "-z", "jid", "job.sh") == "2\n"
    assert pjm.ok("pjdel", "1", "2").splitlines() == [
        "[INFO] PJM 0100 pjdel Accepted job 1.",
        "[INFO] PJM 0100 pjdel Accepted job 2.",
    ]
    assert pjm.run("pjdel", "7") == (1, "", "[ERR.] PJM 0112 pjdel Job 7 does not exist.\n")
    assert pjm.run("pjhold", "r1") == (1, "", "[ERR.] PJM 0311 pjhold Invalid jobid: r1.\n")
    assert pjm.run("pjstat", "--filter", "jid=1+r1") == (
        *(1, "", "[ERR.] PJM 0211 pjstat Invalid jobid: r1.\n"),
    )


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("-L elapse=5:00:00 -L rg=int", "0057 pjsub elapse=18000 is greater than the upper limit"),
        ("-L rscgrp=large,node=1", "0054 pjsub node=1 is less than the lower limit (385)."),
        ("-L rscgrp=nosuch", "0058 pjsub rscgrp=nosuch does not exist."),
        ("-L rscunit=fx", "0058 pjsub rscunit=fx does not exist."),
        ("-L rscgrp=off", "0059 pjsub rscgrp=off is disabled."),
        ("-g gz99", "0071 pjsub Group not authorized to submit a job: gz99 (group)."),
        ("-L rg=gated", "0079 pjsub Q09 Computing resources shortage occurred.[group]."),
        ("--step", "0070 pjsub No execute permission: pjsub-step."),
        ("--bulk --sparam 3-3", "0004 pjsub Invalid option argument: --sparam 3-3."),
        ("--nosuch", "0001 pjsub Unknown option or no option argument: --nosuch.\nTry `pjsub --he"),
        ("-L nosuch=1", "0003 pjsub Unknown option argument: -L nosuch=1.\nTry `pjsub --help` for"),
        ("-L elapse=soon", "0004 pjsub Invalid option argument: -L elapse=soon."),
        ("-L node-mem=1Zi", "0004 pjsub Invalid option argument: -L node-mem=1Zi."),
        ("-N -x", "0004 pjsub Invalid option argument: -N -x."),
        (
            "--at 200001010000",
            "0056 pjsub The specified execution time is earlier than the current",
        ),
    ],
)
def test_a_refusal_has_its_code(pjm, options, said):
    code, out, err = pjm.run("pjsub", *options.split(), pjm.script("true"))
    assert (code, out) == (1, "")
    assert err.startswith(f"[ERR.] PJM {said}")
    assert len(pjm.ok("pjstat").splitlines()) == 1


def test_a_resource_group_that_is_not_named_and_a_script_that_is_not_there(pjm):
    assert "PJM 0020 pjsub File open failed: gone.sh (2).\n" in pjm.run("pjsub", "gone.sh")[2]
    pjm.install(default_rscgrp="")
    said = "[ERR.] PJM 0069 pjsub rscgrp in -L option is not specified.\n"
    assert pjm.run("pjsub", pjm.script("true")) == (1, "", said)


# What a job finds and gives back


def test_a_job_starts_where_it_was_submitted_and_inherits_nothing(pjm):
    variables = "$PJM_JOBID|$PJM_JOBNAME|$PJM_NODE|$PJM_MPI_PROC|$PJM_O_HOME|$SECRET|$GIVEN|$1"
    text = '#PJM -N "inside"\n#PJM -L "node=2x3" --mpi proc=24\n#PJM -x "GIVEN=a b"\n\necho "{}"'
    pjm.script(text.format(variables) + '\npwd\nwc -l < "$PJM_O_NODEINF"; [ -d $PJM_LOCALTMP ]')
    pjm.ok("pjsub", "job.sh", "first word", SECRET="leaked")
    assert pjm.end("1") == ("EXT", "0", "0", "0")
    assert (pjm.work / "inside.1.out").read_text().splitlines() == [
        "1|inside|6|24|/home/hpcuser||a b|first word",
        str(pjm.work),
        "6",
    ]
    assert pjm.row("1", "-H")["NODE_REQUIRE"] == "6:2x3"


def test_the_whole_environment_comes_only_when_it_is_asked_for(pjm):
    job = pjm.submit('echo "$MINE|$LD_LIBRARY_PATH"', "-X", MINE="x", LD_LIBRARY_PATH="/nowhere")
    pjm.ended(job)
    assert (pjm.work / "job.sh.1.out").read_text() == "x|\n"


def test_directives_count_up_to_the_first_command_and_the_command_line_wins(pjm):
    pjm.submit(
        '#PJM -N inside\n#PJM -L "elapse=30:00,node=2"\n# a remark\n\n#PJM -j\n'
        "echo out; echo err >&2\n#PJM -N late",
        *("-N", "outside", "-L", "elapse=1h30m", "-o", "%n-%j.txt"),
    )
    seen = pjm.ended("1")
    named = (seen["JOB_NAME"], seen["ELAPSE_LIM"], seen["NODE_REQUIRE"])
    assert named == ("outside", "0001:30:00", "2")
    assert (pjm.work / "outside-1.txt").read_text() == "out\nerr\n"
    assert not (pjm.work / "outside.1.err").exists()


def test_a_mark_that_is_not_closed_and_an_option_for_the_command_line_are_errors(pjm):
    code, _, err = pjm.run("pjsub", pjm.script('#PJM -L "node=1\ntrue'))
    where = "Script file job.sh line 2."
    assert (code, err.splitlines()[1]) == (1, where)
    assert "PJM 0008 pjsub Option arguments must be enclosed in quotation mark.\n" in err
    assert "PJM 0001" in pjm.run("pjsub", pjm.script("#PJM --no-check-directory\ntrue"))[2]
    assert pjm.ok("pjsub", "--no-check-directory", pjm.script("true"))


def test_a_name_that_begins_with_a_digit_gets_a_letter_in_the_files_of_output(pjm):
    pjm.ended(pjm.submit("echo x", "-N", "1st"))
    assert (pjm.work / "J1st.1.out").read_text() == "x\n"


def test_names_and_reasons_are_cut_but_the_filter_knows_the_whole_name(pjm):
    name = "a-name-of-more-than-ten"
    pjm.submit(FOR_EVER, "-N", name, "-L", "elapse=1")
    seen = pjm.ended("1")
    assert (seen["JOB_NAME"], seen["REASON"]) == (name[:10], "ELAPSE LIMIT EXC")
    chosen = ("pjstat", "-H", "-v", "--choose", "jid,ermsg", "--filter")
    assert pjm.ok(*chosen, f"jnam={name}").splitlines()[1].split(None, 1) == [
        "1",
        "ELAPSE LIMIT EXCEEDED          ",
    ]
    assert len(pjm.ok(*chosen, f"jnam={name[:10]}").splitlines()) == 1


def test_many_ids_are_one_question(pjm):
    pjm.install(nodes=1)
    for _ in range(3):
        pjm.submit(FOR_EVER)
    pjm.reaches("3", "QUE")
    asked = pjm.ok("pjstat", "-v", "--choose", "jid", "--filter", "jid=1+3+9")
    assert asked.split() == ["JOB_ID", "1", "3"]
    assert pjm.ok("pjstat", "--choose", "jid", "1-2").split() == ["JOB_ID", "1", "2"]


# Ends


@pytest.mark.parametrize(
    ("text", "options", "end", "message"),
    [
        ("true", "", ("EXT", "0", "0", "0"), ""),
        ("exit 137", "", ("EXT", "137", "0", "0"), ""),
        ("kill -9 $$", "", ("EXT", "0", "0", "9"), ""),
        ("ulimit -c 0; kill -SEGV $$", "", ("EXT", "0", "0", "11"), ""),
        (
            "v=$(head -c 200000000 /dev/zero | tr '\\0' x); sleep 60",
            "-L node-mem=50Mi",
            ("EXT", "0", "12", "9"),
            "[ERR.] PJM 7005 Job 1 was canceled. The job exceeded its memory limit.\n",
        ),
        ("#!/no/such/interpreter\n", "", ("EXT", "0", "21", "0"), "[ERR.] PJM 7009 Job 1 was"),
    ],
)
def test_an_end_has_its_codes_and_its_message(pjm, text, options, end, message):
    job = pjm.submit(text, *options.split())
    assert pjm.end(job) == end
    written = (pjm.work / "job.sh.1.err").read_text()
    assert message in written if message else "PJM" not in written
    assert pjm.row(job) is None


@pytest.mark.parametrize(
    ("trap", "text", "grace", "end"),
    [
        ("", "exec sleep 600", 60.0, ("EXT", "0", "11", "24")),
        ("trap '' XCPU; ", "while :; do sleep 0.1; done", 0.5, ("EXT", "0", "11", "9")),
        ("trap 'exit 77' XCPU; ", "while :; do sleep 0.1; done", 60.0, ("EXT", "77", "11", "0")),
    ],
    ids=["plain", "deaf", "own"],
)
def test_a_job_over_its_limit_has_its_codes_and_its_message(pjm, trap, text, grace, end):
    pjm.install(kill_grace=grace)
    job = over_its_limit(pjm, text, trap=trap)
    assert pjm.end(job) == end
    said = f"[ERR.] PJM 7004 Job {job} was canceled. The job exceeded its elapse time limit.\n"
    assert said in (pjm.work / f"job.sh.{job}.err").read_text()
    assert pjm.row(job) is None


def test_memory_may_also_be_the_kernels_affair(pjm):
    pjm.install(oom_killer=True)
    text = "v=$(head -c 200000000 /dev/zero | tr '\\0' x); sleep 60"
    assert pjm.end(pjm.submit(text, "-L", "node-mem=50Mi")) == ("EXT", "0", "23", "9")
    assert "PJM 7011 Job 1 was canceled. The job was killed by OOM killer." in (
        (pjm.work / "job.sh.1.err").read_text()
    )


def test_without_its_folder_or_its_files_a_job_does_not_start(pjm):
    job = pjm.submit("touch ran", "-o", "no/such/folder/out")
    assert pjm.end(job) == ("EXT", "0", "16", "0")
    assert pjm.row(job, "-H")["REASON"] == "FILE IO ERROR"
    moved = pjm.work / "sub"
    moved.mkdir()
    script = pjm.script("touch ran")
    pjm.change(acquire=600.0)
    assert pjm.shell(f"cd sub && pjsub -z jid {script}")[:2] == (0, "3\n")
    moved.rename(pjm.work / "elsewhere")
    pjm.change(acquire=0.05)
    assert pjm.end("3") == ("EXT", "0", "16", "0")
    assert pjm.row("3", "-H")["REASON"] == "NO CURRENT DIR"
    assert not list(pjm.work.rglob("ran"))


@pytest.mark.parametrize(
    ("again", "end", "runs"),
    [("--norestart", ("EXT", "0", "20", "0"), 1), ("--restart", ("EXT", "0", "0", "0"), 2)],
)
def test_a_job_whose_node_is_lost_is_started_again_if_it_may_be(pjm, again, end, runs):
    job = pjm.submit("echo x >> ran; [ $(wc -l < ran) = 2 ] || sleep 600", again, "-s")
    until(lambda: pjm.mark("ran").exists() and pjm.mark("ran").read_text())
    script, supervisor = pjm.process_of_a_job()
    os.kill(supervisor, signal.SIGKILL)
    os.kill(script, signal.SIGKILL)
    assert pjm.end(job) == end
    assert pjm.mark("ran").read_text() == "x\n" * runs
    assert statistics(pjm)["RETRY NUM"] == str(runs - 1)


def statistics(pjm, name="job.sh.1.stats"):
    pairs = (line.partition(":") for line in (pjm.work / name).read_text().split("\n"))
    return {key.strip(): value.strip() for key, _, value in pairs}


def test_statistics_say_what_the_history_says(pjm):
    end = pjm.end(pjm.submit("exit 3", "-s", "--spath", "st.%j"))
    text = (pjm.work / "st.1").read_text()
    assert text.startswith("Job Statistical Information\n")
    assert f"{'JOB ID':<26}: 1\n{'SUB JOB NUM':<26}: -\n" in text
    told = statistics(pjm, "st.1")
    keys = ("STATE", "EXIT CODE", "PJM CODE", "SIGNAL NO")
    assert tuple(told[key] for key in keys) == end
    block = pjm.ok("pjstat", "-H", "-s", "1")
    keys = [line.partition(":")[0] for line in block.split("\n")]
    assert {len(key) for key in keys[:-1]} == {32}
    first = "JOB ID,JOB NAME,JOB TYPE,JOB MODEL,RETRY NUM,SUB JOB NUM,USER,GROUP,RESOURCE UNIT"
    rest = ["RESOURCE GROUP", "APRIORITY", "PRIORITY", "SHELL", "COMMENT"]
    assert [key.strip() for key in keys[:14]] == [*first.split(","), *rest]
    assert f"{'EXIT CODE':<32}: 3\n" in block


def test_statistics_may_tell_of_each_node(pjm):
    pjm.ended(pjm.submit("true", "-S", "-L", "node=2"))
    text = (pjm.work / "job.sh.1.stats").read_text()
    assert text.count("-" * 65 + "\nNode Statistical Information\n") == 2


# From state to state


def test_a_job_is_in_the_queue_then_nowhere_and_then_in_the_history(pjm):
    pjm.install(gap=600.0)
    job = pjm.submit("true")
    until(lambda: pjm.row(job) is None)
    assert pjm.row(job, "-H") is None
    assert pjm.run("pjdel", job)[2] == (
        "[ERR.] PJM 0113 pjdel Job 1 is not in the state that pjdel can be accepted.\n"
    )
    pjm.install()
    assert pjm.end(job) == ("EXT", "0", "0", "0")
    assert "PJM 0112 " in pjm.run("pjdel", job)[2]


def test_while_a_job_has_not_ended_its_codes_are_nothing(pjm):
    pjm.fault("runout")
    seen = pjm.reaches(pjm.submit("exit 3"), "RNO")
    assert [seen[name] for name in ("LST", "EC", "PC", "SN")] == ["RNE", "0", "0", "0"]
    pjm.fault("runout", on=False)
    assert pjm.end("1") == ("EXT", "3", "0", "0")


def test_pjdel_only_takes_the_request_and_the_whole_tree_goes(pjm):
    pjm.install(linger=600.0)
    job = pjm.submit(f"sleep 600 & echo $! > {pjm.mark('pid')}; wait")
    pid = int(until(lambda: pjm.mark("pid").exists() and pjm.mark("pid").read_text().strip()))
    assert pjm.ok("pjdel", job) == "[INFO] PJM 0100 pjdel Accepted job 1.\n"
    assert pjm.row(job)["ST"] == "RUN"
    assert pjm.ok("pjdel", job) == "[INFO] PJM 0119 pjdel Already accepted job 1.\n"
    pjm.change(linger=0.1)
    assert pjm.end(job) == ("CCL", "1", "1", "9")
    assert not os.path.exists(f"/proc/{pid}")
    said = f"[INFO] PJM 7090 Job 1 was canceled. User {ME} executed pjdel command.\n"
    assert (pjm.work / "job.sh.1.err").read_text().endswith(said)


def test_a_job_is_deleted_before_its_start(pjm):
    pjm.install(nodes=1)
    job = pjm.submit(f"touch {pjm.mark('ran')}", "-L", "node=2")
    assert pjm.reaches(job, "QUE")["START_DATE"] == "-"
    until(lambda: pjm.row(job)["REASON"] == "INSUFF NODE")
    pjm.ok("pjdel", "-R", "not now", job)
    assert pjm.end(job) == ("CCL", "0", "1", "0")
    assert pjm.row(job, "-H")["REASON"] == f"{ME}:not now"[:16]
    assert not pjm.mark("ran").exists()


def test_a_waiting_job_is_held_and_released(pjm):
    later = time.strftime("%Y%m%d%H%M", time.localtime(time.time() + 7200))
    job = pjm.submit("true", "--at", later)
    planned = time.strftime("(%m/%d %H:%M)@", time.strptime(later, "%Y%m%d%H%M"))
    assert pjm.reaches(job, "QUE")["START_DATE"] == planned
    assert "PJM 0413 pjrls Job 1 status is not hold.\n" in pjm.run("pjrls", job)[2]
    assert pjm.ok("pjhold", "-R", "why", job) == "[INFO] PJM 0300 pjhold Accepted job 1.\n"
    seen = pjm.reaches(job, "HLD")
    assert (seen["LST"], seen["PC"], seen["REASON"]) == ("QUE", "4", f"{ME}:why")
    assert "PJM 0313 " in pjm.run("pjhold", job)[2]
    assert pjm.ok("pjrls", job) == "[INFO] PJM 0400 pjrls Job 1 released.\n"
    assert pjm.reaches(job, "QUE")["PC"] == "0"


@pytest.mark.parametrize("again", ["--restart", "--norestart"])
def test_a_running_job_that_is_held_is_ended(pjm, again):
    job = pjm.submit("echo x >> ran; [ $(wc -l < ran) = 2 ] || sleep 600", again)
    until(lambda: pjm.mark("ran").exists() and pjm.mark("ran").read_text())
    pjm.ok("pjhold", job)
    if again == "--norestart":
        assert pjm.end(job) == ("CCL", "1", "4", "9")
    else:
        assert pjm.reaches(job, "HLD")["PC"] == "4"
        pjm.ok("pjrls", job)
        assert pjm.end(job) == ("EXT", "0", "0", "0")
    assert "PJM 7091 Job 1 was canceled." in (pjm.work / "job.sh.1.err").read_text() or (
        again == "--restart"  # the second run began its file anew
    )


def test_a_group_has_limits_for_what_waits_and_what_runs(pjm):
    for _ in range(2):
        pjm.submit(FOR_EVER, "-L", "rg=int")
    pjm.reaches("1", "RUN")
    until(lambda: pjm.row("2")["REASON"] == "RUNLIMIT EXCEED")
    said = "[ERR.] PJM 0072 pjsub Job exceeded the accept limit: rg-accept.\n"
    assert pjm.run("pjsub", "-L", "rg=int", pjm.script("true")) == (1, "", said)


def test_many_submitted_at_once_all_run_once(pjm):
    pjm.script('echo x >> "ran.$PJM_JOBID"')
    together = [
        subprocess.Popen(
            ["pjsub", "-z", "jid", "job.sh"], cwd=pjm.work, env=pjm.environment(), stdout=-1
        )
        for _ in range(12)
    ]
    ids = {one.communicate()[0].decode().strip() for one in together}
    assert ids == {str(n) for n in range(1, 13)}
    for job in ids:
        pjm.ended(job)
    assert [file.read_text() for file in pjm.work.glob("ran.*")] == ["x\n"] * 12


def test_a_mom_that_is_killed_loses_no_job_and_starts_none_twice(pjm):
    job = pjm.submit("echo x >> ran; until [ -e go ]; do sleep 0.05; done")
    until(lambda: pjm.mark("ran").exists())
    pjm.kill_daemon()
    pjm.ended(pjm.submit("true"))
    pjm.mark("go").touch()
    assert pjm.end(job) == ("EXT", "0", "0", "0")
    assert pjm.mark("ran").read_text() == "x\n"


# Hostile words

WORD = st.text(alphabet=st.characters(exclude_characters="\0", exclude_categories=["Cs"]))


@given(WORD)
def test_no_word_breaks_the_reading_of_ids_times_and_sizes(word):
    numbers, seconds, size = words.job_numbers(word), words.seconds(word), words.size(word)
    assert numbers is None or all(n >= 0 for n in numbers)
    assert seconds is None or seconds >= 0
    assert size is None or size >= 0


@pytest.mark.parametrize(
    ("text", "value"),
    [("90", 90), ("1:30", 90), ("2:00:00", 7200), ("1h30m", 5400), ("1:00-2:00", 120), ("5-", 5)],
)
def test_an_elapse_time_may_be_written_in_several_ways(text, value):
    assert words.seconds(text) == value


@pytest.mark.parametrize(
    "word", ["", "x", "-1", "1;2", "1[", "²", "é", "--", "99999999999999999999"]
)
def test_no_id_breaks_a_command(pjm, word):
    for command in (["pjstat", word], ["pjdel", word], ["pjhold", word], ["pjrls", word]):
        code, _, err = pjm.run(*command)
        assert "Traceback" not in err
        assert (code, err[:10]) == (1, "[ERR.] PJM")


# Faults


@pytest.mark.parametrize(
    ("command", "code"),
    [("pjsub", "0090"), ("pjdel 1", "0190"), ("pjstat", "0290"), ("pjhold 1", "0390")],
)
def test_without_its_daemon_every_command_says_so(pjm, command, code):
    pjm.fault("down")
    name = command.split()[0]
    said = f"[ERR.] PJM {code} {name} PJM daemon is not present.\n"
    assert pjm.run(*command.split(), given=b"true\n") == (1, "", said)


def test_a_hung_daemon_answers_when_it_is_back(pjm):
    pjm.fault("hung")
    with pytest.raises(subprocess.TimeoutExpired):
        pjm.run("pjstat", timeout=0.5)
    waiting = subprocess.Popen(
        ["pjsub", pjm.script("true")], cwd=pjm.work, env=pjm.environment(), stdout=-1
    )
    assert waiting.poll() is None
    pjm.fault("hung", on=False)
    assert waiting.communicate(timeout=PATIENCE)[0] == b"[INFO] PJM 0000 pjsub Job 1 submitted.\n"


def test_a_submission_whose_answer_is_lost_has_made_a_job(pjm):
    pjm.fault("dies-after-submit")
    assert pjm.run("pjsub", pjm.script("true")) == (-signal.SIGKILL, "", "")
    assert pjm.end("1") == ("EXT", "0", "0", "0")


def test_a_submission_that_hangs_has_made_a_job(pjm):
    pjm.fault("hangs-after-submit")
    with pjm.hanging("pjsub", pjm.script("true")):
        assert pjm.end("1") == ("EXT", "0", "0", "0")


def test_a_late_job_shows_and_runs_only_later(pjm):
    pjm.fault("late")
    job = pjm.submit(f"touch {pjm.mark('ran')}")
    assert pjm.row(job) is None
    assert pjm.row(job, "-H") is None
    assert "PJM 0112 " in pjm.run("pjdel", job)[2]
    assert not pjm.mark("ran").exists()
    pjm.fault("late", on=False)
    assert pjm.end(job) == ("EXT", "0", "0", "0")


def test_over_the_limit_is_refused_and_nothing_is_made(pjm):
    pjm.fault("over-limit")
    said = "[ERR.] PJM 0072 pjsub Job exceeded the accept limit: ru-accept.\n"
    assert pjm.run("pjsub", pjm.script("true")) == (1, "", said)
    assert len(pjm.ok("pjstat").splitlines()) == 1


def test_without_history_an_ended_job_is_unknown(pjm):
    job = pjm.submit("true")
    pjm.ended(job)
    pjm.fault("no-history")
    assert pjm.row(job, "-H") is None
    assert pjm.row(job) is None


def test_a_job_in_error_waits_for_its_pjdel(pjm):
    pjm.fault("error")
    job = pjm.submit("true")
    pjm.reaches(job, "ERR")
    pjm.ok("pjdel", job)
    assert pjm.end(job) == ("CCL", "0", "1", "0")


def test_loading_is_said_before_the_table(pjm):
    pjm.fault("loading")
    first, head = pjm.ok("pjstat").splitlines()
    assert (first, head[:6]) == ("[INFO] PJM 0281 pjstat Data loading...", "JOB_ID")


# Installing


def test_an_option_that_does_not_exist_is_refused(tmp_path):
    with pytest.raises(TypeError, match="colour"):
        install(tmp_path / "bin", tmp_path / "state", colour="red")


def test_stop_ends_everything_whatever_is_wrong(tmp_path):
    pjm = Pjm(tmp_path)
    running = pjm.submit("trap '' TERM XCPU; sleep 600")
    pjm.reaches(running, "RUN")
    later = time.strftime("%Y%m%d%H%M", time.localtime(time.time() + 7200))
    held = pjm.submit("true", "--at", later)
    pjm.ok("pjhold", held)
    pjm.fault("late")
    pjm.submit("true")
    pjm.fault("runout")
    pjm.stop()
    assert len(pjm.ok("pjstat").splitlines()) == 1
    assert {pjm.end(job)[0] for job in ("1", "2", "3")} <= {"CCL", "RJT"}
