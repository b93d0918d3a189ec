"""The rehearsal PBS answers as a real OpenPBS did: every step of what was recorded, replayed."""

import json
import os
import re
import time

import pytest

from hpc_rehearsal.pbs import formats as words
from hpc_rehearsal.pbs import job_record as record

from .rig import RECORDED, normal, recorded, until

# What the recorded scripts were, as far as their output tells.
SCRIPTS = {
    "ok.sh": "#PBS -N okjob\nsleep 600",
    "hello_sel.sh": """#PBS -N envjob
#PBS -q regular-c
#PBS -l select=2:mpiprocs=4:ompthreads=2
#PBS -l walltime=00:05:00
#PBS -W group_list=gz00
#PBS -o envjob.out
#PBS -e envjob.err
env""",
    "end_exit0.sh": "echo fine",
    "end_exit3.sh": "echo out; echo err >&2; exit 3",
    "end_sigkill_self.sh": "echo before; kill -9 $$",
    "end_sigterm_self.sh": "echo before; kill -TERM $$",
    "end_segfault_self.sh": "ulimit -c 0; kill -SEGV $$",
    "end_output_dir_missing.sh": "echo lost",
    "end_walltime_exceeded.sh": "echo start; sleep 60",
    "badshebang.sh": "#!/no/such/interpreter\n",
    "memhog.py": """#!/bin/bash
v=$(head -c 200000000 /dev/zero | tr '\\0' x); sleep 60""",
}
# Words that are others here: of limits that are shorter, so that nobody waits, of jobs that run
# longer than a busy machine takes to ask, and of one that ends when a file is written.
OTHERS = {
    "end_walltime_exceeded": ("00:00:05", "00:00:01"),
    "depend_afterok_fail": ("sleep 4", "cat go"),
    "depend_afterok_ok": ("sleep 3", "cat go"),
    "hold_running": ("sleep 5", "sleep 5d"),
    "multi_ids": ("20", "20d"),
    "over_limit": ("30", "30d"),
}
# The steps before which that file is written.
GO = {
    ("depend_afterok_fail", "child_after_qstat_xf"),
    ("depend_afterok_ok", "child_after_qstat_xf"),
}
# What has to be there before the first step, and the first id of the recording if no step shows it.
BEFORE = {
    "qdel_queued": (49, ["qsub -q regular-c -l select=1:ncpus=100 -- /bin/sleep 30"]),
    "multi_ids": (68, ["qsub -q regular-c -- /bin/sleep 20d", "qsub -q regular-c -- /bin/true"]),
    "finished_without_x": (69, ["qsub -q regular-c -- /bin/true"]),
    "depend_bad": (59, []),
    "hold_running": (54, []),
    "json_escaping": (70, []),
}
RUNNING_FIRST = {"hold_running", "qdel_force", "qdel_running"}
PATIENCE = 120.0
BY_HAND = {
    "array",
    "server_down",
    "status_all",
    "json_escaping",
    "env_values",
    "exiting_stageout_retry",
}
#: What is not rehearsed, or was recorded by other means; the dialect's tests read these.
NOT_HERE = {
    *("end_cput_exceeded", "json_environments", "qsig_suspend", "qstat_one_connection"),
    *("server_unresolvable", "status_all_text"),
}
CASES = sorted(path.stem for path in RECORDED.glob("*.json") if path.stem not in BY_HAND | NOT_HERE)


def counted_from(pbs, first):
    (pbs.state / "last").write_text(str(first - 1))


def line_of(pbs, step, case):
    line = step["cmd"].replace("/gpfs/gz00", str(pbs.work.parent)).removeprefix("time ")
    line = line.replace(f"{pbs.work.parent}/jobs", str(pbs.work))
    old, new = OTHERS.get(case, ("", ""))
    return line.replace(old, new) if old else line


def answer(pbs, step, case):
    code, out, err = pbs.shell(line_of(pbs, step, case))
    old, new = OTHERS.get(case, ("", ""))
    out = normal(out, pbs)  # first of all: a long line may be cut in the midst of a word
    return code, out.replace(new, old) if old else out, normal(err, pbs)


def expected(pbs, step):
    err = step["stderr"].partition("\nreal\t")[0]
    return step["rc"], normal(step["stdout"], pbs), normal(err, pbs)


def replay(pbs, step, case):
    """A question is asked until it is answered like this; a command is given once."""
    wanted = expected(pbs, step)
    if re.match(r"(time )?(qsub|qdel|qhold|qrls)\b", step["cmd"]):
        if case in RUNNING_FIRST and not step["cmd"].startswith("qsub"):
            pbs.runs(step["cmd"].split()[-1])
        assert answer(pbs, step, case) == wanted, step["step"]
        return
    end = time.monotonic() + PATIENCE
    while (seen := answer(pbs, step, case)) != wanted and time.monotonic() < end:
        time.sleep(0.05)
    assert seen[::2] == wanted[::2], step["step"]
    assert seen[1].split("\n") == wanted[1].split("\n"), step["step"]


