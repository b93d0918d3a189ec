"""Places as data: one TOML file a place, in the format of `hpc-prefect blocks apply`.

A file is where a user begins: it has what is the same for all users of the place, and blanks such
as `"<project>"` for the rest, which `hpc_prefect.document` refuses until they are filled in. Above
each field stands where its value is from, and whether it was seen or read.

Adding a place is one file here; no code knows its name. What stands in for it on a laptop, if
anything does, is told by a file of the same name in `rehearsed/`.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

from hpc_prefect.errors import ConfigurationError

_ENDING = ".toml"
_REHEARSED = "rehearsed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rehearsed:
    """What stands in for a place on a laptop.

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


@dataclass(frozen=True, slots=True)
class SiteFile:
    """The file of one place.

    Attributes:
        name: the file's, without its ending.
        text: the file as it is.
    """

    name: str
    text: str

    @property
    def scheduler(self) -> str:
        """That of its HPC profile."""
        (profile,) = tomllib.loads(self.text)["hpc-profile"].values()
        return str(profile["scheduler"])

    @property
    def description(self) -> str:
        """The file's first line, which is a comment."""
        return self.text.partition("\n")[0].lstrip("# ")

    @property
    def rehearsed(self) -> Rehearsed | None:
        """What stands in for it on a laptop; None when nothing does."""
        file = resources.files(__name__) / _REHEARSED / f"{self.name}{_ENDING}"
        if not file.is_file():
            return None
        found = tomllib.loads(file.read_text(encoding="utf-8-sig"))
        return Rehearsed(**found | {"modules": tuple(found.get("modules", ()))})


def all_sites() -> list[SiteFile]:
    """Every place that came with this package, by name."""
    files = [f for f in resources.files(__name__).iterdir() if f.name.endswith(_ENDING)]
    texts = {f.name.removesuffix(_ENDING): f.read_text(encoding="utf-8-sig") for f in files}
    return [SiteFile(name, texts[name]) for name in sorted(texts)]


def find_site(name: str) -> SiteFile:
    """The place of that name.

    Raises:
        ConfigurationError: there is none; the message has the near names.
    """
    sites = {site.name: site for site in all_sites()}
    if name in sites:
        return sites[name]
    from hpc_prefect.blocks.checks import suggestion  # late, because it takes Prefect along

    raise ConfigurationError(f"there is no site {name!r}{suggestion(name, sites)}")
