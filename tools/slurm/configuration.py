"""The configuration of the tests' Slurm as text: what `slurm_cluster.py` writes into DIR/etc."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

NAME = "tests"
MUNGE_SOCKET = "munge.socket"  # in DIR itself: a socket's path has little room
DATABASE_SOCKET = "mariadb.socket"
CGROUPS = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Settings:
    """What is fixed at a cluster's first start.

    Attributes:
        host, address: this machine's short name, and the loopback address that it stands for.
        port: the first of its ports: slurmctld, slurmdbd, then one for each node.
        min_job_age: seconds until slurmctld forgets a job that has ended.
        cgroup: whether the kernel holds jobs to their memory; else Slurm looks once a second.
    """

    host: str
    address: str
    accounting: bool = True
    nodes: int = 4
    cpus: int = 4
    port: int = 0
    min_job_age: int = 3600  # a slow suite asks about its jobs late
    cgroup: bool | None = None

    @property
    def node_names(self) -> list[str]:
        return [f"n{number}" for number in range(1, self.nodes + 1)]

    @property
    def ports(self) -> int:
        return 2 + self.nodes

    @property
    def job_ids(self) -> range:
        """Ids of two clusters never meet: not in a test's mistakes, not in the kernel's cgroups."""
        return range(self.port * 1000 + 1, (self.port + self.ports) * 1000)


def memory_controller_usable() -> bool:
    """Whether Slurm 22.05 can use cgroup v1 here. (Its support of v2 wants systemd.)"""
    controller = CGROUPS / "memory"
    return (controller / "memory.limit_in_bytes").exists() and os.access(controller, os.W_OK)


def files(folder: Path, settings: Settings) -> dict[str, str]:
    """Contents by name. Every file is looked for beside slurm.conf, wherever that is."""
    written = {
        "slurm.conf": _slurm(folder, settings),
        # Slurm counts a GPU only if its device file exists. Any two do: with no ConstrainDevices
        # they are only given out, which is all that is tested.
        "gres.conf": "AutoDetect=off\nName=gpu File=/dev/null\nName=gpu File=/dev/zero\n",
    }
    if settings.cgroup:
        written["cgroup.conf"] = (
            f"CgroupPlugin=cgroup/v1\nCgroupMountpoint={CGROUPS}\nConstrainRAMSpace=yes\n"
        )
    if settings.accounting:
        written["slurmdbd.conf"] = _slurmdbd(folder, settings)
    return written


def _slurm(folder: Path, s: Settings) -> str:
    first, last = s.port + 2, s.port + 1 + s.nodes
    return f"""\
ClusterName={NAME}
SlurmctldHost={s.host}({s.address})
SlurmctldPort={s.port}
# Every listener binds the address of the host name, and that is a loopback one.
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/{MUNGE_SOCKET}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/%n
# PMIx makes a folder a step there: the nodes must not share it, although they share a host.
TmpFS={folder}/%n/tmp
SlurmctldPidFile={folder}/run/slurmctld.pid
SlurmdPidFile={folder}/run/slurmd-%n.pid
SlurmctldLogFile={folder}/log/slurmctld.log
SlurmdLogFile={folder}/log/slurmd-%n.log
FirstJobId={s.job_ids.start}
MaxJobCount=20000
MaxArraySize=10001
MinJobAge={s.min_job_age}
KillWait=5
# A node that a test takes down stays down until the test resumes it.
ReturnToService=1
SlurmctldTimeout=30
SlurmdTimeout=30
# The nodes claim more CPUs and memory than this machine has.
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
DefMemPerCPU=100
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=1,sched_interval=2,sched_min_interval=100000,bf_interval=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
{_memory(s)}
{_accounting(folder, s)}
GresTypes=gpu
NodeName=n[1-{s.nodes}] NodeHostname={s.host} NodeAddr={s.address} Port=[{first}-{last}] \
CPUs={s.cpus} RealMemory=4000 Gres=gpu:2 Feature=small
PartitionName=DEFAULT Nodes=ALL DefaultTime=10 MaxTime=1-0 State=UP
PartitionName=normal Default=YES PriorityTier=10 PreemptMode=OFF
PartitionName=short MaxTime=5 DefaultTime=1 PriorityTier=10 PreemptMode=OFF
PartitionName=preemptible PriorityTier=1 PreemptMode=CANCEL
PartitionName=requeueable PriorityTier=1 PreemptMode=REQUEUE
"""


def _memory(s: Settings) -> str:
    if s.cgroup:
        return "TaskPlugin=task/cgroup"
    return "TaskPlugin=task/none\nJobAcctGatherParams=OverMemoryKill"


def _accounting(folder: Path, s: Settings) -> str:
    if not s.accounting:
        return "AccountingStorageType=accounting_storage/none"
    return f"""\
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost={s.address}
AccountingStoragePort={s.port + 1}
AccountingStoragePass={folder}/{MUNGE_SOCKET}
AccountingStorageEnforce=associations,limits,qos
AccountingStoreFlags=job_comment"""


def _slurmdbd(folder: Path, s: Settings) -> str:
    return f"""\
DbdHost={s.host}
DbdAddr={s.address}
DbdPort={s.port + 1}
CommunicationParameters=NoInAddrAny
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/{MUNGE_SOCKET}
PidFile={folder}/run/slurmdbd.pid
LogFile={folder}/log/slurmdbd.log
# root, who needs no password there, over the socket in MYSQL_UNIX_PORT
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser=root
StorageLoc=slurm
"""
