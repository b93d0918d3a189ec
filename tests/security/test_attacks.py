"""What somebody else on the machine can put in a user's way: refused, never run, never believed."""

from __future__ import annotations

import json
import os
import stat
import struct
import sys
import time
from pathlib import Path

import pytest

from ..apart import MALLORY, SHARED, VICTIM
from .conftest import USER, Machine

VERDICT = {
    "event": "verdict",
    "result": {"name": "job", "state": "succeeded", "verdict": {"reason": "succeeded"}},
}
LEVELS = (".hpc-prefect", ".hpc-prefect/campaign", ".hpc-prefect/campaign/ab")
ATTEMPT = ".hpc-prefect/campaign/ab/k-1"


def own_folders(machine: Machine, path: str = ATTEMPT, mode: int = 0o700) -> Path:
    """Folders of the victim's, as this package makes them."""
    machine.shell(f"umask 077; mkdir -p {machine.work}/{path}", uid=VICTIM)
    (machine.work / path).chmod(mode)
    return machine.work / path


def refused(machine: Machine, said: dict[str, str], path: Path | str, why: str) -> None:
    assert said.get("error") == "NotOurs", said
    assert f"{path} is not safe to use" in said["said"], said
    assert why in said["said"], said
    assert machine.runs() == [], "nothing was run"


def left_behind(machine: Machine) -> list[str]:
    """Folders of the victim's that are not for the victim alone."""
    found = [Path(path) for path, _, _ in os.walk(machine.work) if ".hpc-prefect" in path]
    return [str(path) for path in found if path.stat().st_mode & 0o077]


@pytest.mark.parametrize("umask", [0, 0o002, 0o022, 0o077])
def test_folders_are_for_the_user_alone_whatever_the_umask_is(machine, umask):
    said = machine.job(umask=umask)
    assert said.get("state") == "succeeded", said
    assert left_behind(machine) == []
    assert (machine.work / ".hpc-prefect").stat().st_mode & stat.S_ISGID, "it is inherited"


def test_folders_below_one_with_inherited_rights_of_others_are_for_the_user_alone(machine):
    entries = [(1, 7, 0), (2, 7, MALLORY), (4, 7, 0), (0x10, 7, 0), (0x20, 5, 0)]
    text = struct.pack("<I", 2) + b"".join(
        struct.pack("<HHI", tag, rights, uid if tag == 2 else 0xFFFFFFFF)
        for tag, rights, uid in entries
    )
    try:
        os.setxattr(machine.work, "system.posix_acl_default", text)
    except OSError as error:
        pytest.skip(f"no access lists on this file system: {error.strerror}")
    assert machine.job()["state"] == "succeeded"
    assert left_behind(machine) == []
    script = f"{machine.work}/{ATTEMPT}/script.sh"
    assert machine.shell(f"cat {script} 2>/dev/null || echo no") == "no\n"


def test_two_users_run_the_same_flow_in_one_work_dir(machine):
    first, second = machine.job(VICTIM), machine.job(MALLORY)
    assert first["folder"] == f"{machine.work}/{ATTEMPT}"
    assert second["folder"] == f"{machine.work}/.hpc-prefect-{MALLORY}/campaign/ab/k-1"
    assert machine.runs() == [VICTIM, MALLORY]
    assert machine.job(VICTIM) == first
    assert machine.job(MALLORY) == second
    assert machine.runs() == [VICTIM, MALLORY], "each finds the own job again"


def test_a_users_folders_stay_where_they_are_when_the_first_user_leaves(machine):
    machine.job(MALLORY)
    mine = machine.job(VICTIM)
    machine.shell(f"rm -rf {machine.work}/.hpc-prefect")
    assert machine.job(VICTIM) == mine
    assert machine.runs() == [MALLORY, VICTIM]


LIST = """
import json, sys
from hpc_prefect.operations import list_jobs
print(json.dumps([[job.user, job.status.state, job.problem] for job in list_jobs(sys.argv[1])]))
"""


