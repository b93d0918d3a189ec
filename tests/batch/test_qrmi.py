"""A real job that is given a quantum resource: what its program sees, and what no file tells."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path

from prefect import flow

from hpc_prefect import JobResult
from hpc_prefect.blocks import HPCProfileBlock

from ..flows.jobs import job

KEY = "qrmi-key-4711"
NAME = "hpc-qrmi"

#: Tells what QRMI would read; of the key its digest only.
PROGRAM = """
printf %s "$emu_QRMI_IBM_QCS_IAM_APIKEY" | sha256sum
env | grep QRMI | grep -v APIKEY | sort
"""


@flow
async def with_a_qpu(work_dir: str) -> JobResult:
    return await job(work_dir, "qpu", PROGRAM, hpc_profile_block_name=NAME)


async def test_the_program_has_the_resource_and_its_key_and_no_file_has_the_key(
    blocks: None, spool: Path, tmp_path: Path
) -> None:
    profile = HPCProfileBlock(
        scheduler="local",
        executables={"sh": "/bin/sh"},
        qrmi={"emu": {"endpoint": "http://127.0.0.1:1/api", "session_mode": "batch"}},
        qrmi_api_keys={"emu": KEY},
        local={"slots": 12, "spool": str(spool)},
    )
    await profile.save(NAME, overwrite=True)

    result = await with_a_qpu(str(tmp_path))

    digest, *variables = Path(result.stdout_path).read_text().splitlines()
    assert digest.split()[0] == sha256(KEY.encode()).hexdigest()
    assert variables == [
        "QRMI_JOB_QPU_RESOURCES=emu",
        "QRMI_JOB_QPU_TYPES=ibm-quantum-compute-service",
        "emu_QRMI_IBM_QCS_ENDPOINT=http://127.0.0.1:1/api",
        "emu_QRMI_IBM_QCS_SESSION_MODE=batch",
    ]
    files = {each: each.read_bytes() for each in tmp_path.rglob("*") if each.is_file()}
    assert [path for path, content in files.items() if KEY.encode() in content] == []
    assert {"record.json", Path(result.script_path).name} <= {path.name for path in files}

    record = json.loads(Path(result.folder, "record.json").read_text())
    assert record["job"]["secret_names"] == ["emu_QRMI_IBM_QCS_IAM_APIKEY"]
    assert record["job"]["site"]["environment"] == dict(each.split("=", 1) for each in variables)
    assert record["blocks"]["hpc"]["qrmi"]["emu"]["endpoint"] == "http://127.0.0.1:1/api"
    intents = [content for path, content in files.items() if "journal" in path.name]
    assert intents
    assert any(b"emu_QRMI_IBM_QCS_IAM_APIKEY" in content for content in intents)
