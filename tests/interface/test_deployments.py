"""The files of docs/deploy.md: served and deployed, started from their form, seen in the pages."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

import pytest
from playwright.sync_api import Page, expect
from playwright.sync_api import TimeoutError as TooLate
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterId
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.responses import DeploymentResponse
from prefect.exceptions import ObjectNotFound

from hpc_prefect import CommandBlock, ExecutionProfileBlock, HPCProfileBlock

from ..docs.pages import code_of
from .pages import choose, field, fill, picture

T = TypeVar("T")
EXPERIMENT, DEPLOY = (code.text for code in code_of("docs/deploy.md", "python"))
#: The names on the page, and this test's own.
PROFILES = {"hpc-local": "hpc-form", "cmd-diag": "cmd-form", "exec-diag": "exec-form"}
QUICK = {"PREFECT_RUNNER_POLL_FREQUENCY": "1", "PREFECT_WORKER_QUERY_SECONDS": "1"}


def shown(work_dir: Path, folder: Path | None = None) -> dict[str, str]:
    """This test's words, and those of the docs' pictures."""
    places = {str(work_dir): "/work/me/scan"} | ({str(folder): "/home/me/flows"} if folder else {})
    return places | {own: name for name, own in PROFILES.items()}


def until(look: Callable[[], T | None], what: str) -> T:
    """What `look` finds, as soon as it finds something."""
    deadline = time.monotonic() + 240
    while (found := look()) is None:
        assert time.monotonic() < deadline, f"no {what}"
        time.sleep(0.3)
    return found


@pytest.fixture(scope="module")
def client(prefect_server: object) -> Iterator[SyncPrefectClient]:
    with get_client(sync_client=True) as opened:
        yield opened


@pytest.fixture(scope="module")
def folder(prefect_server: object, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reader's folder, with both files of the page; and the blocks that they name."""
    place = tmp_path_factory.mktemp("experiment")
    for name, text in (("experiment.py", EXPERIMENT), ("deploy.py", DEPLOY)):
        (place / name).write_text(with_own_names(text))
    CommandBlock(command_name="diag", executable_key="diag").save(
        "cmd-form", overwrite=True, _sync=True
    )
    ExecutionProfileBlock(profile_name="diag", command_name="diag").save(
        "exec-form", overwrite=True, _sync=True
    )
    HPCProfileBlock(scheduler="local", executables={"diag": "/bin/echo"}).save(
        "hpc-form", overwrite=True, _sync=True
    )
    return place


def with_own_names(text: str) -> str:
    for shown, own in PROFILES.items():
        text = text.replace(f'"{shown}"', f'"{own}"')
    return text


@contextmanager
def running(folder: Path, *argv: str) -> Iterator[None]:
    """A program of the page in the background, ended at the end."""
    with (folder / f"{Path(argv[-1]).name}.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, *argv], cwd=folder, stdout=log, stderr=log, env=os.environ | QUICK
        )
        try:
            yield
        finally:
            process.terminate()
            process.wait(120)


@pytest.fixture(scope="module")
def served(client: SyncPrefectClient, folder: Path) -> Iterator[DeploymentResponse]:
    with running(folder, "experiment.py"):
        yield until(lambda: deployment(client, "by-hand"), "served flow")


@pytest.fixture(scope="module")
def nightly(client: SyncPrefectClient, folder: Path) -> Iterator[DeploymentResponse]:
    prefect = [sys.executable, "-m", "prefect"]
    pool = [*prefect, "work-pool", "create", "login-node", "--type", "process", "--overwrite"]
    for argv in (pool, [sys.executable, "deploy.py"]):
        done = subprocess.run(argv, cwd=folder, capture_output=True, text=True, timeout=280)
        assert done.returncode == 0, done.stdout + done.stderr
    with running(folder, "-m", "prefect", "worker", "start", "--pool", "login-node"):
        yield until(lambda: deployment(client, "nightly"), "deployment")


