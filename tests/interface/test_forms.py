"""The three forms in Prefect's pages: each field explained, filled in by hand, saved, and taken."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page
from prefect.blocks.core import Block

from hpc_prefect import (
    CommandBlock,
    ExecutionProfileBlock,
    HPCProfileBlock,
    InvalidJob,
    run_job_from_blocks_sync,
)

from .pages import choose, explanations, field, fill, picture

#: What a person writes: text, numbers and JSON into boxes; what is chosen from a list.
WRITTEN: dict[type[Block], dict[str, str]] = {
    CommandBlock: {
        "Command name": "relax",
        "Executable key": "relax",
        "Default arguments": '["--level", "3"]',
    },
    ExecutionProfileBlock: {
        "Profile name": "relax-mpi",
        "Command name": "relax",
        "Nodes": "2",
        "Memory per node": "4G",
        "Walltime": "01:30:00",
        "Environment": '{"LEVEL": "3"}',
    },
    HPCProfileBlock: {
        "Queue of CPU jobs": "normal",
        "Executables": '{"relax": "/work/me/bin/relax"}',
        "Launcher": "srun -n {ranks} {command}",
        "Modules": '["gcc/12"]',
        "Secret environment": '{"MY_TOKEN": "hush"}',
        "QoS": "long",
    },
}
NAMES = {
    CommandBlock: "cmd-relax",
    ExecutionProfileBlock: "exec-relax-mpi",
    HPCProfileBlock: "hpc-relax",
}
CHOSEN = {ExecutionProfileBlock: {"Launch": "mpi"}, HPCProfileBlock: {"Scheduler": "slurm"}}

SAVED: dict[type[Block], dict[str, Any]] = {
    CommandBlock: {"executable_key": "relax", "default_args": ["--level", "3"]},
    ExecutionProfileBlock: {
        "num_nodes": 2,
        "memory_per_node": "4G",
        "walltime": "01:30:00",
        "environment": {"LEVEL": "3"},
        "launch": "mpi",
    },
    HPCProfileBlock: {
        "scheduler": "slurm",
        "queue_cpu": "normal",
        "executables": {"relax": "/work/me/bin/relax"},
        "launcher": "srun -n {ranks} {command}",
        "modules": ["gcc/12"],
    },
}


@pytest.fixture(scope="module", autouse=True)
def registered(prefect_server: object) -> None:
    for block in WRITTEN:
        block.register_type_and_schema(_sync=True)


def opened(page: Page, block: type[Block]) -> None:
    page.goto(f"/blocks/catalog/{block._block_type_slug}/create")
    field(page, "Block Name").wait_for()


def described(block: type[Block]) -> set[str]:
    """The explanations that the form is to show, as they are read: without marks of code."""
    schema = block.model_json_schema()
    groups = schema.get("definitions", {})
    fields, texts = list(schema["properties"].values()), set()
    for each in fields:
        inside = [ref["$ref"] for ref in (each, *each.get("allOf", ())) if "$ref" in ref]
        for name in inside:
            group = groups[name.rpartition("/")[2]]
            fields += group["properties"].values()
            texts.add(group["description"])
        if not inside:
            texts.add(each["description"].replace("`", ""))
    return texts


@pytest.mark.parametrize("block", WRITTEN)
def test_each_field_is_explained(page: Page, block: type[Block]) -> None:
    opened(page, block)
    assert described(block) - set(explanations(page)) == set()


@pytest.mark.parametrize("block", WRITTEN)
def test_no_field_is_drawn_as_tabs_or_left_empty(page: Page, block: type[Block]) -> None:
    opened(page, block)
    assert page.get_by_role("tab").count() == 0
    boxes = page.locator(".p-label__body")
    assert [i for i in range(boxes.count()) if not boxes.nth(i).inner_html().strip()] == []
    assert page.get_by_text("undefined").count() == 0


@pytest.mark.parametrize("block", WRITTEN)
def test_what_is_filled_in_is_saved(page: Page, block: type[Block]) -> None:
    opened(page, block)
    name = NAMES[block]
    fill(page, "Block Name", name)
    for title, value in WRITTEN[block].items():
        fill(page, title, value)
    for title, value in CHOSEN.get(block, {}).items():
        choose(page, title, value)
    picture(page, f"form-{(block._block_type_slug or '').removeprefix('hpc-prefect-')}")
    page.get_by_role("button", name="Create").click()
    page.wait_for_url("**/blocks/block/*")
    saved = block.load(name, _sync=True)
    assert {key: getattr(saved, key) for key in SAVED[block]} == SAVED[block]


def test_a_secret_is_not_shown_again(page: Page) -> None:
    name = "with-a-secret"
    profile = HPCProfileBlock(scheduler="local", secret_environment={"MY_TOKEN": "hush"})
    saved = profile.save(name, overwrite=True, _sync=True)
    page.goto(f"/blocks/block/{saved}")
    page.get_by_text("Secret environment").first.wait_for()
    assert "hush" not in page.content()


def test_what_is_wrong_in_a_form_is_said_before_a_job_is_submitted(
    page: Page, tmp_path: Path
) -> None:
    """Prefect's form saves a walltime that is none; the call refuses it."""
    opened(page, ExecutionProfileBlock)
    for title, value in {
        "Block Name": "exec-wrong-by-hand",
        "Profile name": "wrong",
        "Command name": "relax",
        "Walltime": "1h",
    }.items():
        fill(page, title, value)
    page.get_by_role("button", name="Create").click()
    page.wait_for_url("**/blocks/block/*")
    CommandBlock(command_name="relax", executable_key="relax").save(
        "cmd-right", overwrite=True, _sync=True
    )
    HPCProfileBlock(scheduler="local", executables={"relax": "/bin/true"}).save(
        "hpc-right", overwrite=True, _sync=True
    )
    with pytest.raises(InvalidJob, match=r"walltime.*1h"):
        run_job_from_blocks_sync(
            command_block_name="cmd-right",
            execution_profile_block_name="exec-wrong-by-hand",
            hpc_profile_block_name="hpc-right",
            work_dir=tmp_path,
            script_filename="relax",
        )
