#!/usr/bin/env python3
"""A real Slurm on this one Debian 12 machine, for tests and benchmarks; root only.

Several slurmd play the nodes n1, n2, … of one cluster. All that it writes (configuration, keys,
state, logs, database) lies in its DIR, and everything listens on loopback only, so that any number
of clusters can be up at once. /etc/slurm stays as it is: clients, and the jobs they submit, find
their cluster by the variable SLURM_CONF and by nothing else.

    up DIR                              install what is missing, start what is not running
    env DIR                             print the variables of its clients
    down DIR                            cancel all jobs, stop everything
    signal DIR slurmctld|slurmdbd STOP|CONT|KILL
    start DIR slurmctld|slurmdbd        start it again after KILL
    node DIR n3 down|resume             take a node from its jobs; give it back
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

from slurm import configuration
from slurm.configuration import Settings
from slurm.daemon import PATIENCE_SECONDS, Daemon, Trouble, environment_of, name_of, wait_for
from slurm.machine import free_ports, install, locked, loopback_address, write_private

# A socket's path has at most 107 bytes, and PMIx adds "/n10/stepd.slurm.pmix.JOB.STEP".
LONGEST_PATH = 64
# srun loads PMIx by its development name, and slurmd looks for it only when it starts.
PACKAGES = "munge slurmctld slurmd slurm-client openmpi-bin libopenmpi-dev libpmix-dev g++ make"
ACCOUNTING_PACKAGES = "slurmdbd mariadb-server"
RESTARTABLE = ("slurmctld", "slurmdbd")
# The simulated nodes have one host's shared memory and look like one to Open MPI, whose messages
# go over loopback instead; and mpirun must be told twice that root means it.
OPEN_MPI = {
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "OMPI_MCA_btl": "self,tcp",
    "OMPI_MCA_btl_tcp_if_include": "lo",
    "OMPI_MCA_oob_tcp_if_include": "lo",
}


# --- the cluster -------------------------------------------------------------------------------


class Cluster:
    """The cluster in one folder, with the settings of its first start."""

    def __init__(self, folder: Path, settings: Settings) -> None:
        self.folder = folder
        self.settings = settings
        self.conf = folder / "etc" / "slurm.conf"

    @classmethod
    def of(cls, folder: Path) -> Cluster:
        try:
            record = json.loads((folder / "cluster.json").read_text())
        except FileNotFoundError:
            raise Trouble(f"{folder} holds no cluster: start one with `up`.") from None
        return cls(folder, Settings(**record))

    @property
    def variables(self) -> dict[str, str]:
        """What clients need; jobs inherit it from sbatch."""
        return {"SLURM_CONF": str(self.conf), **OPEN_MPI}

    @cached_property
    def daemons(self) -> dict[str, Daemon]:
        """In the order of their start. The user's own environment reaches none of them."""
        run, munge, mysql = (self.folder / name for name in ("run", "munge", "mysql"))
        environment = {
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": "/root",
            "SLURM_CONF": str(self.conf),
            # slurmdbd reaches its database by this socket, so that no port is open for it.
            "MYSQL_UNIX_PORT": str(self.folder / configuration.DATABASE_SOCKET),
        }
        # --force: a socket below a private folder is meant, not a mistake.
        munged = f"""munged --force --socket={self.folder / configuration.MUNGE_SOCKET}
            --pid-file={run}/munged.pid --log-file={self.folder}/log/munged.log
            --key-file={munge}/key --seed-file={munge}/seed"""
        mariadbd = f"""setsid --fork mariadbd --no-defaults --user=root --skip-networking
            --datadir={mysql} --socket={self.folder / configuration.DATABASE_SOCKET}
            --pid-file={run}/mariadbd.pid --innodb-flush-log-at-trx-commit=0
            --innodb-lock-wait-timeout=900"""
        commands = {"munged": munged}
        if self.settings.accounting:
            commands |= {"mariadbd": mariadbd, "slurmdbd": "slurmdbd"}
        commands["slurmctld"] = "slurmctld"
        commands |= {f"slurmd-{node}": f"slurmd -N {node}" for node in self.settings.node_names}
        return {
            name: Daemon(name, tuple(command.split()), self.folder, self.conf, environment)
            for name, command in commands.items()
        }

    def daemon(self, name: str) -> Daemon:
        if name not in self.daemons:
            raise Trouble(f"The cluster in {self.folder} has no {name}.")
        return self.daemons[name]

    def run(self, *argv: str) -> subprocess.CompletedProcess[str]:
        """A client's command; its return code is the caller's to judge."""
        environment = {**self.daemons["munged"].environment, **self.variables}
        try:
            return subprocess.run(
                argv, env=environment, capture_output=True, text=True, timeout=PATIENCE_SECONDS
            )
        except subprocess.TimeoutExpired:
            return subprocess.CompletedProcess(argv, 124, "", "no answer")

    def do(self, *argv: str) -> str:
        done = self.run(*argv)
        if done.returncode != 0:
            raise Trouble(f"{' '.join(argv)} failed: {(done.stderr or done.stdout).strip()}")
        return done.stdout

    def succeeds(self, *argv: str) -> Callable[[], bool]:
        return lambda: self.run(*argv).returncode == 0

    # Starting

    def write_files(self) -> None:
        for name in ("etc", "run", "log", "state", "munge", "mysql"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        for node in self.settings.node_names:
            (self.folder / node / "tmp").mkdir(parents=True, exist_ok=True)
        key = self.folder / "munge" / "key"
        if not key.exists():
            write_private(key, os.urandom(1024))
        for name, text in configuration.files(self.folder, self.settings).items():
            write_private(self.folder / "etc" / name, text.encode())

    def start(self) -> None:
        """Start what is not running, and wait until all nodes can take jobs."""
        self.write_files()
        self.start_one("munged")
        if self.settings.accounting:
            if not (self.folder / "mysql" / "mysql").exists():
                self.do(
                    "mariadb-install-db",
                    "--no-defaults",
                    "--user=root",
                    "--skip-test-db",
                    "--auth-root-authentication-method=socket",
                    f"--datadir={self.folder / 'mysql'}",
                )
            self.start_one("mariadbd")
            self.start_one("slurmdbd")
            self.make_accounts()
        self.start_one("slurmctld")
        nodes = [one for one in self.daemons.values() if one.program == "slurmd"]
        for node in nodes:
            node.launch()
        for node in nodes:
            node.await_process()
        wait_for("nodes that take jobs", self.all_usable, self.daemon("slurmctld").log)

    def start_one(self, name: str) -> None:
        """Start a daemon and wait until it answers."""
        daemon = self.daemon(name)
        daemon.launch()
        daemon.await_process()
        database = str(self.folder / configuration.DATABASE_SOCKET)
        question = {
            "munged": (
                "munge",
                "--no-input",
                f"--socket={self.folder / configuration.MUNGE_SOCKET}",
            ),
            "mariadbd": ("mariadb", "--no-defaults", f"--socket={database}", "-e", "select 1"),
            "slurmdbd": ("sacctmgr", "-nP", "show", "cluster"),
            "slurmctld": ("scontrol", "ping"),
        }[name]
        wait_for(f"an answer of {name}", self.succeeds(*question), daemon.log)

    def make_accounts(self) -> None:
        """The account `proj` and the QOS `tiny`, both open to root."""
        seen = self.do("sacctmgr", "-nP", "show", "assoc", "user=root", "format=account,qos")
        if any(line.startswith("proj|") and "tiny" in line for line in seen.splitlines()):
            return
        for words in (
            f"add cluster {configuration.NAME}",
            "add qos tiny set MaxSubmitJobsPerUser=2",
            f"add account proj cluster={configuration.NAME} Description=proj Organization=tests",
            f"add user root account=proj cluster={configuration.NAME}",
            "modify user root set qos=normal,tiny defaultqos=normal",
        ):
            # One that a start before this one has made already is no error.
            done = self.run("sacctmgr", "-i", *words.split())
            if done.returncode != 0 and "Nothing new added" not in done.stdout:
                raise Trouble(f"sacctmgr {words} failed: {done.stdout}{done.stderr}".strip())

    def usable(self, node: str) -> bool:
        state = self.run("sinfo", "-h", "-N", "-n", node, "-p", "normal", "-o", "%T").stdout.strip()
        return state in ("idle", "mixed", "allocated", "completing")

    def all_usable(self) -> bool:
        answer = self.run("sinfo", "-h", "-N", "-p", "normal", "-o", "%T").stdout.split()
        fine = [state for state in answer if state in ("idle", "mixed", "allocated", "completing")]
        return len(fine) == self.settings.nodes

    # Stopping

    def stop(self) -> None:
        """Cancel all jobs, then stop everything in the reverse order of the start."""
        slurmctld = self.daemons["slurmctld"]
        if any(one.pid() for one in self.daemons.values() if one.program == "slurmd"):
            # Only the controller ends jobs in order; a test may have left it stopped or dead.
            if slurmctld.pid() is None:
                self.start_one("slurmctld")
            slurmctld.send(signal.SIGCONT)
            if jobs := self.run("squeue", "-h", "-o", "%A").stdout.split():
                self.run("scancel", *sorted(set(jobs)))
            running = ("squeue", "-h", "-t", "running,completing,suspended")
            with contextlib.suppress(Trouble):
                wait_for("the end of the jobs", lambda: not self.run(*running).stdout)
        for daemon in reversed(self.daemons.values()):
            daemon.stop()
        self.kill_orphans()
        self.remove_cgroups()

    def kill_orphans(self) -> None:
        """End jobs of which the controller knew nothing: killed, it forgets the last seconds."""
        for entry in Path("/proc").glob("[0-9]*"):
            pid = int(entry.name)
            variables = environment_of(pid)
            number = variables.get("SLURM_JOB_ID", "")
            of_a_job = number.isdecimal() and int(number) in self.settings.job_ids
            # A user's shell may have the same SLURM_CONF, but is neither.
            if not of_a_job and name_of(pid) != "slurmstepd":
                continue
            if variables.get("SLURM_CONF") == str(self.conf):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def remove_cgroups(self) -> None:
        """Slurm leaves some of its jobs' cgroups; one with a process in it cannot be removed."""
        for job in configuration.CGROUPS.glob("*/slurm_n*/uid_*/job_*"):
            if int(job.name.removeprefix("job_")) in self.settings.job_ids:
                for folder, _, _ in os.walk(job, topdown=False):
                    with contextlib.suppress(OSError):
                        os.rmdir(folder)

    # Faults

    def set_node(self, node: str, state: str) -> None:
        if node not in self.settings.node_names:
            raise Trouble(f"The cluster in {self.folder} has no node {node}.")
        self.do("scontrol", "update", f"nodename={node}", f"state={state}", "reason=test")
        if state == "resume":
            wait_for(f"the node {node}", lambda: self.usable(node))


# --- before the first start --------------------------------------------------------------------


def settings_for(folder: Path, given: dict[str, Any]) -> Settings:
    """The settings of the first start, which later ones may repeat but not change."""
    record = folder / "cluster.json"
    if record.exists():
        settings = Settings(**json.loads(record.read_text()))
        changed = {k: v for k, v in given.items() if getattr(settings, k) != v}
        if changed:
            raise Trouble(f"{folder} has a cluster with other settings than {changed}.")
        return settings
    settings = Settings(
        host=socket.gethostname().partition(".")[0], address=loopback_address(), **given
    )
    if not settings.port:
        settings = dataclasses.replace(settings, port=free_ports(settings.ports))
    if settings.cgroup is None:
        settings = dataclasses.replace(settings, cgroup=configuration.memory_controller_usable())
    write_private(record, json.dumps(dataclasses.asdict(settings)).encode())
    return settings


# --- the command -------------------------------------------------------------------------------


def up(folder: Path, given: dict[str, Any], *, may_install: bool) -> None:
    if len(os.fsencode(folder)) > LONGEST_PATH:
        raise Trouble(f"{folder}: only {LONGEST_PATH} bytes leave room for the sockets in it.")
    if not re.fullmatch(r"[\w./-]+", str(folder), re.ASCII):
        raise Trouble(f"{folder}: Slurm's configuration allows no blanks and signs in a path.")
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / "lock"):
        settings = settings_for(folder, given)
        packages = PACKAGES + f" {ACCOUNTING_PACKAGES}" * settings.accounting
        install(packages.split(), allowed=may_install)
        cluster = Cluster(folder, settings)
        cluster.start()
    print(f"SLURM_CONF={cluster.conf}")


