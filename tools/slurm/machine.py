"""What a cluster needs of its machine: packages, a loopback address, ports, locks."""

from __future__ import annotations

import contextlib
import fcntl
import os
import random
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from slurm.daemon import Trouble

POLICY = Path("/usr/sbin/policy-rc.d")


def install(packages: list[str], *, allowed: bool) -> None:
    query = ["dpkg-query", "-W", "-f", "${db:Status-Status} ${binary:Package}\n", *packages]
    found = subprocess.run(query, capture_output=True, text=True).stdout.splitlines()
    present = {line.split()[1].partition(":")[0] for line in found if line.startswith("installed")}
    missing = [name for name in packages if name not in present]
    if not missing:
        return
    if not allowed:
        raise Trouble(f"Packages are missing: {' '.join(missing)}.")
    print(f"Installing {' '.join(missing)} ...", file=sys.stderr)
    with no_service_starts():
        apt_get("update")
        apt_get("-y", "--no-install-recommends", "install", *missing)


def apt_get(*words: str) -> None:
    done = subprocess.run(
        ["apt-get", "-qq", "-o", "DPkg::Lock::Timeout=600", *words],
        env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode != 0:
        raise Trouble(f"apt-get {' '.join(words)} failed:\n{done.stdout[-2000:]}")


@contextlib.contextmanager
def no_service_starts() -> Iterator[None]:
    """Keep the packages' scripts from starting daemons on the system's own paths."""
    with locked(Path("/run/lock/hpc-prefect-install.lock")):
        before = (POLICY.read_bytes(), POLICY.stat().st_mode) if POLICY.exists() else None
        POLICY.write_text("#!/bin/sh\nexit 101\n")
        POLICY.chmod(0o755)
        try:
            yield
        finally:
            if before is None:
                POLICY.unlink()
            else:
                POLICY.write_bytes(before[0])
                POLICY.chmod(before[1])


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """The kernel releases it when its holder dies."""
    with path.open("ab") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def loopback_address() -> str:
    """Where Slurm's daemons are to listen: they can do so only on their host name's address."""
    host = socket.gethostname()
    try:
        address = socket.gethostbyname(host)
    except OSError:
        address = "nothing"
    if not address.startswith("127."):
        raise Trouble(
            f"The host name {host} stands for {address}, so Slurm would listen there: "
            f'put "127.0.0.1 {host}" first into /etc/hosts.'
        )
    return address


def free_ports(count: int) -> int:
    """The first of so many free ones, below Linux's range for outgoing connections."""
    for base in random.sample(range(20000, 32768 - count), 100):
        with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
            for port in range(base, base + count):
                stack.enter_context(socket.socket()).bind(("127.0.0.1", port))
            return base
    raise Trouble("Found no free ports on 127.0.0.1 between 20000 and 32767.")


def write_private(path: Path, data: bytes) -> None:
    """As a whole, for a daemon may read it at any time."""
    part = path.with_name(path.name + ".part")
    part.touch(mode=0o600)
    part.write_bytes(data)
    part.replace(path)
