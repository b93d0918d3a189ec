"""Commands and files on this machine."""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from hpc_prefect.errors import TransportError
from hpc_prefect.job.dialogue import Command, Reply
from hpc_prefect.transports.local import LocalTransport, clean_environment, write_atomic

TRANSPORT = LocalTransport()


def python(text: str, *words: str, timeout: float = 60.0) -> Command:
    return Command((sys.executable, "-IS", "-c", text, *words), timeout=timeout)


def killed_at_work(began: Callable[[Reply], bool], text: str, *words: str) -> Reply:
    """The reply of a command that was killed when its time was over, after it had begun.

    On a busy machine it may need more time to begin.
    """
    for timeout in (1.0, 5.0, 25.0):
        reply = TRANSPORT.run(python(text, *words, timeout=timeout))
        assert reply.code is None
        if began(reply):
            return reply
    raise AssertionError("it has never begun")


# --- commands


def test_a_command_gets_its_words_and_its_input_and_answers() -> None:
    text = "import sys; print(sys.argv[1:]); sys.stderr.write(sys.stdin.read()); sys.exit(3)"
    command = Command((sys.executable, "-c", text, "$(x) 'y'", ""), stdin="é\n")
    assert TRANSPORT.run(command) == Reply(3, "[\"$(x) 'y'\", '']\n", "é\n")


def test_a_command_without_input_reads_nothing() -> None:
    assert TRANSPORT.run(Command(("cat",), timeout=60)) == Reply(0, "", "")


def test_output_that_is_no_text_is_replaced_and_not_refused() -> None:
    assert TRANSPORT.run(Command(("printf", "a\\377b"))).stdout == "a\ufffdb"


def test_a_command_that_is_not_there_is_an_error_with_its_name() -> None:
    with pytest.raises(TransportError, match=r"cannot run '/no/qstat'.*No such file"):
        TRANSPORT.run(Command(("/no/qstat", "-x")))


def test_a_command_over_its_time_is_killed_with_its_children_though_they_hold_its_pipe(
    tmp_path: Path,
) -> None:
    fifo = tmp_path / "alive"
    os.mkfifo(fifo)
    # Whoever holds the other end lives: a hang-up tells that all of them have ended.
    text = (
        "import os, sys, time\n"
        "held = os.open(sys.argv[1], os.O_WRONLY)\n"
        "os.set_inheritable(held, True)\n"
        "os.fork() or os.fork()\n"
        "print('before', flush=True)\n"
        "time.sleep(600)\n"
    )
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    try:
        reply = killed_at_work(lambda reply: "before" in reply.stdout, text, str(fifo))
        assert set(reply.stdout.split()) == {"before"}
        watch = select.poll()
        watch.register(reader, select.POLLIN)
        assert watch.poll(100_000)
        assert os.read(reader, 1) == b""
    finally:
        os.close(reader)


def test_a_grandchild_that_left_the_session_does_not_hold_the_caller(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    pid_file.touch()
    text = (
        "import os, sys, time\n"
        "if os.fork() == 0:\n"
        "    os.setsid()\n"
        "    open(sys.argv[1], 'a').write(f'{os.getpid()}\\n')\n"
        "time.sleep(600)\n"
    )
    try:
        killed_at_work(lambda _: "\n" in pid_file.read_text(), text, str(pid_file))
    finally:
        for pid in pid_file.read_text().split():
            os.kill(int(pid), signal.SIGKILL)


def test_a_command_does_not_see_what_an_enclosing_job_left_in_the_environment() -> None:
    inherited = [
        "SLURM_JOB_ID", "SBATCH_X", "SRUN_X", "PBS_JOBID", "PJM_JOBID", "OMPI_COMM_WORLD_RANK",
        "PMI_RANK", "PMIX_RANK", "PRTE_X", "HYDI_X", "HYDRA_X", "MPIR_X", "MPIEXEC_X",
        "HPC_LOCAL_JOBID", "SQUEUE_PARTITION", "SACCT_FORMAT", "SCANCEL_PARTITION",
        "SALLOC_ACCOUNT", "SINFO_FORMAT", "SLURM_CLUSTERS", "SLURM_EXPORT_ENV", "SLURM_HINT",
    ]  # fmt: skip
    kept = [
        "OMPI_MCA_btl",
        "OMPI_ALLOW_RUN_AS_ROOT",
        "PRTE_MCA_x",
        "PRTE_ALLOW_x",
        "PATH",
        "MY_SLURM_X",
        *("SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_JWT", "SLURM_SACK_SOCKET", "SLURM_SACK_KEY"),
    ]
    environment = dict.fromkeys([*inherited, *kept], "1")
    assert clean_environment(environment) == dict.fromkeys(kept, "1")


def test_a_command_sees_its_own_environment_above_the_cleaned_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "1")
    monkeypatch.setenv("OMPI_MCA_btl", "tcp")
    reply = TRANSPORT.run(Command(("env",), environment={"PBS_SERVER": "s", "HOME": "/h"}))
    lines = reply.stdout.splitlines()
    assert {"OMPI_MCA_btl=tcp", "PBS_SERVER=s", "HOME=/h"} <= set(lines)
    assert not any(line.startswith("SLURM_") for line in lines)


