"""The tests' own Slurm: it does what tests of a scheduler need, and disturbs nothing else.

What takes long is submitted by `slow_jobs` at the beginning and judged by the last tests.
"""

import contextlib
import os
import re
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

from ..engines import SLURM_TOOL, require_slurm, slurm_cluster, slurm_tool, slurm_up

PATIENCE = 240.0  # jobs of other tests may fill the queue
DAEMONS = {"munged", "mariadbd", "slurmdbd", "slurmctld", "slurmd"}
RING = r"""
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
int main(int argc, char **argv) {
    int rank, size, sum;
    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    MPI_Allreduce(&rank, &sum, 1, MPI_INT, MPI_SUM, MPI_COMM_WORLD);
    printf("rank %d of %d on %s, sum %d\n", rank, size, getenv("SLURMD_NODENAME"), sum);
    MPI_Finalize();
    return 0;
}
"""


def until(predicate, what="the condition"):
    end = time.monotonic() + PATIENCE
    while not (value := predicate()):
        assert time.monotonic() < end, f"{what} did not come true"
        time.sleep(0.1)
    return value


def ok(cluster, *argv):
    done = cluster.run(*argv)
    assert done.returncode == 0, done.stderr
    return done.stdout


def submit(cluster, text, *options):
    """The id of a job of one task that runs this shell text."""
    return ok(
        cluster, "sbatch", "--parsable", "--output=/dev/null", *options, f"--wrap={text}"
    ).strip()


def job(cluster, number):
    """What the controller says of a job."""
    text = ok(cluster, "scontrol", "-o", "show", "job", number)
    return dict(re.findall(r"(\w+)=(\S*)", text))


def reaches(cluster, number, *states):
    """The job as soon as it is in one of these states."""

    def there():
        record = job(cluster, number)
        return record if record["JobState"] in states else None

    return until(there, f"the state {' or '.join(states)} of job {number}")


def processes(cluster):
    """Pids by program: the processes that have the cluster in their environment."""
    wanted = b"SLURM_CONF=" + os.fsencode(cluster.conf)
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if wanted in (folder / "environ").read_bytes().split(b"\0"):
                name = (folder / "comm").read_text().strip()
                found.setdefault(name, set()).add(int(folder.name))
    return found


def listening():
    """Local addresses, as in /proc/net, by inode."""
    found = {}
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A":
                found[fields[9]] = fields[1]
    return found


def listeners(pids):
    """The addresses on which these processes listen."""
    sockets = {}
    for pid in pids:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has ended
            for link in Path(f"/proc/{pid}/fd").iterdir():
                with contextlib.suppress(FileNotFoundError):
                    target = os.readlink(link)
                    if target.startswith("socket:["):
                        sockets[target[8:-1]] = pid
    return {address for inode, address in listening().items() if inode in sockets}


@contextlib.contextmanager
def temporary_folder():
    """A short path for a cluster of the test's own, which is stopped at the end."""
    require_slurm()
    path = Path(tempfile.mkdtemp(prefix="slurm-"))
    try:
        yield path
    finally:
        if (path / "cluster.json").exists():
            slurm_tool("down", path)
        shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def folder():
    with temporary_folder() as path:
        yield path


@pytest.fixture
def own(folder):
    """A cluster of one node that the test may break: other tests share the session's."""
    return cluster_in(folder)


@pytest.fixture(scope="module")
def own_accounting():
    """The same with accounting."""
    with temporary_folder() as path:
        slurm_up(path, "--no-cgroup", "--nodes=1")
        yield slurm_cluster(path)


@pytest.fixture(scope="module")
def slow_jobs(slurm):
    """One that runs into its time limit, which Slurm counts in whole minutes."""
    return {"timeout": submit(slurm, "sleep 1000", "-t1")}


def cluster_in(folder):
    slurm_up(folder, "--no-accounting", "--no-cgroup", "--nodes=1")
    return slurm_cluster(folder)


# What jobs can do


def test_a_job_runs_as_root_and_its_comment_and_account_are_stored(slurm, slow_jobs, tmp_path):
    options = ("-Aproj", "--comment=a comment", f"--output={tmp_path}/out")
    number = submit(slurm, "id -un", *options)

    assert reaches(slurm, number, "COMPLETED")["ExitCode"] == "0:0"

    assert (tmp_path / "out").read_text() == "root\n"
    row = ("sacct", "-XnP", "-j", number, "-o", "State,Account,Comment")
    until(lambda: ok(slurm, *row) == "COMPLETED|proj|a comment\n", "its row in the accounting")


