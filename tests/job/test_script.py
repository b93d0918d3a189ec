"""Rendered scripts, run by the real bash of this machine."""

from __future__ import annotations

import dataclasses
import os
import resource
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hpc_prefect.job.folder import read_starts
from hpc_prefect.job.program_script import quote, secrets_text
from hpc_prefect.job.script import Preamble
from hpc_prefect.job.spec import Resources
from hpc_prefect.ledger.job_folder import JobFolder
from hpc_prefect.transports.local import LocalTransport

from .bench import OUTER, PREAMBLE, Bench, read_exits

#: Writes exactly what the kernel gave it: its words, a mark, its environment.
DUMPER = f"""#!{sys.executable} -IS
words = open("/proc/self/cmdline", "rb").read().split(b"\\0", 3)[3]
open(1, "wb").write(words + b"\\0=====\\0" + open("/proc/self/environ", "rb").read())
"""


# --- byte for byte

NASTY = st.sampled_from(
    [
        *("$(touch CANARY)", "`touch CANARY`", "; touch CANARY;", ">CANARY", "$HOME", "${JOB_ID}"),
        *("'", "'\\''", '"', "\\", "\n", "\r", "\t", " ", "-n", "--", "*", "?", "~", "!", "#"),
        *("&", "|", "=", "%s", "\x01", "\x7f", "\x1b", "é", "日本", "{ranks}", "{command}"),
        *("\udcff", "\udc80", "\udce3\udc81"),  # bytes that are no text
    ]
)
TEXT = st.one_of(
    st.lists(NASTY, max_size=6).map("".join),
    st.binary(max_size=12).map(
        lambda data: data.replace(b"\0", b"").decode("utf-8", "surrogateescape")
    ),
)
NAME = TEXT.map(lambda text: text.replace("/", "_")).filter(lambda text: text.strip(".") != "")


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    place=NAME,
    program=NAME,
    arguments=st.lists(TEXT, max_size=5),
    environment=st.dictionaries(
        st.from_regex(r"V_[A-Za-z0-9_]{0,4}", fullmatch=True), TEXT, max_size=4
    ),
    secret=TEXT,
    prefix=TEXT,
    launcher=st.sampled_from([None, "env X=1", "env X=1 {command}"]),
)
def test_every_byte_of_arguments_paths_and_environment_arrives_and_none_is_run(
    place: str,
    program: str,
    arguments: list[str],
    environment: dict[str, str],
    secret: str,
    prefix: str,
    launcher: str | None,
) -> None:
    with tempfile.TemporaryDirectory() as root:
        bench = Bench(Path(root), place)
        path = bench.work_dir / program
        path.write_text(DUMPER)
        path.chmod(0o700)
        # `env` would take a word with "=" for a variable, wherever it is run.
        mpi = launcher is not None and "=" not in str(path)
        (bench.folder / "secrets").write_bytes(
            secrets_text({"W_SECRET": secret}).encode("utf-8", "surrogateescape")
        )
        text = bench.write(
            str(path),
            *arguments,
            environment=environment,
            exe_path_prefixes={"W_PREFIX": (prefix, "/x")},
            secret_names=("W_SECRET",),
            site_launcher=launcher or "",
            resources=Resources(launch="mpi" if mpi else "single"),
        )
        assert bench.run() == 0, bench.said
        words, _, environ = bench.read().partition(b"\0=====\0")
        found = dict(entry.partition(b"=")[::2] for entry in environ.split(b"\0") if entry)
        assert words.split(b"\0")[:-1] == [os.fsencode(word) for word in arguments]
        for name, value in {**environment, "W_SECRET": secret, "W_PREFIX": f"{prefix}:/x"}.items():
            assert found[os.fsencode(name)] == os.fsencode(value)
        assert found[b"PWD"] == os.fsencode(str(bench.work_dir))
        assert not list(Path(root).rglob("CANARY"))
        assert bench.exit.clean
        assert "W_SECRET" not in text