@pytest.mark.parametrize("case", CASES)
def test_every_recorded_step_gets_the_recorded_answer(pbs, case):
    for name, text in SCRIPTS.items():
        pbs.script(text, name)
    steps = [
        step
        for step in recorded(case)
        if not step["cmd"].startswith(("ls ", "cat ", "tail ", "printf"))
    ]
    first, before = BEFORE.get(case, (None, []))
    if first is None:
        found = re.search(r"(\d+)\.opbs", "".join(step["stdout"] for step in steps))
        first = int(found[1]) if found else 1
    counted_from(pbs, first)
    for line in before:
        assert pbs.shell(line)[0] == 0
    if case == "qdel_queued":  # the recorded scheduler had looked at it before it was deleted
        until(lambda: "comment = " in pbs.ok("qstat", "-f", str(first)))
    os.mkfifo(pbs.home / "go")
    for step in steps:
        if (case, step["step"]) in GO:
            (pbs.home / "go").write_text("")
        replay(pbs, step, case)
        if case == "qsub_malformed_l" and step["rc"] == 0 and step["cmd"].startswith("qsub"):
            # Between the recorded steps other jobs had been submitted.
            counted_from(pbs, {5: 6, 6: 8, 8: 9}.get(int(step["stdout"].split(".")[0]), 10))
        if case == "qsub_unknown_group" and step["rc"]:
            counted_from(pbs, 12)


@pytest.mark.parametrize("step", recorded("server_down"), ids=lambda step: step["step"])
def test_without_a_server_every_command_says_what_was_recorded(pbs, step):
    pbs.script("true", "ok.sh")
    pbs.fault("down")
    assert answer(pbs, step, "server_down") == expected(pbs, step)


def test_a_job_whose_output_is_not_yet_delivered_is_exiting_with_its_status(pbs):
    (step,) = recorded("exiting_stageout_retry")
    counted_from(pbs, 0)
    pbs.fault("exiting")
    select = "select=2:mpiprocs=4:ompthreads=2"
    pbs.ok("qsub", "-q", "regular-c", "-l", select, "-W", "group_list=gz00", given=b"true")
    pbs.reaches("0.opbs", "E")
    _, seen, _ = answer(pbs, step, "")
    _, wanted, _ = expected(pbs, step)
    kept = [_without_submitter(text) for text in (seen, wanted)]
    assert kept[0] == kept[1]


def _without_submitter(text):
    """That one recording was made from another folder and environment."""
    return re.sub(r"(Variable_List|Error_Path|Output_Path) = [^\n]*", r"\1", text)


def test_names_arguments_and_accounts_are_shown_as_recorded(pbs):
    steps = {step["step"]: step for step in recorded("json_escaping")}
    for first, names in (
        (70, ["name_quote_qsub", "name_number_qsub", "name_number_qstat_json"]),
        (70, ["name_number_qstat_f"]),
        (337, ["qsub_args_quotes", "args_quotes_qstat_json"]),
    ):
        counted_from(pbs, first)
        for name in names:
            assert answer(pbs, steps[name], "") == expected(pbs, steps[name]), name


def test_an_odd_quote_in_a_variable_is_refused_as_recorded(pbs):
    (step,) = [step for step in recorded("json_escaping") if step["step"] == "env_sq_qsub_v"]
    code, out, err = pbs.shell(step["cmd"], A="it's")
    assert (code, out, err) == (step["rc"], step["stdout"], step["stderr"])


# The values as they were given to `qsub -v A`.
VALUES = {
    "quote": 'say "hi"',
    "backslash": "a\\b\\n",
    "newline": "l1\nl2",
    "comma": "x,y,z",
    "utf8": "日本語",
    "ctrl": "\x01\x1b[31m",
    "json": '{"k": [1, "v"]}',
    "number": "00123",
    "bigint": "12345678901234567890",
    "empty": "",
    "eq": "b=c=d",
    "float": "1.10",
    "nan": "nan",
    "inf": "1e999",
    "hex": "0x10",
    "minus": "-5",
    "backslash_end": "abc\\",
    "tab": "a\tb",
    "leading_space": "  x",
    "number_suffix": "123abc",
}


