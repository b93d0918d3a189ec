"""Set-ups, profiles and programs that get in the way of the truth: what they may not change."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess

import pytest

from hpc_prefect.job.folder import read_starts
from hpc_prefect.job.program_script import secrets_text
from hpc_prefect.job.spec import Resources

from .bench import OUTER, WORD, Bench, read_exits

#: Stands for the file in which the inner script tells how far it came.
PHASE = "PHASE"
SECRET = "s3cr3t-that-nobody-may-see"


def login(bench: Bench, profile: str) -> dict[str, str]:
    """The environment of a user whose login profile this is."""
    home = bench.work_dir / "home"
    home.mkdir(exist_ok=True)
    (home / ".bash_profile").write_text(profile + "\n")
    return {"HOME": str(home)}


def files(bench: Bench) -> str:
    """Everything that is left in the job folder, and what the script said."""
    texts = [p.read_bytes().decode(errors="replace") for p in bench.folder.iterdir() if p.is_file()]
    return "\n".join([bench.said, *texts])


# --- set-ups that keep the program from beginning: never a success, never the program's failure


@pytest.mark.parametrize(
    "line",
    [
        "exit 0",
        "exit",
        "exec true",
        "exec /bin/sh",
        "set -n",
        "trap 'exit 0' EXIT; exit 7",
        "kill -9 $$",
        "kill $$; exit 0",
        "exit() { :; }; builtin() { :; }; readonly -f builtin",
        "ulimit -f 0",
        f"rm {PHASE}; exit 3",
        f"rm {PHASE}; mkfifo {PHASE}",
        "exec 1<&- 2<&-; exit 0",
    ],
)
def test_a_set_up_that_ends_its_shell_is_no_success_and_runs_no_program(
    bench: Bench, line: str
) -> None:
    bench.write("/bin/echo", "ran", site_setup=(line.replace(PHASE, f"'{bench.folder}/phase'"),))
    assert bench.run() != 0
    assert bench.exit.phase == ("untold" if PHASE in line else "setup")
    assert not bench.exit.clean
    assert not (bench.folder / "stdout").exists()


@pytest.mark.parametrize(
    "profile",
    ["exit 0", "exit 3", "exec bash", "exec sh -c 'exit 0'", "kill -9 $$", "set -e; false"],
)
def test_a_login_profile_that_ends_its_shell_is_recorded_as_a_set_up_that_failed(
    bench: Bench, profile: str
) -> None:
    bench.write("/bin/echo", "ran", site_login_shell=True)
    assert bench.run(env=login(bench, profile)) != 0
    assert (bench.exit.phase, bench.exit.clean) == ("setup", False)
    assert not (bench.folder / "stdout").exists()


@pytest.mark.parametrize("name", ["module", "exit", "builtin"])
def test_a_module_that_fails_ends_the_job_whatever_functions_there_are(
    bench: Bench, name: str
) -> None:
    profile = f"module() {{ return 4; }}; {name if name != 'module' else 'other'}() {{ :; }}"
    bench.write("/bin/echo", "ran", site_login_shell=True, site_modules=("gcc",))
    assert bench.run(env=login(bench, profile)) == 4
    assert (bench.exit.phase, bench.exit.code) == ("setup", 4)


# --- what a user's shell may hold without changing what is decided

WORDS = (
    *("cd", "readlink", "ln", "exit", "exec", "printf", "echo", "read", "trap", "unset", "export"),
    *(
        "builtin",
        "command",
        "type",
        "set",
        "local",
        "rm",
        "date",
        "eval",
        "return",
        "shift",
        "test",
    ),
    *("[", ":", ".", "source", "true", "false", "declare", "kill", "wait"),
)


@pytest.mark.parametrize("word", WORDS)
@pytest.mark.parametrize("code", [0, 3])
def test_an_exported_function_of_any_name_changes_neither_place_nor_code(
    bench: Bench, word: str, code: int
) -> None:
    function = {f"BASH_FUNC_{word}%%": '() {  echo "mine" >&2; return 0\n}'}
    home = bench.work_dir.parent
    bench.write("/bin/sh", "-c", f"pwd; exit {code}", site_setup=(f"cd {home}",))
    assert bench.run(env=function) == code
    assert (bench.exit.phase, bench.exit.code) == ("program", code)
    assert bench.read() == f"{bench.work_dir}\n".encode()


@pytest.mark.parametrize(
    "line",
    [
        *(
            f"{word}() {{ echo mine >&2; return 0; }}"
            for word in WORDS
            if word not in ("[", ":", ".")
        ),
        "shopt -s expand_aliases; alias unset=: builtin=: exit=: cd=: export=: type=: exec=:",
        "trap 'echo saving' TERM",
        "trap 'rm -rf /tmp/no-such-folder' EXIT",
        "trap 'exit 0' EXIT",
        "set -e; trap false EXIT",
        "trap : DEBUG; set -T",
        "trap 'false' ERR; set -E",
        *("set -eu", "set -x", "set -v", "set -a", "set -f", "set -C", "set -k", "set -o posix"),
        *(
            "return",
            "return 0",
            "shift 5",
            "set -- -n a b",
            "exec 3>&- 0<&-",
            "exec >/dev/null 2>&1",
        ),
        *("exec 1>&- 2>&-", "umask 777", "IFS=0123456789", "unset PATH", "cd /", "PATH=/none"),
        *("_hp_dir=/ _hp_id=x _hp_token=y _hp_code=0", "BASH_ENV=/none", "FUNCNEST=1", "TMOUT=1"),
        *(
            "LC_ALL=de_DE.UTF-8",
            "readonly _hp_dir=/",
            "export POSIXLY_CORRECT=1",
            "shopt -s extdebug",
        ),
        *("readonly _hp_code=0", "declare -n _hp_code=foo; declare -r foo=0"),
        *("trap 'let _hp_code=0' DEBUG", "trap '_hp_code=0' ERR; set -E"),
        "shopt -s extdebug; trap '[[ $BASH_COMMAND != *exec* ]]' DEBUG",
        "PS4='$(touch /tmp/no) '; set -x",
        "ulimit -n 10",
        "disown -a; set -m",
        "function module { exit 3; }",
    ],
)
@pytest.mark.parametrize("code", [0, 3])
def test_no_set_up_line_changes_place_or_code(bench: Bench, line: str, code: int) -> None:
    assert bench.shell(f"pwd; exit {code}", site_setup=(line,)) == code
    assert (bench.exit.phase, bench.exit.code, bench.exit.clean) == ("program", code, code == 0)
    assert bench.read() == f"{bench.work_dir}\n".encode()


@pytest.mark.parametrize(
    "environment",
    [
        {"BASH_ENV": "{trap}"},
        {"ENV": "{trap}"},
        {"SHELLOPTS": "errexit:xtrace:posix"},
        {"BASHOPTS": "expand_aliases:extdebug"},
        {"POSIXLY_CORRECT": "1"},
        {"FUNCNEST": "1"},
        {"CDPATH": "/"},
        {"PATH": "/none"},
        {"shell": "/bin/csh"},
        {"BASH_VERSION": "3"},
        {"TMOUT": "1"},
        {"IFS": "0123456789"},
        {"_hp_dir": "/", "_hp_id": "x", "_hp_signals": "TERM", "_hp_token": "y"},
    ],
    ids=str,
)
@pytest.mark.parametrize("shell", [(), ("/bin/bash",), ("/bin/bash", "-l"), ("/bin/sh",)], ids=str)
def test_the_outer_shell_is_clean_whatever_it_is_given(
    bench: Bench, environment: dict[str, str], shell: tuple[str, ...]
) -> None:
    trap = bench.work_dir / "trap"
    trap.write_text("trap 'exit 0' EXIT; cd() { :; }\n")
    given = {name: value.format(trap=trap) for name, value in environment.items()}
    bench.write("/bin/sh", "-c", "pwd; exit 3")
    assert bench.run("1.host", *shell, env=given) == 3
    assert (bench.exit.phase, bench.exit.code, bench.exit.signals) == ("program", 3, ())
    assert bench.read() == f"{bench.work_dir}\n".encode()
    assert len(read_starts(bench.read("start"))) == 1


def test_a_function_named_as_a_special_builtin_does_not_end_the_inner_shell(bench: Bench) -> None:
    bench.write("/bin/sh", "-c", "exit 3")
    function = {"BASH_FUNC_exec%%": "() {  echo mine\n}"}
    for posix in ({"POSIXLY_CORRECT": "1"}, {"SHELLOPTS": "posix"}):
        assert bench.run(env=function | posix) == 3
        assert bench.exit.phase == "program"


@pytest.mark.parametrize("name", ["dash", "zsh", "ksh93", "mksh", "busybox", "tcsh", "csh"])
@pytest.mark.parametrize("how", ["a file", "its input", "a line"])
def test_any_login_shell_may_read_the_script(bench: Bench, name: str, how: str) -> None:
    """PBS gives it to the user's own, as a line of input; others as a file or as the input."""
    if (path := shutil.which(name)) is None:
        pytest.skip(f"there is no {name} here")
    shell = [path, "sh"] if name == "busybox" else [path]
    bench.write("/bin/sh", "-c", "cat; exit 3")
    given = {"a file": b"", "its input": bench.script.read_bytes()}
    words = [str(bench.script)] if how == "a file" else []
    done = subprocess.run(
        [*shell, *words],
        input=given.get(how, f"{bench.script}\n".encode()),
        env={"PATH": os.environ["PATH"], "JOB_ID": "1.host", "HOME": str(bench.work_dir)},
        capture_output=True,
        timeout=60,
    )
    assert done.returncode == 3, done
    assert (bench.exit.phase, bench.exit.code) == ("program", 3)
    assert bench.read() == b""
    assert len(read_starts(bench.read("start"))) == 1