@settings(max_examples=20, deadline=None)
@given(st.lists(TEXT, max_size=40))
def test_a_quoted_text_is_one_word_of_any_posix_shell(texts: list[str]) -> None:
    line = "printf '%s\\0' " + " ".join(map(quote, texts)) if texts else ":"
    for shell in ("bash", "sh"):
        got = subprocess.run(
            [shell, "-c", os.fsencode(line)], capture_output=True, check=True
        ).stdout
        assert got.split(b"\0")[:-1] == [os.fsencode(text) for text in texts]


@pytest.mark.parametrize("name", ["test", "echo", "printf", "true"])
def test_a_bare_name_is_the_program_on_path_and_not_the_shells_own(bench: Bench, name: str) -> None:
    program = bench.work_dir / name
    program.write_text("#!/bin/sh\nprintf 'mine\\n'; exit 5\n")
    program.chmod(0o700)
    bench.write(name, exe_path_prefixes={"PATH": (str(bench.work_dir),)})
    assert bench.run() == 5
    assert bench.read() == b"mine\n"


def test_the_program_gets_its_signals_as_if_a_person_had_started_it(bench: Bench) -> None:
    bench.shell("grep SigIgn /proc/self/status")
    assert int(bench.read().split()[1], 16) & (1 << 1 | 1 << 2 | 1 << 14) == 0  # INT, QUIT, TERM


def test_the_program_reads_nothing_and_runs_in_the_work_dir(bench: Bench) -> None:
    assert bench.shell("pwd; cat; echo err >&2", site_setup=("cd /",)) == 0
    assert bench.read() == f"{bench.work_dir}\n".encode()
    assert bench.read("stderr") == b"err\n"


# --- the start guard


def test_the_same_id_passes_again_and_appends_to_the_records_and_the_output(bench: Bench) -> None:
    bench.write("/bin/sh", "-c", "echo hello; exit 3")
    assert [bench.run("7.a"), bench.run("7.a")] == [3, 3]
    starts, exits = read_starts(bench.read("start")), read_exits(bench.read("exit"))
    assert [start.id for start in starts] == ["7.a", "7.a"]
    assert [start.token for start in starts] == [end.token for end in exits]
    assert len({start.token for start in starts}) == 2
    assert bench.read() == b"hello\nhello\n"
    assert not (bench.folder / "duplicates").exists()


def test_a_start_is_recorded_behind_the_cut_off_record_of_an_earlier_one(bench: Bench) -> None:
    bench.write("/bin/echo", "ran")
    (bench.folder / "start").write_text('{"token":"1.2","id":"7')
    assert bench.run("7.a") == 0
    assert [start.id for start in read_starts(bench.read("start"))] == ["7.a"]


@pytest.mark.parametrize(
    ("counts", "codes"),
    [
        ([0, 0, 0], [3, 117, 117]),
        ([0, 1, 1], [3, 3, 117]),
        ([1, 1, 2], [3, 117, 3]),  # its first start was requeued before the script began
        ([], [3, 3, 3]),  # a scheduler without a count
    ],
)
def test_a_start_that_the_scheduler_has_not_counted_does_not_start_the_program(
    bench: Bench, counts: list[int], codes: list[int]
) -> None:
    """Twice under one id: the second is a requeue only where the scheduler says so."""
    bench.write("/bin/sh", "-c", "echo ran; exit 3", preamble=counted(bench, counts))
    assert [bench.run() for _ in codes] == codes
    assert bench.read().split() == [b"ran"] * codes.count(3)


def test_a_guard_without_a_record_is_a_start(bench: Bench) -> None:
    """That is about to write its record, or whose node was lost before."""
    bench.write("/bin/sh", "-c", "echo ran; exit 3", preamble=counted(bench, [0, 1, 1]))
    (bench.folder / "guard").symlink_to("1.host")
    assert [bench.run("1.host") for _ in range(3)] == [117, 3, 117]


def counted(bench: Bench, counts: list[int]) -> Preamble:
    """A scheduler that gives these numbers of restarts, one for each start."""
    if not counts:
        return PREAMBLE
    (bench.work_dir / "counts").write_text("".join(f"{count}\n" for count in counts))
    sed = f"cd {bench.work_dir} && command -p sed"
    one = f"{sed} -n 1p counts && {sed} -i 1d counts"
    return dataclasses.replace(PREAMBLE, restarts=f'"$({one})"')


