"""No secret is in a record, in the index, or in what is made of them."""

from __future__ import annotations

import json
import os
import zlib
from pathlib import Path

import pytest
from prefect import flow
from pydantic import SecretStr

from hpc_prefect import StopRule, campaign, converge, record_measures
from hpc_prefect.cli import main
from hpc_prefect.records.compare import compare
from hpc_prefect.records.compare.plots import picture
from hpc_prefect.records.compare.text import markdown, report
from hpc_prefect.records.fold import Record
from hpc_prefect.records.index import index_folder
from hpc_prefect.records.read import read_run

from ..flows.jobs import job
from ..flows.seen import until

pytestmark = pytest.mark.usefixtures("blocks")

#: Of each run another one; the profile's is of `blocks`.
SECRETS = ["hidden-4711", "hidden-4712", "hidden-4713", "hidden-4714", "secret-value-4711"]


@flow
async def experiment(
    work_dir: str, label: str, shots: int, api_token: str, key: SecretStr, many: list[object]
) -> None:
    with campaign(f"secrets-{shots}"):
        record_measures(password=api_token, label=label)
        await job(work_dir, label, execution_profile_overrides={"environment": {"A_TOKEN": "x"}})
        await converge(
            lambda state, _: state / 2,
            float(shots),
            measure=lambda state: {"energy": state},
            stop=StopRule(max_iterations=3, value="energy"),
            work_dir=work_dir,
            seed=7,
        )


@pytest.fixture(scope="module")
def compared(blocks: None, tmp_path_factory: pytest.TempPathFactory) -> list[Record]:
    """The records of two runs with different secrets."""
    import asyncio

    work_dir = tmp_path_factory.mktemp("secrets")
    for number, shots in enumerate((100, 200)):
        first, second = SECRETS[2 * number : 2 * number + 2]
        many: list[object] = [{"password": first}] * 300
        given = (str(work_dir), f"visible-{shots}", shots, first, SecretStr(second), many)
        asyncio.run(experiment(*given))  # type: ignore[arg-type]

    def read() -> list[Record]:
        return [read_run(each) for each in work_dir.glob(".hpc-prefect/*/runs/*")]

    until(lambda: [each.state for each in read()] == ["completed"] * 2)
    return sorted(read(), key=lambda each: each.started)


def shown(text: bytes) -> None:
    """What is no secret is found by this search, and no secret is."""
    assert b"visible-100" in text
    assert [secret for secret in SECRETS if secret.encode() in text] == []


def test_no_secret_is_in_a_record(compared: list[Record]) -> None:
    files = [file for each in compared for file in Path(each.folder).iterdir()]
    assert {"events.jsonl", "run.json"} <= {file.name for file in files}
    shown(b"".join(file.read_bytes() for file in files if file.name != "code.diff"))
    shown(json.dumps([each.as_dict() for each in compared]).encode())
    digests = [each.parameters["many"][-1] for each in compared]
    assert digests[0] == digests[1]  # of the same values, but for the secrets


def test_no_secret_is_in_the_index(compared: list[Record]) -> None:
    ids = [each.id for each in compared]
    until(lambda: {f"{ident}.json" for ident in ids} <= set(os.listdir(index_folder())))
    shown(b"".join(Path(index_folder(), f"{ident}.json").read_bytes() for ident in ids))


def test_no_secret_is_in_what_commands_tell(
    compared: list[Record], capsys: pytest.CaptureFixture[str]
) -> None:
    for words in (("--json",), (), ("--blocks",)):
        assert main(["runs", "show", compared[0].folder, *words]) == 0
        shown(capsys.readouterr().out.encode())


def test_no_secret_is_in_a_comparison(compared: list[Record]) -> None:
    found = compare(compared)
    for text in (report(found), markdown(found), json.dumps(found.as_dict())):
        shown(text.encode())


def test_no_secret_is_in_a_plot(compared: list[Record]) -> None:
    found = compare(compared, against="label")
    for form in ("svg", "png"):
        for against in ("iteration", "label"):
            drawn = picture(found, form=form, against=against, measures=["energy"])  # type: ignore[arg-type]
            text = b"".join(texts_of(drawn)) if form == "png" else drawn
            assert [secret for secret in SECRETS if secret.encode() in text] == []
            assert text


def texts_of(png: bytes) -> list[bytes]:
    """The text chunks of a picture, unpacked."""
    found, at = [], 8
    while at < len(png):
        size, kind = int.from_bytes(png[at : at + 4], "big"), png[at + 4 : at + 8]
        data = png[at + 8 : at + 8 + size]
        if kind == b"zTXt":
            data = zlib.decompress(data.partition(b"\0")[2][1:])
        found += [data] if kind in (b"tEXt", b"iTXt", b"zTXt") else []
        at += 12 + size
    return found
