"""Which job a person means."""

from __future__ import annotations

import json
import os

import pytest

from hpc_prefect.errors import UnknownJob
from hpc_prefect.job.spec import Executable, JobSpec, Resources, Site
from hpc_prefect.operations import find_job


def leave(work_dir, key, attempt=1, *, name="job", job_id="1.vm", tag="h"):
    """A job's folder as a dead process left it."""
    spec = JobSpec(
        name=name,
        command_name="c",
        executable=Executable(path="/bin/true"),
        site=Site(scheduler="local"),
        resources=Resources(),
        work_dir=str(work_dir),
    )
    folder = work_dir / ".hpc-prefect" / "campaign" / "ab" / f"{key}-{attempt}"
    folder.mkdir(parents=True)
    events = [
        {"time": attempt, "event": "intent", "tag": tag, "job": spec.as_dict()},
        {"time": attempt, "event": "submitted", "id": job_id},
    ]
    lines = "".join(json.dumps(event) + "\n" for event in events)
    (folder / "journal.jsonl").write_text(lines)
    return folder


@pytest.fixture
def work_dir(tmp_path):
    leave(tmp_path, "aaaaabcdef", 1, name="diag", job_id="17.server", tag="htag1")
    leave(tmp_path, "aaaaabcdef", 2, name="diag", job_id="18.server", tag="htag2")
    leave(tmp_path, "aabbbbbbbb", 1, name="merge", job_id="5")
    leave(tmp_path, "ccccc", 1, name="sample", job_id="6")
    leave(tmp_path, "ddddd", 1, name="sample", job_id="7")
    return tmp_path


@pytest.mark.parametrize(
    ("reference", "meant"),
    [
        pytest.param("aabb", "aabbbbbbbb-1", id="the beginning of a key"),
        pytest.param("aaa", "aaaaabcdef-2", id="of several attempts the newest"),
        pytest.param("aaa-1", "aaaaabcdef-1", id="an attempt"),
        pytest.param("aaaaabcdef-1", "aaaaabcdef-1", id="a folder's name"),
        pytest.param("17.server", "aaaaabcdef-1", id="an id"),
        pytest.param("18", "aaaaabcdef-2", id="an id without its server"),
        pytest.param("diag", "aaaaabcdef-2", id="a name"),
        pytest.param("htag1", "aaaaabcdef-1", id="a tag"),
    ],
)
def test_a_job_is_found_by(work_dir, reference, meant):
    assert os.path.basename(find_job(reference, work_dir).folder.path) == meant


def test_a_job_is_found_by_its_folder_from_anywhere(work_dir, tmp_path_factory):
    folder = work_dir / ".hpc-prefect" / "campaign" / "ab" / "ccccc-1"
    assert find_job(f"{folder}/", tmp_path_factory.mktemp("elsewhere")).key == "ccccc"


@pytest.mark.parametrize(
    ("reference", "candidates"),
    [
        ("sample", ["ccccc-1  sample  6  unknown", "ddddd-1  sample  7  unknown"]),
        ("aa", ["aaaaabcdef-2  diag  18.server  unknown", "aabbbbbbbb-1  merge  5  unknown"]),
    ],
)
def test_what_may_mean_several_jobs_lists_them(work_dir, reference, candidates):
    with pytest.raises(UnknownJob) as caught:
        find_job(reference, work_dir)
    first, *lines = str(caught.value).splitlines()
    assert first == f"{reference!r} matches 2 jobs; choose one by its key:"
    assert sorted(line.strip() for line in lines) == candidates


@pytest.mark.parametrize("reference", ["zzz", "aaa-3", "", "1", "no/such/folder-1"])
def test_what_means_no_job_says_where_it_was_looked_for(work_dir, reference):
    with pytest.raises(UnknownJob, match=rf"no job '{reference}' below {work_dir}/.hpc-prefect"):
        find_job(reference, work_dir)