def down(cluster: Cluster, *, purge: bool) -> None:
    with locked(cluster.folder / "lock"):
        cluster.stop()
        if purge:
            shutil.rmtree(cluster.folder)


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    for verb in ("up", "env", "down", "signal", "start", "node"):
        # What is not given stays away, so that a later `up` need not repeat the first one's.
        verbs.add_parser(verb, argument_default=argparse.SUPPRESS)
        verbs.choices[verb].add_argument("dir", metavar="DIR", type=lambda s: Path(s).resolve())
    add = verbs.choices["up"].add_argument
    add("--no-accounting", dest="accounting", action="store_false", help="no database")
    add("--nodes", type=int, help="how many (4)")
    add("--cpus", type=int, help="of each node (4)")
    add("--port", type=int, metavar="BASE", help="the first of its ports (free ones)")
    add("--min-job-age", type=int, help="seconds that an ended job is known (3600)")
    add("--no-cgroup", dest="cgroup", action="store_false", help="Slurm polls the jobs' memory")
    add("--no-install", action="store_true", default=False, help="fail if a package is missing")
    verbs.choices["down"].add_argument(
        "--purge", action="store_true", default=False, help="remove DIR"
    )
    verbs.choices["signal"].add_argument("daemon", choices=RESTARTABLE)
    verbs.choices["signal"].add_argument("signal", choices=("STOP", "CONT", "KILL"))
    verbs.choices["start"].add_argument("daemon", choices=RESTARTABLE)
    verbs.choices["node"].add_argument("node")
    verbs.choices["node"].add_argument("state", choices=("down", "resume"))
    return parser


def carry_out(words: argparse.Namespace) -> None:
    if words.verb != "env" and os.geteuid() != 0:
        raise Trouble("Slurm's daemons and their jobs run as root here: run this as root.")
    if words.verb == "up":
        known = {field.name for field in dataclasses.fields(Settings)}
        given = {name: value for name, value in vars(words).items() if name in known}
        up(words.dir, given, may_install=not words.no_install)
        return
    cluster = Cluster.of(words.dir)
    if words.verb == "down":
        down(cluster, purge=words.purge)
    elif words.verb == "env":
        print("\n".join(f"{name}={value}" for name, value in cluster.variables.items()))
    elif words.verb == "signal":
        cluster.daemon(words.daemon).send(signal.Signals[f"SIG{words.signal}"])
    elif words.verb == "start":
        cluster.start_one(words.daemon)
    else:
        cluster.set_node(words.node, words.state)


def main() -> int:
    try:
        carry_out(arguments().parse_args())
    except Trouble as trouble:
        print(f"slurm_cluster.py: {trouble}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
