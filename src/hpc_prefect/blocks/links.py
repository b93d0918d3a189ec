"""Where Prefect's UI links the block types to, and the picture that it shows for them.

Prefect takes addresses of the web alone; none of this package's own is public, so they are what a
group has set, when its block types are registered.
"""

from __future__ import annotations

from pydantic import HttpUrl

from hpc_prefect.flow_runs.settings import HPCPrefectSettings

_GIVEN = HPCPrefectSettings()
#: What ends so is the site that `make docs` builds; any other address is a page of the group's.
_SITE = "/"


def documentation(page: str) -> HttpUrl:
    """The address of a page of the documentation, such as `jobs.html`, as far as it is known."""
    if _GIVEN.documentation_url is None:
        return HttpUrl("https://docs.prefect.io/v3/concepts/blocks")
    return _below_site(page) or _GIVEN.documentation_url


def _below_site(path: str) -> HttpUrl | None:
    root = str(_GIVEN.documentation_url or "")
    return HttpUrl(root + path) if root.endswith(_SITE) else None


#: The picture of all block types; None for Prefect's plain one.
LOGO = _GIVEN.logo_url or _below_site("site/logo.svg")
