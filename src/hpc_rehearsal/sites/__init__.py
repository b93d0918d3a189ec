"""The stand-ins of sites on a laptop: a TOML file for each site, named as its profile is."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from importlib import resources
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Rehearsed:
    """The stand-in of a site.

    Attributes:
        scheduler: options for the stand-in of its scheduler: queues, limits, commands.
        launchers: its MPI launchers by their names: `ranks`, the options for the number of ranks;
            `options`, the number of words after each other option; `sets`, the options that set
            variables; `rank_output`, the folder for each rank's own output.
        modules: names without a version; `*` for any.
    """

    scheduler: dict[str, Any]
    launchers: dict[str, Any] = field(default_factory=dict)
    modules: tuple[str, ...] = ()
    modules_in_login_shells: bool = False


def rehearsed(site: str) -> Rehearsed | None:
    """The stand-in of the site of that name; None if there is none."""
    file = resources.files(__name__) / f"{site}.toml"
    if not file.is_file():
        return None
    found = tomllib.loads(file.read_text(encoding="utf-8-sig"))
    return Rehearsed(**found | {"modules": tuple(found.get("modules", ()))})