def test_a_job_runs_without_accounting(slurm_without_accounting):
    number = submit(slurm_without_accounting, "exit 3")

    assert reaches(slurm_without_accounting, number, "FAILED")["ExitCode"] == "3:0"

    said = slurm_without_accounting.run("sacct", "-j", number)
    assert (said.returncode, said.stderr) == (1, "Slurm accounting storage is disabled\n")


def ring(slurm, line, out):
    """What the ring prints.

    Of a thousand launches by `srun` on a busy machine seven crashed: Open MPI 4.1's TCP got a
    peer's first message before it had registered who receives it. That is not the cluster's, so
    that the ring is started again.
    """
    for _ in range(3):
        options = ("-N2", "--ntasks-per-node=2", "-t2", f"--output={out}")
        number = submit(slurm, line, *options)
        reaches(slurm, number, "COMPLETED", "FAILED", "CANCELLED", "TIMEOUT")
        if "Segmentation fault" not in (text := out.read_text()):
            break
    return text


@pytest.mark.timeout(900)
@pytest.mark.parametrize("launcher", ["srun --mpi=pmix", "mpirun"])
def test_an_mpi_program_runs_on_two_nodes_with_two_ranks_each(slurm, tmp_path, launcher):
    (tmp_path / "ring.c").write_text(RING)
    subprocess.run(["mpicc", "ring.c", "-o", "ring"], cwd=tmp_path, check=True)

    lines = sorted(ring(slurm, f"{launcher} {tmp_path}/ring", tmp_path / "out").splitlines())
    assert [re.sub(r" on n\d", "", line) for line in lines] == [
        f"rank {rank} of 4, sum 6" for rank in range(4)
    ]
    nodes = [re.findall(r" on (n\d)", line)[0] for line in lines]
    assert (nodes[0], nodes[2]) == (nodes[1], nodes[3])
    assert nodes[0] != nodes[2]


def test_srun_works_in_a_job_that_has_nothing_of_the_submitters_environment(slurm, tmp_path):
    options = ("-N2", "--export=NONE", f"--output={tmp_path}/out")
    number = submit(slurm, "srun /usr/bin/printenv SLURMD_NODENAME", *options)

    reaches(slurm, number, "COMPLETED", "FAILED")
    assert len(set((tmp_path / "out").read_text().split())) == 2


def test_gpus_are_given_out(slurm, tmp_path):
    options = ("--gpus-per-node=2", f"--output={tmp_path}/out")
    number = submit(slurm, "echo $CUDA_VISIBLE_DEVICES", *options)

    reaches(slurm, number, "COMPLETED", "FAILED")
    assert (tmp_path / "out").read_text() == "0,1\n"
    refused = slurm.run("sbatch", "--gpus-per-node=3", "--wrap=true")
    assert "Requested node configuration is not available" in refused.stderr


def test_a_job_may_name_the_nodes_feature(slurm):
    number = submit(slurm, "true", "--constraint=small")

    assert reaches(slurm, number, "COMPLETED")["Features"] == "small"
    refused = slurm.run("sbatch", "--constraint=large", "--wrap=true")
    assert "Invalid feature specification" in refused.stderr


# What can go wrong


def test_the_qos_tiny_takes_two_jobs_of_a_user(own_accounting):
    two = [submit(own_accounting, "sleep 1000", "-Aproj", "-qtiny") for _ in range(2)]

    third = own_accounting.run("sbatch", "-Aproj", "-qtiny", "--wrap=true")

    assert third.returncode == 1
    assert "QOSMaxSubmitJobPerUserLimit" in third.stderr
    ok(own_accounting, "scancel", *two)


@pytest.mark.parametrize(
    ("option", "word"), [("-Anosuch", "Invalid account"), ("-qnosuch", "Invalid qos")]
)
def test_an_account_or_qos_that_does_not_exist_is_refused(slurm, option, word):
    refused = slurm.run("sbatch", option, "--wrap=true")

    assert refused.returncode == 1
    assert word in refused.stderr


def test_a_job_longer_than_its_partition_allows_waits_for_ever(slurm):
    number = submit(slurm, "true", "-pshort", "-t10")

    until(lambda: job(slurm, number)["Reason"] == "PartitionTimeLimit")

    ok(slurm, "scancel", number)