def test_the_functions_of_a_login_shell_still_reach_the_set_up(bench: Bench) -> None:
    """Sites define `module` as an exported function, or in BASH_ENV."""
    bench.write("/bin/sh", "-c", 'echo "$LOADED"', site_modules=("gcc",))
    function = {"BASH_FUNC_module%%": '() {  export LOADED="$2"\n}'}
    assert bench.run(env=function) == 0
    assert bench.read() == b"gcc\n"


# --- signals


def test_a_trap_of_the_set_up_does_not_hide_a_signal_from_the_record(bench: Bench) -> None:
    program = f"trap 'exit 0' TERM; kill -TERM {OUTER} $PPID $$"
    assert bench.shell(program, site_setup=("trap 'echo saving' TERM",)) == 0
    assert (bench.exit.code, bench.exit.signals, bench.exit.clean) == (0, ("TERM",), False)


def test_a_signal_that_comes_when_the_program_has_ended_is_in_its_record(bench: Bench) -> None:
    """A program that ended 0 because it was told to is no success."""
    bench.write("/bin/true")
    script = bench.script.read_text()
    reads_phase = "  read -r usage < "
    assert script.count(reads_phase) == 1
    bench.script.write_text(script.replace(reads_phase, f'  kill -TERM "$$"\n{reads_phase}'))
    assert bench.run() == 0
    assert (bench.exit.code, bench.exit.signals, bench.exit.clean) == (0, ("TERM",), False)


