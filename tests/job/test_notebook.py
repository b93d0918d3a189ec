"""Results as a notebook shows them: short, and harmless whatever is in them."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from hpc_prefect.batch.arrays.results import JobResults
from hpc_prefect.convergence.loop import Convergence
from hpc_prefect.job import notebook
from hpc_prefect.job.failure import Reason, Verdict
from hpc_prefect.job.result import JobResult
from hpc_prefect.quantum.task import QuantumJob
from hpc_prefect.records import runs
from hpc_prefect.records.compare import compare
from hpc_prefect.records.read import read_run

from ..records import given

EVIL = "<img src=x onerror=alert(1)>&\n\x1b[2J"


class Page(HTMLParser):
    """What a browser makes of a text: its tags, those that are still open, and what is read."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []
        self.words = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, _: Any) -> None:
        self.tags.append(tag)
        if tag != "img":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words = " ".join(f"{self.words} {data}".split())


def result(name: str, reason: Reason = Reason.SUCCEEDED, **more: Any) -> JobResult:
    values: dict[str, Any] = {
        "job_id": "4711", "name": name, "tag": "t", "key": "k", "attempt": 1,
        "verdict": Verdict(reason=reason, summary=f"ended so {EVIL}"),
        "folder": "/w/.hpc-prefect/c/k-1", "script_path": "s", "stdout_path": "/w/stdout",
        "stderr_path": "/w/stderr", "host": "node-1", "run_seconds": 2.5, "num_nodes": 1,
    }  # fmt: skip
    return JobResult(**values | more)


def shown(value: Any) -> Page:
    page = Page(value._repr_html_())
    assert page.open == []
    assert "\x1b" not in page.words
    return page


@pytest.fixture
def found(tmp_path: Path) -> runs.RunList:
    folders = [
        given.run(
            tmp_path / str(n), ident=f"{n}{n}{n}{n}-a", name=f"run-{n} {EVIL}",
            parameters={"shots": n, EVIL: EVIL}, measures={"energy": -1.5 * n},
        )
        for n in range(1, 3)
    ]  # fmt: skip
    return runs.RunList(
        runs.RunSummary.of(read_run(folder, with_jobs=False).summary()) for folder in folders
    )


def test_a_job_that_succeeded_is_its_name_state_times_and_output() -> None:
    page = shown(result("diag"))
    assert "diag : succeeded" in page.words
    assert "4711" in page.words
    assert "seconds of running 2.5" in page.words
    assert "what to do" not in page.words


def test_a_job_that_failed_says_why_and_what_to_do() -> None:
    page = shown(result(EVIL, Reason.OUT_OF_MEMORY))
    assert set(page.tags) <= {"div", "b", "table", "tr", "th", "td"}
    assert "out of memory: ended so <img src=x" in page.words
    assert "what to do" in page.words
    assert "/w/stderr" in page.words


def test_of_many_jobs_those_that_failed_come_first_and_the_rest_is_counted() -> None:
    members = [result(f"scan[{n}]") for n in range(30)]
    members.append(result("scan[30]", Reason.WALLTIME))
    page = shown(JobResults("scan", members))
    assert "31 jobs, 30 succeeded, 1 walltime exceeded" in page.words
    assert page.words.index("scan[30]") < page.words.index("scan[0]")
    assert f"… and {31 - notebook.MOST} more" in page.words


def test_a_list_of_runs_is_a_table_with_what_tells_them_apart(found: runs.RunList) -> None:
    page = shown(found)
    assert "img" not in page.tags
    for each in ("2 runs", "shots", "energy", "run-1", "-1.5", "run-2", "-3"):
        assert each in page.words


def test_a_comparison_is_its_tables(found: runs.RunList) -> None:
    page = shown(compare([read_run(each.folder) for each in found]))
    assert "img" not in page.tags
    assert page.tags.count("table") >= 2
    for each in ("shots", "energy", "run-1", "run-2"):
        assert each in page.words


def test_a_loop_is_its_verdict_its_last_rows_and_its_plot(tmp_path: Path) -> None:
    picture = tmp_path / "loop.png"
    picture.write_bytes(b"\x89PNG")
    history = tuple({"iteration": n, "energy": -1.0 / n, "time": "t"} for n in range(1, 15))
    loop: Convergence[None] = Convergence(
        state=None, history=history, converged=True, reason="tolerance", iterations=14,
        verdict="converged (tolerance)", name="vqe", plot=picture,
    )  # fmt: skip
    page = shown(loop)
    assert "vqe : converged (tolerance)" in page.words
    assert page.tags.count("tr") == 11
    assert page.tags.count("img") == 1


def test_a_quantum_job_is_its_device_id_and_record() -> None:
    job = QuantumJob(
        kind="sampler", backend=EVIL, job_id="abc", digest="d" * 40, folder="/f", work_dir="/w"
    )
    page = shown(job)
    assert "abc" in page.words
    assert "img" not in page.tags
