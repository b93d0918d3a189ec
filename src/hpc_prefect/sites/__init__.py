"""Places as data: one TOML file a place, in the format of `hpc-prefect blocks apply`.

A file is where a user begins: it has what is the same for all users of the place, and blanks such
as `"<project>"` for the rest, which `hpc_prefect.block_files` refuses until they are filled in.
Above each field stands where its value is from, and whether it was seen or read.

Adding a place is one file here; no code knows its name.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from importlib import resources

from hpc_prefect.errors import ConfigurationError

_ENDING = ".toml"


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