def test_what_a_program_does_after_a_signal_to_all_is_waited_for(bench: Bench) -> None:
    fifo = bench.work_dir / "fifo"
    os.mkfifo(fifo)
    bench.write("/bin/sh", "-c", f"trap 'sleep 0.3; exit 5' TERM; echo > '{fifo}'; sleep 60 & wait")
    with bench.start(start_new_session=True) as process:
        fifo.read_text()
        os.killpg(process.pid, signal.SIGTERM)
        process.communicate()
    assert process.returncode == 5
    assert (bench.exit.code, bench.exit.signals) == (5, ("TERM",))


def test_a_program_that_kills_the_inner_shell_failed(bench: Bench) -> None:
    assert bench.shell("kill -9 $PPID; exit 0") == 137
    assert (bench.exit.phase, bench.exit.code) == ("program", 137)


# --- launchers


@pytest.mark.parametrize(
    "launcher", ["exec", "exit 0;", "trap 'exit 0' EXIT; : ${unset?};", "set -n;"]
)
def test_a_launcher_that_ends_the_shell_is_no_success(bench: Bench, launcher: str) -> None:
    bench.write(
        "/bin/true", site_launcher=launcher, resources=Resources(launch="mpi", ranks_per_node=2)
    )
    assert bench.run() != 0
    assert (bench.exit.phase, bench.exit.clean) == ("untold", False)


def test_a_launcher_that_ends_the_shell_keeps_the_code_of_a_failure(bench: Bench) -> None:
    bench.write("/bin/false", site_launcher="exec", resources=Resources(launch="mpi"))
    assert bench.run() == 1
    assert (bench.exit.phase, bench.exit.code) == ("program", 1)