def test_memory_that_slurm_polls_ends_the_job_with_a_word_in_its_stderr(
    slurm_without_accounting, tmp_path
):
    hog = """perl -e '$x = "a" x (400 << 20); sleep 1000'"""
    number = submit(slurm_without_accounting, hog, "--mem=50", f"--output={tmp_path}/out")

    record = reaches(slurm_without_accounting, number, "FAILED", "OUT_OF_MEMORY")

    assert (record["JobState"], record["ExitCode"]) == ("FAILED", "0:9")
    assert "Exceeded job memory limit" in (tmp_path / "out").read_text()


@pytest.mark.skipif(
    not os.access("/sys/fs/cgroup/memory/memory.limit_in_bytes", os.W_OK),
    reason="needs cgroup v1's memory controller",
)
def test_memory_that_the_kernel_limits_is_a_state_of_its_own(slurm):
    hog = """perl -e '$x = "a" x (400 << 20); sleep 1000'"""
    number = submit(slurm, hog, "--mem=50")

    record = reaches(slurm, number, "FAILED", "OUT_OF_MEMORY")

    assert (record["JobState"], record["ExitCode"]) == ("OUT_OF_MEMORY", "0:125")


def test_a_node_that_goes_down_fails_its_jobs_or_requeues_them(own):
    failing = submit(own, "sleep 1000", "--no-requeue")
    requeued = submit(own, "sleep 1000", "--requeue")
    for number in (failing, requeued):
        reaches(own, number, "RUNNING")

    own.node("n1", "down")

    reaches(own, failing, "NODE_FAIL")
    assert reaches(own, requeued, "PENDING")["Restarts"] == "1"
    assert ok(own, "sinfo", "-hn", "n1", "-p", "normal", "-o", "%T") == "down\n"
    own.node("n1", "resume")
    reaches(own, submit(own, "true"), "COMPLETED")


def test_a_job_of_a_higher_partition_takes_the_cpus_of_lower_ones(own):
    cancelled = submit(own, "sleep 1000", "-ppreemptible", "-c2")
    requeued = submit(own, "sleep 1000", "-prequeueable", "-c2", "--requeue")
    for number in (cancelled, requeued):
        reaches(own, number, "RUNNING")

    winner = submit(own, "sleep 1000", "-c4")

    reaches(own, cancelled, "PREEMPTED")
    assert reaches(own, requeued, "PENDING")["Restarts"] == "1"
    reaches(own, winner, "RUNNING")


def written_at(path):
    """0 while it is not there, as when it is being replaced."""
    with contextlib.suppress(FileNotFoundError):
        return path.stat().st_mtime
    return 0.0


def test_a_killed_controller_knows_its_jobs_when_it_is_started_again(own):
    number = submit(own, f"echo started >> {own.dir}/starts; sleep 1000")
    reaches(own, number, "RUNNING")
    # An idle slurmctld keeps a job's start to itself and, killed, would run the job once more:
    # only the next submission makes it write down both.
    running, state = time.time(), own.dir / "state" / "job_state"
    submit(own, "true", "--hold")
    until(lambda: written_at(state) > running, "its note of the job")

    own.signal("slurmctld", "KILL")
    assert own.run("scontrol", "ping").returncode != 0

    own.start("slurmctld")
    assert reaches(own, number, "RUNNING")["Restarts"] == "0"
    reaches(own, submit(own, "true"), "COMPLETED")
    assert (own.dir / "starts").read_text() == "started\n"