def test_a_command_inherits_only_the_variables_that_it_names(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("PREFECT_API_KEY", "LC_ALL", "LC_X", "XLC_", "SLURM_JOB_ID"):
        monkeypatch.setenv(name, "1")
    command = Command(("env",), environment={"OWN": "2"}, inherits=("PATH", "LC_*", "SLURM_*"))
    lines = TRANSPORT.run(command).stdout.splitlines()
    locale = {name: value for name, value in os.environ.items() if name.startswith("LC_")}
    expected = locale | {"PATH": os.environ["PATH"], "OWN": "2"}
    assert {"LC_ALL", "LC_X"} <= set(locale)
    assert sorted(lines) == sorted(f"{name}={value}" for name, value in expected.items())


# --- files


def test_of_twenty_creators_exactly_one_wins_and_no_reader_sees_the_file_incomplete(
    tmp_path: Path,
) -> None:
    for number in range(20):
        path = str(tmp_path / f"claim-{number}")
        gate, won, sizes = threading.Barrier(22), [], []

        def create(
            who: int, path: str = path, gate: threading.Barrier = gate, won: list[int] = won
        ) -> None:
            gate.wait()
            if TRANSPORT.create(path, bytes([who]) * 10_000):
                won.append(who)

        def watch(
            path: str = path, gate: threading.Barrier = gate, sizes: list[int] = sizes
        ) -> None:
            gate.wait()
            while (data := TRANSPORT.read(path)) is None:
                pass
            sizes.append(len(data))

        threads = [threading.Thread(target=create, args=(who,)) for who in range(20)]
        threads += [threading.Thread(target=watch) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(won) == 1
        assert sizes == [10_000] * 2
        assert TRANSPORT.read(path) == bytes(won) * 10_000
    assert len(list(tmp_path.iterdir())) == 20  # and nothing temporary


def test_a_file_is_replaced_as_a_whole_with_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"old, and longer")
    TRANSPORT.write_atomic(str(path), b"new", mode=0o700)
    assert path.read_bytes() == b"new"
    assert path.stat().st_mode & 0o777 == 0o700
    write_atomic(path, b"newer", durable=True)
    assert path.read_bytes() == b"newer"
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_a_durable_replacement_is_on_disk_before_it_has_its_name_and_its_name_is_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, forced = tmp_path / "f", []
    path.write_bytes(b"old")

    def fsync(descriptor: int) -> None:
        what = os.readlink(f"/proc/self/fd/{descriptor}")
        forced.append((what == str(tmp_path), path.read_bytes()))

    monkeypatch.setattr(os, "fsync", fsync)
    write_atomic(path, b"new", durable=True)
    assert forced == [(False, b"old"), (True, b"new")]


def test_a_replacement_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="folder"):
        write_atomic(tmp_path / "folder", b"x")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_writers_of_one_file_append_whole_lines(tmp_path: Path) -> None:
    path = str(tmp_path / "journal")
    lines = [b"%d" % who * 500 + b"\n" for who in range(8)]

    def write(line: bytes) -> None:
        for _ in range(20):
            TRANSPORT.append(path, line, durable=True)

    threads = [threading.Thread(target=write, args=(line,)) for line in lines]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted((tmp_path / "journal").read_bytes().splitlines(True)) == sorted(lines * 20)
    assert (tmp_path / "journal").stat().st_mode & 0o777 == 0o600