def test_jobs_of_others_are_listed_as_far_as_they_let_us_read_them(machine):
    machine.job(MALLORY)
    machine.job(VICTIM)
    assert machine.python(LIST, machine.work) == [["", "succeeded", ""]]
    machine.shell(f"chmod -R a+rX {machine.work}/.hpc-prefect")
    theirs = [f"uid {MALLORY}", "succeeded", ""]
    assert machine.python(LIST, machine.work) == [theirs, ["", "succeeded", ""]]
    assert machine.python(LIST, f"{machine.work}/.hpc-prefect") == [theirs]


ACT = """
import json, sys
from hpc_prefect.errors import NotOurs
from hpc_prefect.operations import attach, cancel_jobs, list_jobs
(job,) = list_jobs(sys.argv[1])
(done,) = cancel_jobs([job])
try:
    attach(job)
except NotOurs as error:
    print(json.dumps([done.confirmed, done.words, str(error)]))
"""


def test_jobs_of_others_are_neither_cancelled_nor_taken_over(machine):
    machine.shell(
        f"mkdir -p {machine.work}/{ATTEMPT} && cd {machine.work}/{ATTEMPT} && chmod -R 755"
        f""" {machine.work}/.hpc-prefect && echo '{{"event":"cancel"}}' > journal.jsonl"""
    )
    confirmed, words, error = machine.python(ACT, machine.work)
    assert not confirmed
    assert words.startswith(f"it belongs to uid {MALLORY}")
    assert f"belongs to uid {MALLORY}: only this user can attach" in error


def test_a_whole_ledger_that_somebody_prepared_is_passed_by(machine):
    journal = json.dumps(VERDICT)
    prepared = f"{machine.work}/{ATTEMPT}"
    machine.shell(f"mkdir -p {prepared}; echo '{journal}' > {prepared}/journal.jsonl")
    assert machine.job()["folder"].startswith(f"{machine.work}/.hpc-prefect-{VICTIM}/")
    assert machine.runs() == [VICTIM]


def test_a_folder_prepared_under_the_users_number_is_refused(machine):
    machine.shell(f"mkdir {machine.work}/.hpc-prefect-{VICTIM}")
    path = f"{machine.work}/.hpc-prefect-{VICTIM}"
    refused(machine, machine.job(), path, f"it belongs to uid {MALLORY}, not to uid {VICTIM}")


@pytest.mark.parametrize("level", [*LEVELS[1:], ATTEMPT])
def test_a_folder_of_somebody_elses_on_the_way_is_refused(machine, level):
    path = own_folders(machine, level, 0o777)
    os.chown(path, MALLORY, SHARED)
    refused(machine, machine.job(), path, f"it belongs to uid {MALLORY}, not to uid {VICTIM}")


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o2775])
@pytest.mark.parametrize("level", [*LEVELS, ATTEMPT])
def test_a_folder_that_others_may_write_in_is_refused(machine, level, mode):
    path = own_folders(machine, level, mode)
    refused(machine, machine.job(), path, "others may write to it")


@pytest.mark.parametrize("level", [*LEVELS, ATTEMPT])
def test_a_link_in_the_place_of_a_folder_is_refused(machine, level):
    elsewhere = own_folders(machine, "elsewhere")
    if above := os.path.dirname(level):
        own_folders(machine, above)
    machine.shell(f"ln -s {elsewhere} {machine.work}/{level}", uid=VICTIM)
    path = machine.work / level
    refused(machine, machine.job(), path, "it is not a folder, or a link to one")
    assert os.listdir(elsewhere) == []


@pytest.mark.parametrize("name", ["journal.jsonl", "claim-1", "script.sh", "cancel", "exit"])
@pytest.mark.parametrize("how", ["of another user", "a link", "a pipe"])
def test_a_file_that_is_not_the_users_own_is_refused_and_hangs_nobody(machine, name, how):
    path, keys = own_folders(machine) / name, machine.home(VICTIM) / "authorized_keys"
    keys.write_text("mine")
    os.chown(keys, VICTIM, SHARED)
    if how == "a link":
        path.symlink_to(keys)
    elif how == "a pipe":
        os.mkfifo(path)
        os.chown(path, VICTIM, SHARED)
    else:
        path.write_text(json.dumps(VERDICT) + "\n")
        os.chown(path, MALLORY, SHARED)
    said = machine.job()
    if name == "script.sh":  # it is replaced by the user's own, not written into
        assert said["state"] == "succeeded", said
    else:
        why = f"it belongs to uid {MALLORY}" if how == "of another user" else "not a regular file"
        refused(machine, said, path, why)
    assert keys.read_text() == "mine"