@pytest.mark.parametrize(
    ("launcher", "code"),
    [
        *(("env {command} | cat", 9), ("yes | {command}", 9), ("cd / && {command}", 9)),
        *(("( {command} )", 9), ("time {command}", 9), ("{command} 2>&1 | tee log", 9)),
        ("no-such-launcher {command} | cat", 127),
    ],
)
def test_a_program_that_fails_under_a_launcher_of_several_commands_failed(
    bench: Bench, launcher: str, code: int
) -> None:
    mpi = Resources(launch="mpi")
    bench.write("/bin/sh", "-c", "exit 9", site_launcher=launcher, resources=mpi)
    assert bench.run() == code
    assert (bench.exit.phase, bench.exit.code) == ("program", code)


# --- the records


@pytest.mark.parametrize(
    "forged",
    [
        "printf 'code 0\\ncode 0' >> PHASE; exit 9",
        "printf 'code 0\\n' >> PHASE; exit 9",
        "printf 'code 0' >> PHASE; exit 9",
        "printf 'code 0\\nx' >> PHASE; kill -9 $PPID",
        "printf 'code 0\\n' >> PHASE; kill -9 $PPID",
        "printf 'setup\\nprogram\\ncode 0\\n' > PHASE; rm -f PHASE.x; exit 9",
        "cp PHASE PHASE.x; mv PHASE.x PHASE; printf 'code 0\\n' >> PHASE; exit 9",
        "printf 'setup\\n' > PHASE; exit 9",
        "printf 'setup\\nprogram\\ncode 0\\n' > X; rm PHASE; ln -s X PHASE; exit 9",
        "head -c 300000 /dev/zero >> PHASE; exit 9",
        "chmod 0 PHASE; exit 9",
    ],
)
def test_what_a_program_writes_of_its_end_makes_no_success(bench: Bench, forged: str) -> None:
    path = f"'{bench.folder}/phase'"
    bench.write("/bin/sh", "-c", forged.replace("PHASE", path).replace("X", f"'{bench.folder}/x'"))
    assert bench.run() != 0
    assert not bench.exit.clean
    assert bench.exit.code != 0


def test_an_exit_trap_that_fails_after_a_success_makes_no_success(bench: Bench) -> None:
    """What the shell ended with and what it told must agree: the program could have told it."""
    assert bench.shell("exit 0", site_setup=("trap 'exit 9' EXIT",)) == 9
    assert (bench.exit.phase, bench.exit.clean) == ("untold", False)


def test_a_folder_in_the_place_of_the_guard_lets_no_job_start(bench: Bench) -> None:
    bench.write("/bin/echo", "ran")
    (bench.folder / "guard").mkdir()
    assert bench.run() == 118
    assert list((bench.folder / "guard").iterdir()) == []
    assert not (bench.folder / "stdout").exists()


@pytest.mark.parametrize("word", ['"word":"",', "", '"word":null,', f'"word":"{WORD}x",'])
def test_a_record_that_the_program_writes_does_not_count(bench: Bench, word: str) -> None:
    text = (
        'token=$(sed \'s/.*"token":"\\([^"]*\\)".*/\\1/\' "$1/start")\n'
        f'printf \'{{"token":"%s",{word}"phase":"program","signals":"","detail":"","code":0,'
        '"oom":0,"cpu":0,"time":1}\\n\' "$token" >> "$1/exit"; exit 9'
    )
    bench.write("/bin/sh", "-c", text, "sh", str(bench.folder))
    assert bench.run() == 9
    assert [record.code for record in read_exits(bench.read("exit"))] == [9]
    assert bench.run() == 9, "nor is it taken for a success by the next start"


def test_half_a_line_of_the_programs_does_not_spoil_the_record(bench: Bench) -> None:
    bench.write("/bin/sh", "-c", 'printf \'{"to\' >> "$1/exit"', "sh", str(bench.folder))
    assert bench.run() == 0
    records = bench.read("exit").split(b"\n")
    assert records[0] == b'{"to'
    assert b'"code":0' in records[1]


