"""The block that says who pays: an account of IBM Quantum."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from prefect.blocks.core import Block
from pydantic import ConfigDict, Field, HttpUrl, SecretStr

from hpc_prefect.blocks.checks import StoredModel
from hpc_prefect.blocks.links import LOGO, documentation

if TYPE_CHECKING:
    from hpc_prefect.quantum.services.ibm.client import Account


class IBMQuantumCredentials(StoredModel, Block):
    """An account of IBM Quantum, for `QuantumBackendBlock`s of kind `ibm`.

    Loading it asks Prefect only, no service.

    Example:
        Load a stored account:
        ```python
        from hpc_prefect.quantum import IBMQuantumCredentials

        credentials = IBMQuantumCredentials.load("BLOCK_NAME")
        ```
    """

    # Without this the configuration of Prefect's base class would win, which keeps unknown fields.
    model_config = ConfigDict(extra="ignore")

    _block_type_name: ClassVar[str | None] = "HPC-Prefect IBM Quantum Credentials"
    _block_type_slug: ClassVar[str | None] = "hpc-prefect-ibm-credentials"
    _documentation_url: ClassVar[HttpUrl | None] = documentation("howto/ibm-credentials.html")
    _logo_url: ClassVar[HttpUrl | None] = LOGO

    token: SecretStr = Field(default=SecretStr(""))
    """The API key. Never shown, logged or written anywhere."""
    instance: str = ""
    """The instance that pays, by its CRN (`crn:v1:…`) or its name."""
    channel: Literal["ibm_quantum_platform", "ibm_cloud"] = "ibm_quantum_platform"
    """The platform, in IBM's own words."""
    url: str = ""
    """The service's address; empty: IBM's own."""

    def account(self) -> Account:
        """The account as the client takes it."""
        from hpc_prefect.quantum.services.ibm.client import Account

        return Account(
            token=self.token.get_secret_value(),
            instance=self.instance,
            channel=self.channel,
            url=self.url,
        )