def test_a_program_that_succeeded_is_not_started_again(bench: Bench) -> None:
    """Its caller knows of the success by then; a scheduler that forgot the end may requeue it."""
    bench.write("/bin/echo", "ran")
    assert [bench.run(), bench.run()] == [0, 0]
    assert "succeeded in an earlier start of this job" in bench.said
    assert bench.read() == b"ran\n"
    assert len(read_starts(bench.read("start"))) == len(read_exits(bench.read("exit"))) == 1


@pytest.mark.parametrize("counts", [[0, 0], [0, 1, 1], [0, 1, 1, 2], []])
def test_where_the_scheduler_may_requeue_a_job_each_start_that_it_counts_runs_the_program(
    bench: Bench, counts: list[int]
) -> None:
    """Its caller was not told of a success, before the scheduler itself said so."""
    starts = counts or [0, 0, 0]
    preamble = counted(bench, counts)
    bench.write("/bin/echo", "ran", preamble=preamble, site_options={"requeue": "yes"})
    assert [bench.run() for _ in starts] == [0 for _ in starts]
    assert bench.read().count(b"ran") == (len(set(counts)) if counts else len(starts))


def test_what_has_been_told_as_a_success_is_not_requeued(bench: Bench) -> None:
    bench.write("/bin/echo", "ran", site_options={"requeue": "yes"})
    assert bench.run() == 0
    (bench.folder / "guard").unlink()
    (bench.folder / "guard").symlink_to("closed")
    assert bench.run() == 117
    assert bench.read() == b"ran\n"


def test_a_program_that_ended_with_0_after_a_signal_starts_again(bench: Bench) -> None:
    """That was no success by the record alone: it may have been requeued by that signal."""
    bench.write("/bin/sh", "-c", f"echo ran; kill -TERM {OUTER}")
    assert [bench.run(), bench.run()] == [0, 0]
    assert bench.read() == b"ran\nran\n"


def test_another_id_ends_with_117_is_noted_and_does_not_start_the_program(bench: Bench) -> None:
    bench.write("/bin/echo", "hello")
    assert [bench.run("7.a"), bench.run("8.a"), bench.run("9.a")] == [0, 117, 117]
    assert bench.read("duplicates") == b"8.a\n9.a\n"
    assert bench.read() == b"hello\n"
    assert len(read_starts(bench.read("start"))) == len(read_exits(bench.read("exit"))) == 1
    assert "(its link guard leads to 7.a); the program was not started" in bench.said


def test_a_script_without_an_id_is_guarded_by_nothing_and_so_does_not_start(bench: Bench) -> None:
    bench.write("/bin/echo", "hello")
    assert bench.run("") == 118
    assert not (bench.folder / "stdout").exists()


def test_a_job_folder_that_the_node_cannot_write_is_told_apart(bench: Bench) -> None:
    bench.write("/bin/echo", "hello")
    there, copy = bench.folder, bench.work_dir / "copy.sh"
    copy.write_bytes(bench.script.read_bytes())  # as a scheduler keeps one
    there.rename(there.with_name("elsewhere"))
    assert bench.run("1.host", "bash", "-p", script=copy) == 118
    assert f"{bench.folder} cannot be entered on this node" in bench.said


def test_a_program_whose_start_cannot_be_recorded_is_not_started(bench: Bench) -> None:
    bench.write("/bin/echo", "hello")
    for size in (0, 5, 20):  # of the first file, the second, and amid its line
        assert bench.run(preexec_fn=lambda size=size: _files_of(size)) == 118
        assert f"{bench.folder} cannot take the record of this start" in bench.said
        assert not (bench.folder / "stdout").exists()