@pytest.mark.parametrize("name", ["exit", "phase", "start"])
@pytest.mark.parametrize(
    "change", ["mkfifo {0}", "mkdir {0}", "ln -s /dev/null {0}", "ln -s /dev/full {0}", "true"]
)
def test_what_stands_in_the_place_of_a_file_blocks_nothing_and_is_no_success(
    bench: Bench, name: str, change: str
) -> None:
    path = f"'{bench.folder}/{name}'"
    bench.write("/bin/sh", "-c", f"rm {path}; {change.format(path)}; exit 0")
    code = bench.run()
    if name == "exit":
        assert code == 119
    elif name == "phase" and change != "true":
        assert code in (0, 1), "its shell may have told the code through it"
        assert bench.exit.clean is (code == 0)
    if name != "start":
        assert bench.run() in (0, 1, 118, 119)


def test_the_word_is_in_nothing_that_the_program_inherits(bench: Bench) -> None:
    bench.shell(
        "cat /proc/self/environ /proc/$PPID/environ /proc/$PPID/cmdline; set; ls -l /proc/*/fd"
    )
    assert WORD.encode() not in bench.read()
    assert WORD in bench.read("exit").decode()


# --- commands that are not there


def test_a_node_without_the_command_for_links_is_told_apart_from_a_second_job(bench: Bench) -> None:
    bench.write("/bin/echo", "ran")
    text = bench.script.read_text().replace("command -p ln ", "command -p no-such-command ")
    bench.script.write_text(text)
    assert bench.run() == 118
    assert "no-such-command: command not found" in bench.said
    assert not (bench.folder / "duplicates").exists()


def test_a_guard_that_cannot_be_read_is_told_apart_from_a_second_job(bench: Bench) -> None:
    bench.write("/bin/echo", "ran")
    assert bench.run() == 0
    text = bench.script.read_text().replace("command -p readlink ", "command -p no-such-command ")
    bench.script.write_text(text)
    assert bench.run() == 118
    assert not (bench.folder / "duplicates").exists()


# --- secrets


@pytest.mark.parametrize(
    "line",
    [
        *("set -x", "set -v", "set -xv", "set -o xtrace", "export SHELLOPTS; set -x"),
        'trap \'echo "$BASH_COMMAND" "$_"\' DEBUG',
        "set -T; trap 'echo \"$BASH_COMMAND\"' DEBUG RETURN ERR",
        "exec 9>&2; BASH_XTRACEFD=9; set -x",
        "set() { :; }; trap() { :; }; builtin set -x",
        "shopt -s expand_aliases; alias set=: trap=: .=:; builtin set -x",
        'export() { echo "$@"; }; source() { cat "$1"; }',
        *("trap 'set -x' DEBUG", "trap 'set -v' DEBUG", "set -T; trap 'set -x' DEBUG"),
        *("set -m; trap 'set -x' CHLD; sleep 0 &", "set -E; trap 'set -x' ERR"),
        *("exit 3", "set -x; enable -n set"),
    ],
)
def test_no_file_and_no_message_has_a_secret(bench: Bench, line: str) -> None:
    (bench.folder / "secrets").write_text(secrets_text({"TOKEN": SECRET}))
    refused = line in ("exit 3", "set -x; enable -n set")
    bench.write(
        "/bin/sh",
        "-c",
        '[ -n "$TOKEN" ] && echo "got it"',
        secret_names=("TOKEN",),
        site_setup=(line,),
        site_teardown=("echo torn down $_",),
        site_launcher="env SEEN=$TOKEN",
        resources=Resources(launch="mpi"),
    )
    ended = bench.run() == 0
    assert ended is not refused
    assert not ended or bench.read() == b"got it\n"
    assert not (bench.folder / "secrets").exists()
    assert SECRET not in files(bench)


def test_a_secret_that_cannot_be_set_ends_the_job_before_its_program(bench: Bench) -> None:
    (bench.folder / "secrets").write_text(secrets_text({"TOKEN": SECRET}))
    bench.write("/bin/echo", "ran", secret_names=("TOKEN",), site_setup=("readonly TOKEN=other",))
    assert bench.run() != 0
    assert (bench.exit.phase, bench.exit.clean) == ("setup", False)
    assert not (bench.folder / "stdout").exists()
    assert SECRET not in files(bench)


def test_an_environment_that_cannot_be_set_ends_the_job_before_its_program(bench: Bench) -> None:
    bench.write("/bin/echo", "ran", environment={"A": "1"}, site_setup=("readonly A=2",))
    assert bench.run() != 0
    assert bench.exit.phase == "setup"
    assert not (bench.folder / "stdout").exists()