def test_a_stopped_controller_does_not_answer_until_it_goes_on(own):
    own.signal("slurmctld", "STOP")
    with subprocess.Popen(
        ["squeue", "-h"], env=own.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as asking:
        with pytest.raises(subprocess.TimeoutExpired):
            asking.wait(2)

        own.signal("slurmctld", "CONT")

        assert asking.wait(PATIENCE) == 0


def test_a_killed_database_daemon_answers_when_it_is_started_again(own_accounting):
    own_accounting.signal("slurmdbd", "KILL")
    assert "Problem talking to the database" in own_accounting.run("sacct").stderr

    own_accounting.start("slurmdbd")

    ok(own_accounting, "sacct")


# What it leaves alone


def test_everything_listens_on_loopback_only(slurm, slurm_without_accounting, tmp_path):
    clusters = (slurm, slurm_without_accounting)
    with contextlib.ExitStack() as stack:
        for cluster in clusters:  # srun listens too
            program = f"touch {tmp_path}/{cluster.dir.name}-$SLURM_PROCID; sleep 1000"
            argv = ["srun", "-N2", "sh", "-c", program]
            step = subprocess.Popen(argv, env=cluster.environment)
            stack.callback(step.wait)
            stack.callback(step.terminate)
        # That its programs have begun says that srun's ports are open.
        until(lambda: len(list(tmp_path.iterdir())) == 4, "the start of both steps")
        names = {*DAEMONS, "srun", "slurmstepd"}
        found = {
            name: listeners(pids)
            for cluster in clusters
            for name, pids in processes(cluster).items()
            if name in names
        }

    assert all(found[name] for name in ("slurmdbd", "slurmctld", "slurmd", "srun"))
    # The table has addresses in the machine's byte order.
    foreign = {name: [a for a in all_ if a[6:8] != "7F"] for name, all_ in found.items()}
    assert not any(foreign.values()), foreign


def test_two_clusters_are_up_at_once_and_share_no_job(slurm, slurm_without_accounting):
    first = submit(slurm, "sleep 1000")
    second = submit(slurm_without_accounting, "sleep 1000")

    reaches(slurm, first, "RUNNING")
    reaches(slurm_without_accounting, second, "RUNNING")

    assert "Invalid job id" in slurm.run("squeue", "-j", second).stderr
    assert "Invalid job id" in slurm_without_accounting.run("squeue", "-j", first).stderr
    ok(slurm, "scancel", first)
    ok(slurm_without_accounting, "scancel", second)


def system_files():
    """What the machine has of Slurm and its authentication, by path."""
    found = {}
    for top in ("/etc/slurm", "/etc/slurm-llnl", "/etc/munge", "/run/munge", "/var/lib/slurm"):
        for path in (Path(top), *Path(top).rglob("*")):
            with contextlib.suppress(FileNotFoundError):
                there = path.lstat()
                content = path.read_bytes() if path.is_file() else b""
                found[str(path)] = (there.st_ino, there.st_mode, there.st_mtime_ns, content)
    return found


def test_the_systems_own_configuration_stays_as_it_is(slurm, folder):
    del slurm  # what a first cluster installs is there
    before = system_files()

    own = cluster_in(folder)
    reaches(own, submit(own, "true"), "COMPLETED")
    shown = ("scontrol", "show", "config")
    assert str(own.conf) in ok(own, *shown)
    without = {name: value for name, value in own.environment.items() if name != "SLURM_CONF"}
    foreign = subprocess.run(shown, env=without, capture_output=True, text=True).stdout
    slurm_tool("down", folder)

    assert system_files() == before
    assert str(own.conf) not in foreign


def test_up_starts_only_what_is_not_running(folder):
    slurm = cluster_in(folder)
    before = processes(slurm)
    slurm.signal("slurmctld", "KILL")

    cluster_in(folder)

    after = processes(slurm)
    assert after["munged"] == before["munged"]
    assert after["slurmd"] == before["slurmd"]
    assert after["slurmctld"].isdisjoint(before["slurmctld"])


def test_up_refuses_other_settings_than_the_first_ones(folder):
    cluster_in(folder)

    with pytest.raises(subprocess.CalledProcessError) as refused:
        slurm_tool("up", "--nodes=2", folder)

    assert "other settings" in refused.value.stderr


@pytest.mark.parametrize("state", ["running", "killed", "stopped"])
def test_down_ends_jobs_and_daemons_whatever_the_controllers_state(folder, state):
    slurm = cluster_in(folder)
    port = int(re.search(r"SlurmctldPort=(\d+)", slurm.conf.read_text())[1])
    number = submit(slurm, "trap '' TERM; sleep 1000 & wait; sleep 1000")
    until(lambda: "sleep" in processes(slurm), "the start of the job's program")
    assert reaches(slurm, number, "RUNNING")
    if state != "running":
        slurm.signal("slurmctld", "KILL" if state == "killed" else "STOP")

    slurm_tool("down", folder)

    until(lambda: not processes(slurm), "the end of what was killed")
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0
    assert slurm.conf.exists()
    slurm_tool("down", "--purge", folder)
    assert not folder.exists()


def test_a_folder_without_a_cluster_is_refused_with_a_sentence(tmp_path):
    with pytest.raises(subprocess.CalledProcessError) as refused:
        slurm_tool("env", tmp_path)

    assert refused.value.stderr == (
        f"{SLURM_TOOL.name}: {tmp_path} holds no cluster: start one with `up`.\n"
    )


# What takes long


def test_a_job_over_its_time_limit_times_out(slurm, slow_jobs):
    record = reaches(slurm, slow_jobs["timeout"], "TIMEOUT", "COMPLETED", "FAILED")

    assert (record["JobState"], record["Reason"]) == ("TIMEOUT", "TimeLimit")