def test_a_part_of_a_file_can_be_read(tmp_path: Path) -> None:
    path = str(tmp_path / "f")
    TRANSPORT.append(path, b"0123456789")
    assert TRANSPORT.read(path) == b"0123456789"
    assert TRANSPORT.read(path, 7) == b"789"
    assert TRANSPORT.read(path, 2, 3) == b"234"
    assert TRANSPORT.read(path, 99) == b""


def test_what_is_missing_is_a_value_and_no_error(tmp_path: Path) -> None:
    missing = str(tmp_path / "no" / "file")
    assert TRANSPORT.read(missing) is None
    assert TRANSPORT.status(missing) is None
    assert TRANSPORT.read_link(missing) is None
    assert TRANSPORT.list(missing) == []
    TRANSPORT.remove(missing)


def test_status_links_names_and_times_are_told(tmp_path: Path) -> None:
    TRANSPORT.make_folder(str(tmp_path / "a" / "b"))
    TRANSPORT.make_folder(str(tmp_path / "a" / "b"))
    assert (tmp_path / "a" / "b").stat().st_mode & 0o777 == 0o700
    file = tmp_path / "a" / "f"
    TRANSPORT.append(str(file), b"12")
    os.utime(file, (1.0, 1.0))
    before = TRANSPORT.status(str(file))
    TRANSPORT.touch(str(file))
    after = TRANSPORT.status(str(file))
    assert before is not None
    assert after is not None
    assert (before.size, before.modified) == (2, 1.0)
    assert after.modified > 1e9
    (tmp_path / "a" / "link").symlink_to("7.host")
    assert TRANSPORT.read_link(str(tmp_path / "a" / "link")) == "7.host"
    assert TRANSPORT.read_link(str(tmp_path / "a" / "b")) == ""
    assert TRANSPORT.list(str(tmp_path / "a")) == ["b", "f", "link"]
    TRANSPORT.remove(str(file))
    assert TRANSPORT.status(str(file)) is None


TROUBLE: dict[str, Callable[[str], object]] = {
    "create the folder": TRANSPORT.make_folder,
    "write": lambda path: TRANSPORT.write_atomic(path, b"x"),
    "add to": lambda path: TRANSPORT.append(path, b"x"),
    "create": lambda path: TRANSPORT.create(path, b"x"),
    "read": TRANSPORT.read,
    "touch": TRANSPORT.touch,
    "list": TRANSPORT.list,
    "remove": TRANSPORT.remove,
    "read the link": TRANSPORT.read_link,
}


@pytest.mark.parametrize("doing", TROUBLE)
def test_any_other_trouble_is_a_transport_error_with_the_path(doing: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    path = str(tmp_path / "file" / "below")  # a file is no folder
    with pytest.raises(
        TransportError, match=r"^cannot .*: (Not a directory|File exists)"
    ) as caught:
        TROUBLE[doing](path)
    assert path in str(caught.value)


def test_a_path_below_a_file_has_no_status(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert TRANSPORT.status(str(tmp_path / "file" / "below")) is None


def test_of_many_links_of_one_name_the_first_stands_and_only_it_is_told_so(tmp_path: Path) -> None:
    path = str(tmp_path / "guard")
    made = [LocalTransport().link(path, target) for target in ("7.a", "closed", "7.a")]
    assert made == [True, False, False]
    assert LocalTransport().read_link(path) == "7.a"


def test_a_command_runs_where_it_is_told_to(tmp_path: Path) -> None:
    here = TRANSPORT.run(Command(("pwd",), cwd=str(tmp_path)))
    assert here.stdout == f"{tmp_path.resolve()}\n"


@pytest.mark.parametrize("size", [0, 300, 16 * 1024, 16 * 1024 + 1, 100_000])
@pytest.mark.parametrize("most", [-1, 0, 1, 16 * 1024, 16 * 1024 + 1, 1 << 20])
@pytest.mark.parametrize("offset", [0, 7])
def test_a_file_is_read_from_an_offset_on_up_to_so_many_bytes(
    tmp_path: Path, size: int, most: int, offset: int
) -> None:
    data = bytes(range(256)) * (size // 256 + 1)
    path = tmp_path / "file"
    path.write_bytes(data[:size])
    wanted = data[:size][offset : None if most < 0 else offset + most]
    assert TRANSPORT.read(str(path), offset, most) == wanted