def test_a_script_that_is_replaced_before_it_is_submitted_is_not_run(machine):
    """Whoever may write in a work_dir can rename what is in it."""
    signal = machine.home(VICTIM) / "written"
    words = (sys.executable, USER, machine.work, machine.program(), signal)
    with machine.begin(*words) as victim:
        while not signal.exists():
            assert victim.poll() is None, victim.communicate()
        machine.shell(
            f"cd {machine.work}; mv .hpc-prefect .away; mkdir -p {ATTEMPT}; cd {ATTEMPT};"
            f" printf '#!/bin/sh\\nid -u >> {machine.folder}/runs\\n' > script.sh;"
            " chmod 755 script.sh"
        )
        Path(f"{signal}.done").touch()
        out, err = victim.communicate(timeout=240)
    assert victim.returncode == 0, err
    path = machine.work / ".hpc-prefect"
    refused(machine, json.loads(out), path, f"it belongs to uid {MALLORY}")


ENGINE = """
import json, subprocess, sys
from hpc_prefect.local_batch import engine
argv = [sys.executable, "-I", "-S", engine.__file__, "submit", "--spool", "spool", "--name", "n",
    "--queue", "q", "--slots", "1", "--cpus", "1", "--out", "o", "--err", "e", "--cwd", "."]
argv.append(sys.argv[1])
done = subprocess.run(argv, capture_output=True, text=True, cwd=sys.argv[2])
print(json.dumps([done.returncode, done.stderr]))
"""


def test_the_laptops_engine_runs_no_script_of_somebody_elses(machine):
    script = machine.folder / "script"
    script.write_text("#!/bin/sh\n")
    os.chown(script, MALLORY, SHARED)
    code, said = machine.python(ENGINE, script, machine.home(VICTIM))
    assert (code, said) == (1, f"engine.py: {script} is not a regular file that belongs to you\n")


@pytest.mark.parametrize("mode", [0o700, 0o777])
@pytest.mark.parametrize("whose", [VICTIM, MALLORY])
def test_a_runtime_directory_is_used_only_if_it_is_the_users_and_private(machine, whose, mode):
    """`su` hands on the caller's."""
    runtime = machine.make("runtime", whose, mode)
    assert machine.job(XDG_RUNTIME_DIR=str(runtime))["state"] == "succeeded"
    used = (runtime / "hpc-prefect").exists()
    assert used == (whose == VICTIM and mode == 0o700)
    meeting = runtime if used else machine.home(VICTIM) / ".cache"
    if not used and Path(f"/run/user/{VICTIM}").exists():
        return
    (shared,) = meeting.glob("hpc-prefect/**/lock")
    assert stat.S_IMODE(shared.parent.stat().st_mode) == 0o700


def test_a_meeting_place_that_somebody_prepared_overwrites_nothing(machine):
    keys = machine.home(VICTIM) / "authorized_keys"
    keys.write_text("mine")
    os.chown(keys, VICTIM, SHARED)
    runtime = machine.make("runtime", VICTIM, 0o700)
    prepared = machine.make("runtime/hpc-prefect", MALLORY, 0o777)
    (prepared / "lock").symlink_to(keys)
    assert machine.job(XDG_RUNTIME_DIR=str(runtime))["state"] == "succeeded"
    assert keys.read_text() == "mine"
    assert os.listdir(prepared) == ["lock"]


READ = """
import json, sys
from pathlib import Path
import logging
from hpc_prefect.errors import NotOurs
folder = Path(sys.argv[1])
def tried(read):
    try:
        return repr(read())
    except NotOurs as error:
        return str(error)
from hpc_prefect.convergence.checkpoint import Checkpoints
from hpc_prefect.quantum.result_file import read_finished
found = [tried(Checkpoints(folder, logging.getLogger()).load)]
found.append(tried(lambda: read_finished(folder, "digest")))
print(json.dumps(found))
"""


