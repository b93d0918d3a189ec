"""`hpc-prefect rehearse`: a site's commands, launchers and `module` around a command."""

import os
import pty
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from hpc_prefect.sites import all_sites, find_site
from hpc_rehearsal.common.text import Refusal
from hpc_rehearsal.launchers.commands import parsed
from hpc_rehearsal.launchers.install import find_mpi
from hpc_rehearsal.session import faults
from hpc_rehearsal.sites import rehearsed

from ..sites.profiles import profile
from .rig import PATIENCE, until

REHEARSED = [site.name for site in all_sites() if rehearsed(site.name)]
PROGRAM = str(Path(sys.executable).with_name("hpc-prefect"))
BUSY = "while [ ! -e end ]; do sleep 0.1; done"


def rehearse(folder, *words, timeout=240.0, **more):
    """Exit status, standard output and standard error of one call."""
    done = subprocess.run(
        [PROGRAM, "rehearse", *words],
        cwd=folder,
        env=os.environ | {"TMPDIR": str(folder)} | more,
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    return done.returncode, done.stdout, done.stderr


def shell(folder, site, line, *options, **more):
    return rehearse(folder, site, *options, "--", "bash", "-c", line, **more)


def script(folder, text, name="job.sh"):
    (folder / name).write_text(text if text.startswith("#!") else f"#!/bin/bash\n{text}\n")
    return name


def leftovers(folder):
    return list(folder.glob("hpc-prefect-rehearse-*"))


# The command


def test_the_command_gets_its_arguments_and_gives_its_exit_status(tmp_path):
    words = ["", "a b", "it's", "$HOME", "--fault", "--", "-x"]
    program = 'printf "%s\\0" "$@"; exit 7'
    code, out, err = rehearse(tmp_path, "pbs", "--", "bash", "-c", program, "sh", *words)
    assert (code, out.split("\0")[:-1]) == (7, words)
    assert err.startswith(
        "rehearsal of pbs, with qsub qstat qdel qselect qhold qrls mpiexec mpirun"
    )
    assert err.count("\n") == 1


def test_a_command_that_a_signal_ends_has_the_status_that_a_shell_gives(tmp_path):
    assert shell(tmp_path, "pjm", "kill -9 $$")[0] == 128 + 9


@pytest.mark.parametrize("options", [[], ["--seed", "3"]], ids=["", "options"])
def test_the_quantum_services_command_gets_its_arguments_too(tmp_path, options):
    program = "import sys; print(sys.argv[1:]); sys.exit(7)"
    words = ["-x", "--seed", "--", "a b"]
    python = [sys.executable, "-c", program, *words]
    code, out, err = rehearse(tmp_path, "ibm-quantum", *options, "--", *python)
    assert (code, out) == (7, f"{words}\n"), err


def test_what_the_quantum_service_cannot_honour_is_refused(tmp_path):
    code, _, err = rehearse(tmp_path, "--wait", "3", "ibm-quantum", "--", "true")
    assert (code, err) == (1, "hpc-prefect: ibm-quantum has no option --wait\n")
    code, _, err = rehearse(tmp_path, "--fault", "nosuch", "ibm-quantum", "--", "true")
    assert (code, "there is no fault 'nosuch'" in err) == (2, True)
    code, _, err = rehearse(tmp_path, "ibm-quantum", "--seed", "3")
    assert (code, "there is no command" in err) == (2, True)


def test_a_command_that_is_not_there(tmp_path):
    code, _, err = rehearse(tmp_path, "pjm", "--", "no-such-command")
    assert code == 127
    assert "rehearsal: 'no-such-command' was not found\n" in err


def test_options_may_stand_on_both_sides_of_the_site(tmp_path):
    code, out, err = rehearse(
        tmp_path, "--fault", "down", "pjm", "--fault", "loading", "--", "pjstat"
    )
    assert (code, out) == (1, "")
    assert "wrong: down loading" in err
    assert "[ERR.] PJM 0290 pjstat PJM daemon is not present." in err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nosuch", "--", "true"], "there is no site 'nosuch'"),
        (["slurm", "--", "true"], "slurm cannot be rehearsed: there are stand-ins for pbs and pjm"),
        (["laptop", "--", "true"], "laptop needs no rehearsal"),
        (["pbs"], "there is no command"),
        (["pbs", "--stop"], "--stop is for a queue that is kept"),
        (["pbs", "--fault", "nosuch", "--", "true"], "there is no fault 'nosuch'; there are down,"),
        (["pbs", "--set", "nosuch=1", "--", "true"], "has no option 'nosuch'"),
        (["pbs", "--mpi", "/no/mpiexec", "--", "true"], "--mpi: /no/mpiexec cannot be executed"),
        (["pbs", "--set", "nodes", "--", "true"], "'nodes' is no NAME=VALUE as in TOML"),
    ],
)
def test_what_cannot_be_is_said_in_a_sentence(tmp_path, words, said):
    code, out, err = rehearse(tmp_path, *words)
    assert (code, out) == (1, "")
    assert said in err.splitlines()[-1]
    assert leftovers(tmp_path) == []


