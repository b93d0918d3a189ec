"""A service's settings, which are kept in its state folder."""

from __future__ import annotations

import json
import os
import secrets
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path

_FILE = "settings.json"
_CRN = "crn:v1:bluemix:public:quantum-computing:us-east:a/{account}:{instance}::"


def _crn() -> str:
    return _CRN.format(account=secrets.token_hex(16), instance=secrets.token_hex(16))


@dataclass(frozen=True, kw_only=True)
class Settings:
    """A service's settings.

    Attributes:
        devices: the backends that are offered: fake devices, `ffsim_simulator`.
        port: where it listens; 0 is any free port.
        queue_seconds: the least seconds that a job waits.
        run_seconds: the least seconds that a job runs.
        noise: whether the devices' noise is simulated, which is slow.
        seed: of simulations whose job names none; None for a new one each time.
        token_seconds: how long an access token is valid.
        usage_limit_seconds: QPU seconds that the instance may use; 0 is no limit.
        token: the API key that is accepted.
        crn: the name of the one instance.
        signing_key: signs access tokens, so that they outlive a restart.
    """

    devices: tuple[str, ...] = ("fake_torino", "fake_manila", "ffsim_simulator")
    port: int = 0
    queue_seconds: float = 0.0
    run_seconds: float = 0.0
    noise: bool = False
    seed: int | None = None
    token_seconds: int = 3600
    usage_limit_seconds: int = 600
    token: str = field(default_factory=lambda: secrets.token_urlsafe(32))
    crn: str = field(default_factory=_crn)
    signing_key: str = field(default_factory=lambda: secrets.token_hex(32))


def write(state: Path, settings: Settings) -> None:
    state.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_text(state / _FILE, json.dumps(asdict(settings), indent=1))


def read(state: Path) -> Settings | None:
    """The settings of this state folder, or None if it has none yet."""
    try:
        values = json.loads((state / _FILE).read_text())
    except FileNotFoundError:
        return None
    return Settings(**values | {"devices": tuple(values["devices"])})


def write_text(path: Path, text: str) -> None:
    """Replace a file as a whole, for its owner alone: a reader sees the old or the new one."""
    descriptor, name = tempfile.mkstemp(prefix=".", dir=path.parent)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    os.replace(name, path)