@pytest.mark.parametrize("how", ["of another user", "writable for others"])
def test_neither_pickles_nor_results_of_somebody_elses_are_loaded(machine, how):
    folder = own_folders(machine)
    for name in ("checkpoint", "sampling.json"):
        (folder / name).write_text("{}")
        os.chown(folder / name, MALLORY if how == "of another user" else VICTIM, SHARED)
        (folder / name).chmod(0o666)
    why = f"belongs to uid {MALLORY}" if how == "of another user" else "others may write to it"
    assert [why in said for said in machine.python(READ, folder)] == [True, True]


RENDER = """
import json, sys
from pathlib import Path
from hpc_prefect.job.program_script import secrets_text
from hpc_prefect.job.script import Preamble, render
from hpc_prefect.job.spec import Executable, JobSpec, Resources, Site
work, folder, copy, setup, program, teardown = sys.argv[1:]
spec = JobSpec(name="n", command_name="c", executable=Executable(path="/bin/sh"),
    site=Site(scheduler="local", setup=(setup,), teardown=(teardown,)), resources=Resources(),
    work_dir=work, arguments=("-c", program), secret_names=("TOKEN",))
script = render(spec, folder, Preamble(id_expression='"$JOB_ID"'), "w0rd")
for name, text in (("script.sh", script.outer), ("program.sh", script.inner), ("start", ""),
        ("exit", ""), ("secrets", secrets_text({"TOKEN": "s3cret"}))):
    Path(folder, name).write_text(text)
Path(copy).write_text(script.outer)
print("null")
"""


def exchange(machine: Machine, keys: Path, *names: str) -> None:
    """In the place of the victim's records a tree that looks like them; what it runs is noted."""
    machine.shell(
        f"cd {machine.work}; mv .hpc-prefect .away; mkdir -p {ATTEMPT}; cd {ATTEMPT};"
        f" echo 'id -u >> {machine.folder}/runs' > program.sh; cp program.sh script.sh;"
        " cp program.sh secrets; touch start exit; chmod -R a+rwX ."
        f"; for each in stdout stderr duplicates {' '.join(names)}; do ln -s {keys} $each; done"
    )


@pytest.mark.parametrize("when", ["queued", "set-up", "program", "tear-down"])
@pytest.mark.parametrize("shell", [["-p"], [], ["-s"]], ids=["clean", "not clean", "its input"])
def test_a_job_whose_folder_is_exchanged_runs_and_writes_nothing_of_it(machine, when, shell):
    """The scheduler has a copy of the script, and starts it hours later."""
    folder, home = own_folders(machine), machine.home(VICTIM)
    machine.program()
    keys = home / "authorized_keys"
    keys.write_text("mine")
    os.chown(keys, VICTIM, SHARED)
    wait = f"touch {home}/{{0}}; until [ -e {home}/{{0}}.done ]; do sleep 0.05; done"
    lines = [wait.format(name) if when == name else ":" for name in ("set-up", "tear-down")]
    body = f"{wait.format('program') if when == 'program' else ':'}; echo $TOKEN; exit 9"
    words = (machine.work, folder, home / "copy", lines[0], body, lines[1])
    machine.python(RENDER, *words)
    if when == "queued":
        exchange(machine, keys)
    argv = ["/bin/bash", *shell, *([] if shell == ["-s"] else [home / "copy"])]
    if shell == ["-s"]:
        argv = ["/bin/sh", "-c", f"exec /bin/bash < {home}/copy"]
    with machine.begin(*argv, JOB_ID="1.host") as job:
        while when != "queued" and not (home / when).exists():
            assert job.poll() is None, job.communicate()
            time.sleep(0.02)
        if when != "queued":
            exchange(machine, keys, "phase")
            (home / f"{when}.done").touch()
        out, err = job.communicate(timeout=240)
    assert machine.runs() == [], err
    assert keys.read_text() == "mine"
    assert job.returncode == (118 if when == "queued" else 9), err
    away = machine.work / ".away" / "campaign/ab/k-1"
    assert "s3cret" not in out + err
    if when == "queued":
        assert (away / "exit").read_text() == ""
    else:
        assert '"phase":"program"' in (away / "exit").read_text()
        assert (away / "stdout").read_text() == "s3cret\n"
        assert not (away / "secrets").exists()