# The queue


def test_jobs_end_with_the_command_and_nothing_is_left(tmp_path):
    script(tmp_path, f"echo $$ > pid; {BUSY}")
    line = "pjsub job.sh; while [ ! -s pid ]; do sleep 0.05; done"
    code, _, err = shell(tmp_path, "pjm", line)
    assert code == 0
    assert "jobs that were still there, and were deleted: 1\n" in err
    assert leftovers(tmp_path) == []
    until(lambda: not Path(f"/proc/{(tmp_path / 'pid').read_text().strip()}").exists())


@pytest.mark.parametrize("which", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_reaches_the_command_and_the_jobs_end_after_it(tmp_path, which):
    script(tmp_path, f"cd {shlex.quote(str(tmp_path))}; echo $$ > pid; {BUSY}")
    line = "trap 'echo got >&2; exit 5' TERM INT; qsub job.sh; while :; do sleep 0.05; done"
    running = subprocess.Popen(
        # What was started in the background, as tests may be, ignores SIGINT, and so would this.
        ["env", "--default-signal=INT", PROGRAM, "rehearse", "pbs", "--", "bash", "-c", line],
        cwd=tmp_path,
        env=os.environ | {"TMPDIR": str(tmp_path)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        pid = until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text().strip())
        running.send_signal(which)
        _, err = running.communicate(timeout=PATIENCE)
    finally:
        running.kill()
        running.wait()
    assert running.returncode == 5
    assert "got\n" in err
    until(lambda: not Path(f"/proc/{pid}").exists())
    assert leftovers(tmp_path) == []


def test_ctrl_c_reaches_the_command_once(tmp_path):
    """A terminal sends it to the command and to the rehearsal, which does not hand it on again."""
    script(tmp_path, BUSY)
    program = (
        "import pathlib, signal, subprocess, sys, time\n"
        "got = []\n"
        "signal.signal(signal.SIGINT, lambda *_: got.append(1))\n"
        "subprocess.run(['pjsub', 'job.sh'], check=True)\n"
        "pathlib.Path('ready').touch()\n"
        "while not got: time.sleep(0.05)\n"
        "time.sleep(1)\n"
        "pathlib.Path('count').write_text(str(len(got)))\n"
        "sys.exit(3)\n"
    )
    words = [PROGRAM, "rehearse", "pjm", "--", sys.executable, "-c", program]
    terminal, other = pty.openpty()
    running = subprocess.Popen(
        ["setsid", "--ctty", *words],
        cwd=tmp_path,
        env=os.environ | {"TMPDIR": str(tmp_path)},
        stdin=other,
        stdout=other,
        stderr=other,
    )
    os.close(other)
    until((tmp_path / "ready").exists, "the command's start")
    os.write(terminal, b"\x03")
    until((tmp_path / "count").exists, "the command's end")
    said = _read(terminal)
    os.close(terminal)
    assert running.wait(PATIENCE) == 3
    assert (tmp_path / "count").read_text() == "1"
    assert "jobs that were still there, and were deleted: 1" in said
    assert leftovers(tmp_path) == []


def _read(terminal):
    """Until its other end is closed."""
    text = b""
    while True:
        try:
            text += os.read(terminal, 4096)
        except OSError:
            return text.decode()


def test_a_queue_that_is_kept_is_met_again_and_can_be_ended(tmp_path):
    kept = ("--state", str(tmp_path / "queue"))
    script(tmp_path, BUSY)
    _, first, said = shell(tmp_path, "pjm", "pjsub -z jid job.sh", *kept)
    _, listed, _ = shell(tmp_path, "pjm", "pjstat --choose jid", *kept)
    ended = rehearse(tmp_path, "pjm", *kept, "--stop")
    table = "pjstat -H --choose jid,st"
    line = f"until {table} | grep -q '^1'; do sleep 0.05; done; {table}"
    _, history, _ = shell(tmp_path, "pjm", line, *kept)
    assert first == "1\n"
    assert "jobs that wait or run on: 1;" in said
    assert listed.split() == ["JOB_ID", "1"]
    assert (ended[0], "jobs that were still there, and were deleted: 1\n" in ended[2]) == (0, True)
    assert history.split()[2:] == ["1", "CCL"]


def test_a_queue_that_is_kept_belongs_to_one_site(tmp_path):
    kept = ("--state", str(tmp_path / "queue"))
    shell(tmp_path, "miyabi", "true", *kept)
    code, _, err = shell(tmp_path, "pbs", "true", *kept)
    assert (code, "is the queue of miyabi" in err) == (1, True)


def test_a_fault_lasts_as_long_as_its_rehearsal(tmp_path):
    kept = ("--state", str(tmp_path / "queue"))
    assert shell(tmp_path, "pbs", "qstat", *kept, "--fault", "down")[0] == 255
    assert shell(tmp_path, "pbs", "qstat", *kept)[0] == 0


def test_a_job_waits_as_long_as_is_wished(tmp_path):
    script(tmp_path, "true")
    states = "qsub job.sh; sleep 1; qstat -f 1 | grep job_state"
    assert "job_state = Q" in shell(tmp_path, "pbs", states, "--wait", "600")[1]
    taken = "while pjstat --choose st | grep -q ACC; do sleep 0.05; done"
    states = f"pjsub job.sh; {taken}; sleep 1; pjstat --choose st"
    assert shell(tmp_path, "pjm", states, "--wait", "600")[1].split()[-1] == "QUE"


def test_only_so_many_jobs_run_at_once(tmp_path):
    script(tmp_path, BUSY)
    line = (
        "for n in 1 2 3; do pjsub job.sh; done;"
        " while pjstat --choose st | grep -q 'ACC\\|RNA' ||"
        " [ $(pjstat --choose st | grep -c RUN) -lt 2 ]; do sleep 0.05; done;"
        " sleep 1; pjstat --choose st"
    )
    _, out, _ = shell(tmp_path, "pjm", line, "--at-once", "2")
    assert out.split()[-3:] == ["RUN", "RUN", "QUE"]


def test_projects_are_any_or_those_that_are_named(tmp_path):
    script(tmp_path, "true")
    line = "pjsub -g hp1 job.sh; pjsub -g hp2 job.sh"
    assert shell(tmp_path, "pjm", line)[0] == 0
    code, _, err = shell(tmp_path, "pjm", line, "--project", "hp1")
    assert (code, err.count("Group not authorized to submit a job: hp2")) == (1, 1)
    line = "qsub -W group_list=gz1 job.sh; qsub -W group_list=gz2 job.sh"
    assert shell(tmp_path, "pbs", line)[0] == 0
    code, _, err = shell(tmp_path, "pbs", line, "--project", "gz1")
    assert (code, err.count("Bad GID")) == (197, 1)


def test_a_routing_queue_hands_a_job_to_the_one_that_it_fits(tmp_path):
    script(tmp_path, "true")
    line = (
        "for n in 1 17 33 65; do qsub -q regular-c -l select=$n job.sh; done;"
        " qsub -q debug-c -l select=5 job.sh; qstat"
    )
    _, out, err = shell(tmp_path, "miyabi", line, "--wait", "600")
    assert re.findall(r"(?:small|medium|large)-c", out) == ["small-c", "medium-c", "large-c"]
    assert err.count("Job violates queue and/or server resource limits") == 2


# Launchers and modules


def arguments(name, side):
    """The site's launcher line as a job has it, without the program."""
    fields = profile(name)
    line = fields.gpu.launcher if side == "gpu" else fields.launcher
    values = {"ranks": 4, "ranks_per_node": 2, "nodes": 2, "threads": 1}
    values |= {"command": "prog 'a b' -n 7"}
    words = shlex.split(line.format(**values))
    return words if words[0] != "ranks" else ["mpiexec", *words[1:]]


@pytest.mark.parametrize(
    ("name", "side"), [*((name, "cpu") for name in REHEARSED), ("miyabi", "gpu")]
)
def test_a_sites_launcher_line_is_one_of_its_launchers(name, side):
    launcher, *words = arguments(name, side)
    asked = parsed(launcher, words, rehearsed(name).launchers[launcher])
    assert (asked["ranks"], asked["program"]) == (4, ["prog", "a b", "-n", "7"])


def test_an_option_that_a_launcher_does_not_have_is_refused():
    launchers = rehearsed("miyabi").launchers
    with pytest.raises(Refusal, match=r"mpiexec\.hydra is not known to have the option --map-by"):
        parsed("mpiexec.hydra", ["--map-by", "node", "prog"], launchers["mpiexec.hydra"])
    with pytest.raises(Refusal, match="-n lacks what belongs to it"):
        parsed("mpirun", ["-n", "prog"], launchers["mpirun"])
    with pytest.raises(Refusal, match="there is no program"):
        parsed("mpirun", ["-n", "2"], launchers["mpirun"])
    with pytest.raises(Refusal, match="several programs"):
        parsed("mpirun", ["-n", "2", "a", ":", "-n", "1", "b"], launchers["mpirun"])


def an_mpi(folder):
    """An mpiexec of the laptop's, that only says what it was told."""
    mpi = folder / "laptops-mpiexec"
    mpi.write_text('#!/bin/sh\necho "mpi: $* GIVEN=$GIVEN"\nshift 2\nPMI_RANK=3 exec "$@"\n')
    mpi.chmod(0o755)
    return ("--mpi", str(mpi))


def test_the_laptops_mpi_gets_the_ranks_and_the_program(tmp_path):
    script(tmp_path, "#!/bin/bash -l\nmpirun -x GIVEN=1 -n 3 --bind-to none echo 'a  b'\n")
    line = "qsub -W block=true -o out -e err job.sh; cat err out"
    _, out, _ = shell(tmp_path, "miyabi", line, *an_mpi(tmp_path))
    assert out.splitlines()[1:] == ["mpi: -n 3 echo a  b GIVEN=1", "a  b"]


def test_without_ranks_there_are_as_many_as_the_job_was_given(tmp_path):
    script(tmp_path, "mpiexec true")
    line = "qsub -l select=2:mpiprocs=3 -W block=true -o out job.sh; cat out"
    assert "mpi: -n 6 true" in shell(tmp_path, "pbs", line, *an_mpi(tmp_path))[1]
    line = "pjwait $(pjsub -z jid --mpi proc=5 -o out job.sh); cat out"
    assert "mpi: -n 5 true" in shell(tmp_path, "pjm", line, *an_mpi(tmp_path))[1]


def test_ranks_write_into_files_of_their_own_where_the_sites_do(tmp_path):
    script(tmp_path, "mpiexec -n 1 echo out\nmpiexec -n 1 sh -c 'echo err >&2; exit 3'\nexit $?")
    line = "pjwait $(pjsub -z jid -L rscgrp=small job.sh); cat output.1/0/1/stdout.1.3"
    _, out, _ = shell(tmp_path, "fugaku", f"{line} output.1/0/2/stderr.2.3", *an_mpi(tmp_path))
    assert out.splitlines() == ["1 0 3 0", "out", "err"]


def test_without_an_mpi_a_launcher_says_so(tmp_path):
    script(tmp_path, "mpiexec -n 2 true")
    line = "pjwait $(pjsub -z jid -e err job.sh); cat err"
    _, out, _ = shell(tmp_path, "pjm", line, "--mpi", "")
    assert out.splitlines()[0] == "1 0 127 0"
    assert "mpiexec: there is no MPI on this machine" in out


def test_the_laptops_mpi_is_the_one_beside_python_or_the_first_on_path(tmp_path, monkeypatch):
    beside, on_path = tmp_path / "venv" / "bin", tmp_path / "bin"
    for folder in (beside, on_path):
        folder.mkdir(parents=True)
    monkeypatch.setenv("PATH", str(on_path))
    found = [find_mpi(beside / "python")]
    for folder, name in ((on_path, "mpirun"), (beside, "mpiexec")):
        (folder / name).touch(mode=0o755)
        found.append(find_mpi(beside / "python"))
    assert found == ["", str(on_path / "mpirun"), str(beside / "mpiexec")]


MODULES = """
type -t module || echo none
module load intel impi/2021.10.0 && module unload intel && echo "$LOADEDMODULES"
module load nosuch/1; echo $?
module purge; echo "[$LOADEDMODULES]"
"""


def test_modules_are_names_in_the_shells_that_have_them(tmp_path):
    script(tmp_path, f"#!/bin/bash -l\n{MODULES}", "login.sh")
    script(tmp_path, "type -t module || echo none", "other.sh")
    line = "for job in login other; do qsub -W block=true -o out -e err $job.sh; cat out err; done"
    _, out, _ = shell(tmp_path, "miyabi", line)
    _, more, _ = shell(tmp_path, "miyabi", line, "--module", "nosuch")
    assert out.splitlines() == [
        *("1.opbs", "function", "impi/2021.10.0", "1", "[]"),
        "ERROR: Unable to locate a modulefile for 'nosuch/1'",
        "rehearsal: add it with --module nosuch if the site has it",
        *("2.opbs", "none"),
    ]
    assert more.splitlines()[3] == "0"


# The data


@pytest.mark.parametrize("name", REHEARSED)
def test_a_sites_data_make_a_rehearsal_with_its_queue(name, tmp_path):
    """The queue that a user of it fills in takes a job."""
    site = find_site(name)
    queue = profile(name).queue_cpu
    script(tmp_path, "true")
    more = () if queue in str(rehearsed(site.name)) else ("--queue", queue)
    submit = "qsub -q" if site.scheduler == "pbs" else "pjsub -L rscgrp="
    gap = " " if site.scheduler == "pbs" else ""
    code, _, err = shell(tmp_path, name, f"{submit}{gap}{queue} job.sh", *more)
    assert code == 0, err


def test_rehearsals_are_of_sites():
    folder = Path(sys.modules["hpc_rehearsal.sites"].__file__).parent
    assert {file.stem for file in folder.glob("*.toml")} == set(REHEARSED)
    assert {"miyabi", "fugaku", "pbs", "pjm"} == set(REHEARSED)


def test_the_page_on_rehearsal_has_every_option(tmp_path):
    page = (Path(__file__).parents[2] / "docs" / "rehearsal.md").read_text()
    _, out, _ = rehearse(tmp_path, "--help")
    known = set(re.findall(r"^  (--[a-z-]+)", out, re.MULTILINE))
    assert set(re.findall(r"^\| `(--[a-z-]+)", page, re.MULTILINE)) == known
    assert len(known) == 10


def test_the_faults_are_those_that_are_described():
    for kind in ("pbs", "pjm"):
        assert {"down", "hung", "late", "over-limit", "no-history"} <= set(faults(kind))
    assert "exiting" in faults("pbs")
    assert "runout" in faults("pjm")
