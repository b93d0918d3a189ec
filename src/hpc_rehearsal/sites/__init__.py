"""What stands in for a site on a laptop: one TOML file a site, with the name of its profile."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from importlib import resources
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Rehearsed:
    """What stands in for a site.

    Attributes:
        scheduler: what the stand-in of its scheduler is told: queues, limits, commands.
        launchers: its MPI launchers by their names: `ranks`, the options that say how many;
            `options`, how many words belong to each other option; `sets`, those of them that set
            variables; `rank_output`, the folder for each rank's own output.
        modules: names without a version; `*` for any.
    """

    scheduler: dict[str, Any]
    launchers: dict[str, Any] = field(default_factory=dict)
    modules: tuple[str, ...] = ()
    modules_in_login_shells: bool = False


def rehearsed(site: str) -> Rehearsed | None:
    """What stands in for the site of that name; None when nothing does."""
    file = resources.files(__name__) / f"{site}.toml"
    if not file.is_file():
        return None
    found = tomllib.loads(file.read_text(encoding="utf-8-sig"))
    return Rehearsed(**found | {"modules": tuple(found.get("modules", ()))})