def deployment(client: SyncPrefectClient, name: str) -> DeploymentResponse | None:
    try:
        return client.read_deployment_by_name(f"experiment/{name}")
    except ObjectNotFound:
        return None


def form_of(page: Page, found: DeploymentResponse) -> None:
    page.goto(f"/deployments/deployment/{found.id}/run")
    field(page, "hpc_profile").wait_for()


def started_from_the_form(
    page: Page, client: SyncPrefectClient, found: DeploymentResponse, work_dir: Path
) -> FlowRun:
    """The run that the form has started, when it has ended."""
    form_of(page, found)
    fill(page, "work_dir", str(work_dir))
    choose(page, "hpc_profile", "hpc-form")
    fill(page, "level", "5")
    picture(page, "form-parameters", shown(work_dir))
    submit = page.get_by_role("button", name="Submit")
    with suppress(TooLate):  # the page leaves the form, or a busy one has not heard the click
        submit.click()
        page.wait_for_url(lambda url: not url.endswith("/run"), wait_until="commit")
    if page.url.endswith("/run") and not by_hand(client, found):
        submit.dispatch_event("click")  # no pointer: a word of the page's may lie over the button
    return until(lambda: ended_run(client, found), "run that has ended")


def by_hand(client: SyncPrefectClient, found: DeploymentResponse) -> list[FlowRun]:
    """The deployment's runs, without those of its schedule."""
    runs = client.read_flow_runs(
        deployment_filter=DeploymentFilter(id=DeploymentFilterId(any_=[found.id]))
    )
    return [run for run in runs if not run.auto_scheduled]


def ended_run(client: SyncPrefectClient, found: DeploymentResponse) -> FlowRun | None:
    return next((run for run in by_hand(client, found) if run.state and run.state.is_final()), None)


def test_a_served_flow_is_started_from_its_form(
    page: Page, client: SyncPrefectClient, served: DeploymentResponse, tmp_path: Path
) -> None:
    run = started_from_the_form(page, client, served, tmp_path)
    assert run.state is not None
    assert run.state.is_completed(), run.state
    assert run.parameters["level"] == 5


def test_the_form_explains_its_fields_and_offers_profiles(
    page: Page, nightly: DeploymentResponse
) -> None:
    form_of(page, nightly)
    texts = re.findall(r"^        (?:work_dir|hpc_profile|level): (.*)$", EXPERIMENT, re.MULTILINE)
    assert len(texts) == 3
    page_text = " ".join(page.locator("body").inner_text().split())
    assert [text for text in texts if text not in page_text] == []
    field(page, "hpc_profile").locator(".p-select-button__control").focus()
    page.keyboard.press("ArrowDown")
    expect(page.get_by_role("option")).to_have_text(["hpc-form", "hpc-slurm"])


@pytest.mark.timeout(600)
def test_a_deployment_has_its_schedule_runs_and_is_seen(
    page: Page,
    client: SyncPrefectClient,
    nightly: DeploymentResponse,
    tmp_path_factory: pytest.TempPathFactory,
    folder: Path,
) -> None:
    work_dir = tmp_path_factory.mktemp("scan")
    page.goto(f"/deployments/deployment/{nightly.id}")
    expect(page.get_by_text("At 02:00 AM every day")).to_be_visible()
    run = started_from_the_form(page, client, nightly, work_dir)
    assert run.state is not None
    assert run.state.is_completed(), run.state

    page.goto(f"/runs/flow-run/{run.id}")
    # A quick job runs by the first look at it.
    expect(page.get_by_text(re.compile("diag: (submitted|running) as")).first).to_be_visible()
    picture(page, "run-page", shown(work_dir))
    page.get_by_text("Artifacts", exact=True).click()
    expect(page.get_by_text("run-experiment").first).to_be_visible()
    page.get_by_text("run-experiment").first.click()
    expect(page.get_by_text("hpc-prefect runs show").first).to_be_visible()
    picture(page, "run-artifact", shown(work_dir, folder))
