"""What Prefect's form for a block shows, and what it checks before it saves."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prefect.blocks.core import Block

from hpc_prefect.blocks import CommandBlock, ExecutionProfileBlock, HPCProfileBlock
from hpc_prefect.job.spec import parse_memory, parse_walltime

BLOCKS: list[type[Block]] = [CommandBlock, ExecutionProfileBlock, HPCProfileBlock]


def schema(block: type[Block]) -> dict[str, Any]:
    return block.model_json_schema()


def pattern(name: str, block: type[Block] = HPCProfileBlock) -> re.Pattern[str]:
    return re.compile(schema(block)["properties"][name]["pattern"])


@pytest.mark.parametrize("block", BLOCKS)
def test_titles_are_words(block: type[Block]) -> None:
    definitions = schema(block).get("definitions", {}).values()
    fields = [schema(block)["properties"], *(each["properties"] for each in definitions)]
    titles = {name: field["title"] for each in fields for name, field in each.items()}
    assert not [title for title in titles.values() if "_" in title or title.endswith(" Cpu")]
    assert titles.get("gpus_per_node", "GPUs per node") == "GPUs per node"
    groups = {each["title"] for each in definitions}
    assert not [title for title in groups if re.search("[a-z][A-Z]", title)], groups


def test_the_groups_of_an_hpc_profile_have_names_for_people() -> None:
    groups = [each["title"] for each in schema(HPCProfileBlock)["definitions"].values()]
    assert {"GPU side", "Options for local", "Options for Slurm"} <= set(groups)


@pytest.mark.parametrize("block", BLOCKS)
def test_a_box_for_json_shows_an_example_that_would_be_taken(block: type[Block]) -> None:
    for name, field in schema(block)["properties"].items():
        if field.get("type") in ("object", "array"):
            (example,) = field["examples"]
            others = {"scheduler": "local", "command_name": "c", "executable_key": "k"}
            others |= {"profile_name": "p", "qrmi": {"ibm_torino": {}}}
            given = {k: v for k, v in others.items() if k in block.model_fields} | {name: example}
            assert block(**given)


def parts(block: type[Block]) -> list[dict[str, Any]]:
    """The schema of the block itself, and of each group of fields in it."""
    return [schema(block), *schema(block).get("definitions", {}).values()]


@pytest.mark.parametrize("block", BLOCKS)
def test_every_field_is_explained_in_one_paragraph(block: type[Block]) -> None:
    """The form would draw each line as a paragraph."""
    texts = {
        (part["title"], name): field.get("description", "")
        for part in parts(block)
        for name, field in part["properties"].items()
        if "allOf" not in field and "$ref" not in field
    }
    assert [where for where, text in texts.items() if not text or "\n" in text] == []


@pytest.mark.parametrize("block", BLOCKS)
def test_the_explanation_of_a_group_has_no_marks_of_code(block: type[Block]) -> None:
    """The form would show the marks."""
    texts = [part["description"] for part in parts(block)[1:]]
    assert [text for text in texts if "`" in text or "\n" in text] == []


@pytest.mark.parametrize("block", BLOCKS)
def test_a_box_for_json_in_a_group_shows_an_example(block: type[Block]) -> None:
    missing = [
        (part["title"], name)
        for part in parts(block)[1:]
        for name, field in part["properties"].items()
        if field.get("type") in ("object", "array") and not field.get("examples")
    ]
    assert missing == []


@pytest.mark.parametrize("wrong", ["", "1h", "90 min", "-1:00", "10", "1:2:3"])
def test_a_walltime_that_is_none_is_refused_before_it_is_saved(wrong: str) -> None:
    assert not pattern("walltime", ExecutionProfileBlock).search(wrong)
    with pytest.raises(ValueError, match="walltime"):
        ExecutionProfileBlock(profile_name="p", command_name="c", walltime=wrong)


TIME, SIZE = pattern("max_walltime"), pattern("memory_per_node")
TIMES = st.text("0123456789:- d", max_size=12)
SIZES = st.text("0123456789.KMGTkgiB ", max_size=8)


@settings(deadline=None)
@given(TIMES, SIZES)
def test_the_form_refuses_nothing_that_is_right(time: str, size: str) -> None:
    for text, parse, form in ((time, parse_walltime, TIME), (size, parse_memory, SIZE)):
        try:
            parse(text)
        except ValueError:
            continue
        assert form.search(text)


@pytest.mark.parametrize("block", BLOCKS)
def test_the_snippet_runs_a_job_with_the_block(block: type[Block]) -> None:
    example = block.get_code_example() or ""
    assert "await run_job_from_blocks(" in example
    assert example.count('"BLOCK_NAME"') == 2


@pytest.mark.parametrize("given", ["", "https://docs.example.org/hpc"])
def test_a_group_says_where_its_documentation_and_logo_are(given: str) -> None:
    """Prefect takes addresses of the web alone, and this package has none that is public."""
    program = (
        "from hpc_prefect.blocks import CommandBlock; from hpc_prefect import QuantumBackendBlock\n"
        "for kind in (CommandBlock, QuantumBackendBlock):\n"
        "    made = kind._to_block_type()\n"
        "    print(made.documentation_url, made.logo_url)\n"
    )
    names = ("DOCUMENTATION_URL", "LOGO_URL")
    settings = {f"PREFECT_INTEGRATIONS_HPC_PREFECT_{name}": given for name in names if given}
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | settings, capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    wanted = f"{given} {given}" if given else "https://docs.prefect.io/v3/concepts/blocks None"
    assert done.stdout.splitlines() == [wanted] * 2


def test_of_the_served_site_each_type_has_its_page_and_the_logo() -> None:
    site = "https://docs.example.org/hpc/"
    program = (
        "from hpc_prefect.block_files.document import BLOCKS\n"
        "from hpc_prefect import QuantumBackendBlock\n"
        "from hpc_prefect.quantum.credentials import IBMQuantumCredentials\n"
        "for kind in (*BLOCKS.values(), QuantumBackendBlock, IBMQuantumCredentials):\n"
        "    made = kind._to_block_type()\n"
        "    print(made.documentation_url, made.logo_url)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"PREFECT_INTEGRATIONS_HPC_PREFECT_DOCUMENTATION_URL": site},
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    docs = Path(__file__).parents[2] / "docs"
    addresses = set(done.stdout.split())
    assert len(addresses) > 2
    for each in addresses:
        assert each.startswith(site)
        assert (docs / each.removeprefix(site).replace(".html", ".md")).exists()
