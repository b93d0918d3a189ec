"""The quantum resources of an HPC profile: their variables, what is refused, and who they are."""

from __future__ import annotations

import json
from typing import Any

import pytest
from prefect.types import SecretDict
from pydantic import ValidationError

from hpc_prefect.blocks import (
    Call,
    CommandBlock,
    ExecutionProfileBlock,
    HPCProfileBlock,
    QRMIResource,
    resolve,
)
from hpc_prefect.errors import InvalidJob
from hpc_prefect.job.spec import JobSpec

EMULATOR = {"endpoint": "http://127.0.0.1:1/api", "session_mode": "batch", "session_max_ttl": 60}


def profile(**fields: Any) -> HPCProfileBlock:
    return HPCProfileBlock(**{"scheduler": "local", "executables": {"diag": "/d"}} | fields)


def resolved(where: HPCProfileBlock) -> tuple[JobSpec, dict[str, str]]:
    what = CommandBlock(command_name="diag", executable_key="diag")
    how = ExecutionProfileBlock(profile_name="p", command_name="diag")
    call = Call(script_filename="diag", work_dir="/work")
    return resolve(what, how, where, call, machine_cores=8)


def test_each_field_that_is_set_is_one_variable_beginning_with_the_resources_name() -> None:
    every = {
        "endpoint": "https://e", "iam_endpoint": "https://i", "service_crn": "crn:v1:x",
        "session_mode": "dedicated", "session_max_ttl": 600, "timeout_seconds": 30,
    }  # fmt: skip
    assert set(every) == set(QRMIResource.model_fields)

    spec, secrets = resolved(profile(qrmi={"a": every, "b": {}}, qrmi_api_keys={"a": "hunter2"}))

    assert spec.site.environment == {
        "QRMI_JOB_QPU_RESOURCES": "a,b",
        "QRMI_JOB_QPU_TYPES": "ibm-quantum-compute-service,ibm-quantum-compute-service",
        "a_QRMI_IBM_QCS_ENDPOINT": "https://e",
        "a_QRMI_IBM_QCS_IAM_ENDPOINT": "https://i",
        "a_QRMI_IBM_QCS_SERVICE_CRN": "crn:v1:x",
        "a_QRMI_IBM_QCS_SESSION_MODE": "dedicated",
        "a_QRMI_IBM_QCS_SESSION_MAX_TTL": "600",
        "a_QRMI_IBM_QCS_TIMEOUT_SECONDS": "30",
    }
    assert secrets == {"a_QRMI_IBM_QCS_IAM_APIKEY": "hunter2"}
    assert spec.secret_names == ("a_QRMI_IBM_QCS_IAM_APIKEY",)
    assert "hunter2" not in str(spec.as_dict())


@pytest.mark.parametrize("scheduler", ["local", "pbs", "pjm", "slurm"])
def test_they_are_set_whatever_the_scheduler(scheduler: str) -> None:
    spec, secrets = resolved(
        profile(scheduler=scheduler, qrmi={"emu": EMULATOR}, qrmi_api_keys={"emu": "k"})
    )
    assert spec.site.environment["emu_QRMI_IBM_QCS_ENDPOINT"] == EMULATOR["endpoint"]
    assert secrets == {"emu_QRMI_IBM_QCS_IAM_APIKEY": "k"}


def test_which_resources_a_job_has_is_left_to_the_plugin_that_is_asked() -> None:
    asked = {"qpu": ["emu"], "site_qpus": ["emu"]}
    spec, _ = resolved(profile(scheduler="slurm", slurm=asked, qrmi={"emu": EMULATOR}))
    assert not [name for name in spec.site.environment if name.startswith("QRMI_JOB_")]
    assert spec.site.environment["emu_QRMI_IBM_QCS_SESSION_MODE"] == "batch"


def test_a_qpu_that_the_site_has_not_is_refused_before_anything_is_submitted() -> None:
    asked = {"qpu": ["emo"], "site_qpus": ["emu"]}
    with pytest.raises(InvalidJob, match=r"'emo', which is not in slurm\.site_qpus; did you mean"):
        resolved(profile(scheduler="slurm", slurm=asked))


def test_what_a_person_sets_by_name_wins() -> None:
    spec, secrets = resolved(
        profile(
            qrmi={"emu": EMULATOR},
            qrmi_api_keys={"emu": "one"},
            environment={"emu_QRMI_IBM_QCS_SESSION_MODE": "dedicated"},
            secret_environment={"emu_QRMI_IBM_QCS_IAM_APIKEY": "two"},
        )
    )
    assert spec.site.environment["emu_QRMI_IBM_QCS_SESSION_MODE"] == "dedicated"
    assert secrets == {"emu_QRMI_IBM_QCS_IAM_APIKEY": "two"}


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"qrmi": {"emu": {"endpiont": "x"}}}, "no such field; did you mean 'endpoint' or"),
        ({"qrmi": {"emu": {"api_key": "hunter2"}}}, "there is no such field"),
        ({"qrmi": {"emu": {"session_mode": "job"}}}, "'batch' or 'dedicated'"),
        ({"qrmi": {"ibm-torino": {}}}, "'ibm-torino' is no name for a variable"),
        ({"qrmi": {"emu": {"endpoint": "a\0b"}}}, "has a NUL byte"),
        (
            {"qrmi": {"emu": {}}, "qrmi_api_keys": {"emo": "hunter2"}},
            "there is no resource 'emo' in qrmi; did you mean 'emu'?",
        ),
        ({"qrmi": {"emu": {}}, "qrmi_api_keys": {"emu": "hunter2\0"}}, "has a NUL byte"),
    ],
)
def test_what_cannot_be_is_refused_and_no_key_is_told(fields: dict[str, Any], text: str) -> None:
    with pytest.raises(ValidationError) as caught:
        profile(**fields)
    assert text in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_a_profile_from_the_server_is_judged_when_it_is_used() -> None:
    stored = profile().model_dump() | {
        "qrmi": {"a b": {}},
        "qrmi_api_keys": SecretDict({"emu": "hunter2"}),
    }
    with pytest.raises(InvalidJob) as caught:
        resolved(HPCProfileBlock.model_validate(stored))
    assert [text.partition(":")[0] for text in caught.value.problems] == [
        "HPC profile, qrmi",
        "HPC profile, qrmi_api_keys",
    ]
    assert "hunter2" not in str(caught.value)


def test_a_key_is_in_no_dump_or_text_of_the_profile() -> None:
    block = profile(qrmi={"emu": EMULATOR}, qrmi_api_keys={"emu": "hunter2"})
    shown = [repr(block), str(block.model_dump()), block.model_dump_json()]
    shown.append(json.dumps(HPCProfileBlock.model_json_schema()))
    assert [text for text in shown if "hunter2" in text] == []


def test_another_endpoint_makes_another_job_and_another_key_does_not() -> None:
    def identity(key: str = "one", **changes: Any) -> dict[str, Any]:
        where = profile(qrmi={"emu": EMULATOR | changes}, qrmi_api_keys={"emu": key})
        return resolved(where)[0].identity()

    assert identity(key="two") == identity()
    assert identity(endpoint="http://127.0.0.1:2/api") != identity()