def _files_of(size: int) -> None:
    """No file may grow beyond it, and whoever tries is told, as on a full disk."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def test_of_twenty_copies_started_at_once_exactly_one_runs_the_program(bench: Bench) -> None:
    bench.write("/bin/echo", "hello")
    gate, codes = threading.Barrier(20), []

    def one(number: int) -> None:
        gate.wait()
        with bench.start(f"{number}.host") as process:
            process.communicate()
            codes.append(process.returncode)

    threads = [threading.Thread(target=one, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(codes) == [0] + [117] * 19
    assert bench.read() == b"hello\n"
    winner = os.readlink(bench.folder / "guard")
    turned_away = bench.read("duplicates").decode().split()
    assert sorted([winner, *turned_away]) == sorted(f"{number}.host" for number in range(20))


# --- the records


@pytest.mark.parametrize("code", [0, 3, 137, 255])
def test_the_exit_code_is_recorded_and_is_the_scripts_own(bench: Bench, code: int) -> None:
    assert bench.shell(f"exit {code}") == code
    assert (bench.exit.code, bench.exit.phase, bench.exit.signals) == (code, "program", ())
    assert bench.exit.clean is (code == 0)


def test_a_program_that_was_killed_is_recorded_as_the_shell_tells_it(bench: Bench) -> None:
    assert bench.shell("kill -KILL $$") == 137
    assert (bench.exit.code, bench.exit.signals) == (137, ())


def test_the_records_tell_where_and_when_the_script_ran(bench: Bench) -> None:
    bench.shell("exit 0", environment={"HOSTNAME": "login"})
    (start,) = read_starts(bench.read("start"))
    assert start.host == os.uname().nodename
    assert start.boot == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert bench.exit.time >= start.time > 1e9


def test_the_cpu_time_of_the_program_is_recorded(bench: Bench) -> None:
    bench.shell("i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done")
    assert bench.exit.cpu_seconds > 0


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"site_modules": ("no-such-module",)}, 127),
        ({"exe_modules": ("x",), "site_setup": ("module() { return 4; }",)}, 4),
        ({"site_setup": ("exit 5",)}, 5),
        ({"exe_setup": ("(exit 6) || exit",)}, 6),
        ({"site_setup": ("set -e", "false")}, 1),
        ({"site_setup": ("set -u", ": $no_such_variable")}, 1),
        ({"secret_names": ("GONE",)}, 1),
    ],
)
def test_a_set_up_that_ends_the_script_is_recorded_as_such(
    bench: Bench, changes: dict[str, Any], code: int
) -> None:
    bench.write("/bin/echo", "hello", **changes)
    assert bench.run() == code
    assert (bench.exit.phase, bench.exit.code, bench.exit.clean) == ("setup", code, False)
    assert not (bench.folder / "stdout").exists()


def test_a_work_dir_that_is_gone_ends_the_script_before_the_program(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.folder = tmp_path / "elsewhere"
    bench.folder.mkdir()
    bench.work_dir = tmp_path / "gone"
    bench.write("/bin/echo", "hello")
    assert bench.run() == 1
    assert bench.exit.phase == "setup"


@pytest.mark.parametrize("program", ["/no/such/program", "no-such-program", "/etc/passwd", "/tmp"])
def test_a_missing_executable_is_recorded_with_the_loaded_modules(
    bench: Bench, program: str
) -> None:
    bench.write(program, site_setup=("LOADEDMODULES='gcc/12.1:\"mpi\\/4_x+y'",))
    assert bench.run() == 127
    assert (bench.exit.code, bench.exit.phase) == (127, "missing")
    assert bench.exit.detail == "gcc/12.1:mpi/4_x+y"


def test_a_missing_executable_is_recorded_where_there_are_no_modules_at_all(bench: Bench) -> None:
    bench.write("no-such-program", site_setup=("set -eu",))
    assert bench.run() == 127
    assert (bench.exit.code, bench.exit.phase, bench.exit.detail) == (127, "missing", "")


@pytest.mark.parametrize("set_up", ["", "set -euC; ", "printf() { exit 9; }; test() { exit 9; }; "])
def test_the_loaded_modules_are_kept_byte_for_byte(bench: Bench, set_up: str) -> None:
    loaded = b"gcc/12.1:mpi/4 '\"$(exit 8)`\\n%s\xff\n:last"
    quoted = os.fsdecode(loaded).replace("'", "'\\''")
    bench.write("/bin/echo", "hello", site_setup=(f"{set_up}LOADEDMODULES='{quoted}'",))
    assert bench.run() == 0
    assert bench.read("modules") == loaded
    assert bench.run("1.host") == 0
    assert bench.read("modules") == loaded
    assert JobFolder(LocalTransport(), str(bench.folder)).loaded_modules()[0] == "gcc/12.1"


def test_where_there_are_no_modules_no_file_is_made(bench: Bench) -> None:
    bench.write("/bin/echo", "hello", site_setup=("set -u",))
    assert bench.run() == 0
    assert not (bench.folder / "modules").exists()


@pytest.mark.parametrize("there", ["link", "fifo", "folder", "nowhere"])
def test_what_is_in_the_place_of_the_modules_file_is_left_alone(bench: Bench, there: str) -> None:
    file, other = bench.folder / "modules", bench.work_dir / "other"
    other.write_text("precious")
    make: dict[str, Callable[[], object]] = {
        "link": lambda: file.symlink_to(other),
        "nowhere": lambda: file.symlink_to(bench.work_dir / "new"),
        "fifo": lambda: os.mkfifo(file),
        "folder": file.mkdir,
    }
    make[there]()
    bench.write("/bin/echo", "hello", site_setup=("set -e", "LOADEDMODULES=gcc"))
    assert (bench.run(), bench.read()) == (0, b"hello\n")
    assert (other.read_text(), (bench.work_dir / "new").exists()) == ("precious", False)
    assert JobFolder(LocalTransport(), str(bench.folder)).loaded_modules() == []


def test_a_signal_to_the_script_alone_is_noted_and_the_program_ends_with_its_own_code(
    bench: Bench,
) -> None:
    fifo = bench.work_dir / "fifo"
    os.mkfifo(fifo)
    bench.write("/bin/sh", "-c", f"echo ready > '{fifo}'; read line < '{fifo}'; exit 6")
    process = bench.start()
    with process:
        assert fifo.read_text() == "ready\n"
        for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGXCPU):
            process.send_signal(number)
        fifo.write_text("go\n")
        process.communicate()
    assert process.returncode == 6
    assert (bench.exit.code, sorted(bench.exit.signals)) == (6, ["TERM", "USR1", "XCPU"])


@pytest.mark.parametrize("code", [0, 7])
@pytest.mark.parametrize("setup", [(), ("set -e",), ("set -o posix",)], ids=str)
def test_a_signal_in_the_moment_of_the_programs_end_loses_no_exit_code(
    bench: Bench, code: int, setup: tuple[str, ...]
) -> None:
    bench.write("/bin/sh", "-c", f"kill -TERM {OUTER}; exit {code}", site_setup=setup)
    for _ in range(15):
        assert bench.run() == code
        assert (bench.exit.code, bench.exit.signals) == (code, ("TERM",))


@pytest.mark.parametrize("code", [0, 7])
@pytest.mark.parametrize("teardown", ["exit 0", "exit 9", "false", "set -e; false", "true"])
def test_the_tear_down_is_run_and_changes_nothing_of_the_exit_code(
    bench: Bench, code: int, teardown: str
) -> None:
    assert bench.shell(f"exit {code}", site_teardown=("touch torn-down", teardown)) == code
    assert (bench.exit.code, bench.exit.phase) == (code, "program")
    assert (bench.work_dir / "torn-down").exists()


def test_the_records_are_sound_in_a_place_that_writes_a_decimal_comma(bench: Bench) -> None:
    bench.write()
    text = bench.script.read_text()
    bench.script.write_text(text.replace("${EPOCHREALTIME:-", "${THERE:-"))
    assert bench.run(env={"THERE": "1700000000,25"}) == 0
    assert bench.exit.time == 1700000000.25


@pytest.mark.parametrize(
    "line", ["set -euo pipefail", "IFS=0123456789", "set -o noclobber", "set -f"]
)
def test_the_shell_options_of_a_set_up_line_do_not_spoil_the_records(
    bench: Bench, line: str
) -> None:
    assert bench.shell("exit 3", site_setup=(line,), site_teardown=("touch torn-down",)) == 3
    assert (bench.exit.code, bench.exit.phase) == (3, "program")
    assert (bench.work_dir / "torn-down").exists()


# --- environment, secrets, launcher


def test_the_environments_win_in_the_documented_order(bench: Bench) -> None:
    (bench.folder / "secrets").write_text(secrets_text({"E": "secret"}))
    names = "ABCDE"
    bench.shell(
        'echo "$A $B $C $D $E $OMP_NUM_THREADS"',
        site_setup=tuple(f"export {name}=setup" for name in names),
        site_environment=dict.fromkeys(names[1:], "site"),
        exe_environment=dict.fromkeys(names[2:], "executable"),
        environment=dict.fromkeys(names[3:], "profile"),
        secret_names=("E",),
        resources=Resources(threads_per_rank=3),
    )
    assert bench.read() == b"setup site executable profile secret 3\n"


def test_the_threads_of_the_profile_give_way_to_an_explicit_setting(bench: Bench) -> None:
    bench.shell("echo $OMP_NUM_THREADS", environment={"OMP_NUM_THREADS": "9"})
    assert bench.read() == b"9\n"


def test_path_prefixes_come_first_and_leave_no_empty_entry(bench: Bench) -> None:
    bench.shell(
        'echo "$P" "$Q"',
        site_environment={"P": "/old"},
        exe_path_prefixes={"P": ("/a b", "/c"), "Q": ("/d",)},
    )
    assert bench.read() == b"/a b:/c:/old /d\n"


def test_a_secret_is_read_removed_and_nowhere_in_the_script_even_without_path(bench: Bench) -> None:
    secrets = bench.folder / "secrets"
    secrets.write_text(secrets_text({"TOKEN": "s3cr3t'"}))
    text = bench.write(
        "/bin/sh", "-c", 'echo "$TOKEN"', secret_names=("TOKEN",), environment={"PATH": "/none"}
    )
    assert bench.run() == 0
    assert bench.read() == b"s3cr3t'\n"
    assert not secrets.exists()
    assert "s3cr3t" not in text
    assert "s3cr3t" not in bench.said


def test_a_login_shell_and_the_directives_stand_at_the_top(bench: Bench) -> None:
    for login, line in ((False, "  exec /bin/bash "), (True, "  exec /bin/bash -l ")):
        lines = bench.write(site_login_shell=login).splitlines()
        assert lines[:2] == ["#!/bin/bash -p", "#PBS -q debug"]
        assert any(each.startswith(f"{line}/proc/self/fd/") for each in lines)


@pytest.mark.parametrize("template", ["run -n {ranks}", "run -n {ranks} {command}"])
def test_the_launcher_line_is_the_sites_own_shell_text(bench: Bench, template: str) -> None:
    bench.write(
        "/bin/echo",
        "a b",
        site_setup=('run() { echo "launched $2"; shift 2; "$@"; }',),
        site_launcher=template,
        resources=Resources(launch="mpi", ranks_per_node=2),
    )
    assert bench.run() == 0
    assert bench.read() == b"launched 2\na b\n"


def test_a_launcher_is_for_mpi_only(bench: Bench) -> None:
    bench.write("/bin/echo", "x", site_launcher="no-such-launcher {command}")
    assert bench.run() == 0
    assert bench.read() == b"x\n"


def test_a_variable_of_the_schedulers_that_set_up_has_set_does_not_reach_the_program(
    bench: Bench,
) -> None:
    preamble = dataclasses.replace(PREAMBLE, unset=("HIDES", "NEVER_SET"))
    setup = ("export HIDES=all KEPT=1",)
    assert bench.shell('echo "${HIDES-gone} $KEPT"', preamble=preamble, site_setup=setup) == 0
    assert bench.read() == b"gone 1\n"
