"""Quantum resources inside a batch job: what QRMI reads, as environment variables.

QRMI, the quantum resource management interface, is configured by variables that begin with the
resource's name. On Slurm a plug-in can set them; anywhere else, the HPC profile does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from hpc_prefect.blocks.checks import (
    StrictModel,
    environment_problems,
    is_loading,
    suggestion,
    variable_problems,
)

#: QRMI's name for the type of the resources here.
_SERVICE = "ibm-quantum-compute-service"
_PREFIX = "QRMI_IBM_QCS"


class QRMIResource(StrictModel):
    """How QRMI reaches one resource of the IBM Quantum Compute Service, apart from its API key."""

    endpoint: str = ""
    """The service's URL (`NAME_QRMI_IBM_QCS_ENDPOINT`)."""
    iam_endpoint: str = ""
    """The URL that exchanges an API key for a token (`…_IAM_ENDPOINT`)."""
    service_crn: str = ""
    """The instance that is charged (`…_SERVICE_CRN`)."""
    session_mode: Literal["", "batch", "dedicated"] = ""
    """The kind of session that is opened for the job (`…_SESSION_MODE`); empty: QRMI's default."""
    session_max_ttl: int = Field(default=0, ge=0)
    """How long the session may be open, in seconds (`…_SESSION_MAX_TTL`); 0: QRMI's default."""
    timeout_seconds: int = Field(default=0, ge=0)
    """The most QPU seconds of one primitive job (`…_TIMEOUT_SECONDS`); 0: QRMI's default."""


def _checked(resources: dict[str, QRMIResource]) -> dict[str, QRMIResource]:
    if not is_loading() and (problems := resource_problems(resources)):
        raise PydanticCustomError("value", "; ".join(problems))
    return resources


QRMIResources = Annotated[dict[str, QRMIResource], AfterValidator(_checked)]


def qrmi_environment(
    resources: Mapping[str, QRMIResource], *, by_plugin: bool = False
) -> dict[str, str]:
    """The variables of all resources, without their keys; empty fields are left to QRMI.

    Args:
        by_plugin: Slurm's plug-in lists the resources, since the job asks for them by `--qpu`.
    """
    if not resources:
        return {}
    found = {}
    if not by_plugin:
        found["QRMI_JOB_QPU_RESOURCES"] = ",".join(resources)
        found["QRMI_JOB_QPU_TYPES"] = ",".join(_SERVICE for _ in resources)
    for name, resource in resources.items():
        given = ((field, getattr(resource, field)) for field in QRMIResource.model_fields)
        found |= {
            f"{name}_{_PREFIX}_{field.upper()}": str(value) for field, value in given if value
        }
    return found


def qrmi_secrets(keys: Mapping[str, str]) -> dict[str, str]:
    """The secret variables: one API key for each resource."""
    return {f"{name}_{_PREFIX}_IAM_APIKEY": key for name, key in keys.items()}


def resource_problems(resources: Mapping[str, QRMIResource]) -> list[str]:
    """What is wrong with the resources' names and values."""
    problems = [text for name in resources for text in variable_problems(name)]
    if not problems:
        problems += environment_problems(qrmi_environment(resources))
    return problems


def key_problems(resources: Mapping[str, QRMIResource], keys: Mapping[str, object]) -> list[str]:
    """The problems of the API keys; never contains a key."""
    return environment_problems(keys) + [
        f"there is no resource {name!r} in qrmi{suggestion(name, resources)}"
        for name in keys
        if name not in resources
    ]