@pytest.mark.parametrize("case", recorded("env_values"), ids=lambda case: case["case"])
def test_a_variable_is_damaged_as_recorded(pbs, case):
    variables = ("-v", "A", "-q", "regular-c", "-h", "--", "/bin/true")
    job = pbs.ok("qsub", *variables, A=VALUES[case["case"]]).strip()
    out = pbs.ok("qstat", "-f", "-F", "json", job)
    text = normal(pbs.ok("qstat", "-f", job), pbs)
    system = '"PBS_O_SYSTEM":\t"Linux",\n'
    assert re.search(f'{system}(.*?)\t*"PBS_O_HOST"', out, re.S)[1] == case["json"]
    found = re.search(r"PBS_O_SYSTEM=Linux,(.*?)PBS_O_HOST", text, re.S)[1]
    assert found == case["text"].replace("\n\t", "")


def test_queues_are_shown_as_the_recorded_ones(pbs):
    steps = {step["step"]: step for step in recorded("status_all")}
    wanted = json.loads(steps["qstat_Q_f_json"]["stdout"])["Queue"]

    shown = json.loads(pbs.shell("qstat -Q -f -F json")[1])["Queue"]
    text = pbs.shell("qstat -Q -f")[1]
    rows = pbs.shell("qstat -Q")[1].splitlines()

    # The others had jobs before they were recorded.
    for name in ("debug-c", "small-c", "stopped-c", "disabled-c", "inter-c", "acl-c"):
        assert shown[name] == wanted[name]
        (row,) = [row for row in steps["qstat_Q"]["stdout"].splitlines() if row.startswith(name)]
        assert row in rows
    assert rows[:2] == steps["qstat_Q"]["stdout"].splitlines()[:2]
    seen = {step["step"]: step for step in recorded("status_all_text")}
    workq = seen["qstat_Q_f"]["stdout"].split("\n\n")[0].splitlines()
    assert text.split("\n\n")[0].splitlines() == [x for x in workq if "assigned" not in x]
    unknown = seen["qstat_Q_f_unknown"]
    assert pbs.shell("qstat -Q -f nosuch") == (unknown["rc"], "", unknown["stderr"])


def test_the_server_names_its_default_queue_as_the_recorded_one(pbs):
    wanted = json.loads(recorded("status_all")[-2]["stdout"])["Server"]["opbs"]

    shown = json.loads(pbs.shell("qstat -B -f -F json")[1])["Server"]["opbs"]

    for name in ("server_state", "server_host", "default_queue", "job_history_enable"):
        assert shown[name] == wanted[name]


def _recorded_lines():
    """Attributes as they were cut in recorded answers."""
    for path in sorted(RECORDED.glob("*.json")):
        for step in json.loads(path.read_text()):
            text = step.get("stdout", "")
            if text.startswith("Job Id:"):
                yield from re.findall(r"^    \S+ = .*(?:\n\t.*)*", text, re.M)


def test_long_values_are_cut_where_the_recorded_ones_are():
    cut = 0
    for wanted in _recorded_lines():
        name, _, value = wanted.replace("\n\t", "").strip(" ").partition(" = ")
        assert record.line(name, value, wide=False) == wanted
        cut += "\n" in wanted
    assert cut > 20


def test_the_job_gets_of_a_variable_what_was_recorded():
    given = {'say "hi"': "say \\hi\\", "a\\b": "a\\\\b", "x,y": "x,y", "l1\nl2": "l1\nl2"}
    for value, arrives in given.items():
        assert words.decoded(words.encoded(value)) == arrives


def test_output_files_hold_what_was_recorded(pbs):
    for case, first in (("end_exit0", 29), ("end_exit3", 30), ("end_walltime_exceeded", 42)):
        counted_from(pbs, first)
        limit = ("-l", "walltime=5") if "walltime" in case else ()  # its program begins before
        job = pbs.ok("qsub", *limit, pbs.script(SCRIPTS[f"{case}.sh"], f"{case}.sh")).strip()
        pbs.ended(job)
        for step in recorded(case):
            for name, text in re.findall(r"==> (\S+) <==\n(.*?)(?=\n==>|\Z)", step["stdout"], re.S):
                seen = (pbs.work / name).read_text()
                assert re.sub(r"\d+", "N", seen) == re.sub(r"\d+", "N", text)


def test_output_is_only_there_at_the_end(pbs):
    job = pbs.submit(f"echo now; until [ -e {pbs.mark('go')} ]; do sleep 0.05; done")
    pbs.reaches(job, "R")
    until(lambda: any(file.read_text() for file in (pbs.state / "jobs").glob("*.OU")))
    assert not list(pbs.work.glob("job.sh.*"))
    pbs.mark("go").touch()
    pbs.ended(job)
    assert (pbs.work / "job.sh.o1").read_text() == "now\n"
