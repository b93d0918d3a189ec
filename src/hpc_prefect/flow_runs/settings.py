"""Settings of this package, read like Prefect's own (environment, profile, prefect.toml)."""

from __future__ import annotations

from typing import ClassVar

from prefect.settings.base import PrefectBaseSettings, build_settings_config
from pydantic import Field, HttpUrl
from pydantic_settings import SettingsConfigDict


class HPCPrefectSettings(PrefectBaseSettings):
    """`PREFECT_INTEGRATIONS_HPC_PREFECT_…` in the environment."""

    model_config: ClassVar[SettingsConfigDict] = build_settings_config(
        ("integrations", "hpc_prefect")
    )

    artifacts: bool = Field(
        default=True,
        description="Whether a flow run shows artifacts in Prefect: its page, failed jobs,"
        " quantum jobs, loops, comparisons.",
    )
    documentation_url: HttpUrl | None = Field(
        default=None,
        description="Where your group serves this package's documentation: what Prefect's UI links"
        " the block types to. An address that ends with / is that of the site which `make docs`"
        " builds: then each block type is linked to its own page, and has the site's picture."
        " None: Prefect's own page on blocks.",
    )
    logo_url: HttpUrl | None = Field(
        default=None,
        description="A picture for the block types in Prefect's UI. None: the site's, where its"
        " address is known, else Prefect's plain one.",
    )
