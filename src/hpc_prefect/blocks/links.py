"""Where Prefect's UI links the block types to.

For documentation and logo Prefect takes web addresses only. This package has no public ones, so
they are those that a group has set when its block types are registered.
"""

from __future__ import annotations

from pydantic import HttpUrl

from hpc_prefect.flow_runs.settings import HPCPrefectSettings

_GIVEN = HPCPrefectSettings()

DOCUMENTATION = _GIVEN.documentation_url or HttpUrl("https://docs.prefect.io/v3/concepts/blocks")
LOGO = _GIVEN.logo_url
