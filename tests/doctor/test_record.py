"""Transcripts: replayed they say the same, and they do not say who and where."""

from __future__ import annotations

import getpass
import json
import re
import socket
from pathlib import Path

import pytest

from hpc_prefect.blocks import PBSOptions
from hpc_prefect.doctor.record import Exchange, redact
from hpc_prefect.job.dialogue import Command, Reply
from hpc_prefect.job.spec import Executable, JobSpec, Resources, Site
from hpc_prefect.schedulers import scheduler_for
from hpc_prefect.schedulers.probes import probe

from ..schedulers import recorded as openpbs
from .rig import of, pbs


def one(stdout: str, *argv: str, names: dict[str, str] | None = None, jobs: tuple[str, ...] = ()):
    (entry,) = redact([Exchange(Command(argv), Reply(0, stdout))], names or {}, jobs)
    return entry


async def test_a_place_is_recorded_without_names_and_replayed_it_says_the_same(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "transcripts"
    with pbs(tmp_path) as place:
        found = await place.examined(submit=True, project_cpu="secretproject", record=folder)

    files = sorted(folder.iterdir())
    entries = [json.loads(file.read_text()) for file in files]
    text = "".join(file.read_text() for file in files)
    assert {key for entry in entries for key in entry} == {"argv", "rc", "stdout", "stderr"}
    assert any(file.name.endswith("_qsub.json") for file in files)
    hidden = (
        *(getpass.getuser(), socket.gethostname(), str(Path.home()), "secretproject"),
        *(str(place.work), str(place.program), "opbs", "c001"),
    )
    # Whole words: a host named vm is not in "vmem".
    shown = [name for name in hidden if re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text)]
    assert shown == []

    options = PBSOptions().model_dump()
    site = Site(scheduler="pbs", queue="workq", project="PROJECT", options=options)
    spec = JobSpec(
        name="n",
        command_name="c",
        executable=Executable(path="/bin/bash"),
        site=site,
        resources=Resources(),
        work_dir="/WORK_DIR",
    )
    asked = [each for each in entries if "/bin/test" not in each["argv"][0]]
    dialogue = probe(scheduler_for("pbs"), spec)
    command = next(dialogue)
    for entry in asked:
        assert list(command.argv) == entry["argv"]
        try:
            command = dialogue.send(Reply(entry["rc"], entry["stdout"], entry["stderr"]))
        except StopIteration as stop:
            replayed = stop.value
            break
    for check in ("status dialect", "search by name", "queue"):
        assert of(replayed, check) == of(found, check)
    assert of(replayed, "project").outcome == of(found, "project").outcome


def test_a_name_is_replaced_only_where_it_is_a_whole_word() -> None:
    entry = one("ann annex /home/ann/x ann@site.example", "x", names={"ann": "USER"})

    assert entry["stdout"] == "USER annex /home/USER/x MAIL"


def test_the_longer_of_two_paths_goes_first() -> None:
    names = {"/home/ann": "/HOME", "/home/ann/work": "/WORK_DIR", "ann": "USER"}

    assert one("", "/home/ann/work/s.sh", "/home/ann/x", names=names)["argv"] == [
        "/WORK_DIR/s.sh",
        "/HOME/x",
    ]


def test_a_recorded_job_keeps_its_shape_and_loses_hosts() -> None:
    reply = openpbs.recorded("held", "held_qstat_f_json")

    entry = one(
        reply.stdout, "qstat", "-f", "52.opbs", names={"hpcuser": "USER"}, jobs=("52.opbs",)
    )

    assert entry["argv"] == ["qstat", "-f", "1001.HOST"]
    (record,) = json.loads(entry["stdout"])["Jobs"].values()
    assert record["Job_Owner"] == "USER@HOST"
    assert "opbs" not in entry["stdout"]


def test_who_may_use_a_queue_is_not_told() -> None:
    reply = openpbs.recorded("status_all", "qstat_Q_f_json")

    entry = one(reply.stdout, "qstat", "-Q", "-f", "-F", "json")

    assert "gz99" not in entry["stdout"]
    assert json.loads(entry["stdout"])["Queue"]["acl-c"]["acl_group_enable"] == "True"


@pytest.mark.parametrize(
    ("argv", "stdout"),
    [(("id", "-Gn"), "physics gz00\n"), (("sacctmgr", "-n"), "physics\ngz00|x\n")],
)
def test_groups_and_accounts_are_not_told(argv: tuple[str, ...], stdout: str) -> None:
    first = Exchange(Command(("sbatch", "--account=physics")), Reply(0))
    then = Exchange(Command(argv), Reply(0, stdout))

    text = json.dumps(redact([first, then], {}))

    assert "physics" not in text
    assert "gz00" not in text


def test_the_rest_of_a_hosts_full_name_goes_too() -> None:
    assert one("12.login1.site.example x", "q", names={"login1": "HOST"})["stdout"] == "12.HOST x"


def test_a_job_id_becomes_one_that_is_nobodys() -> None:
    assert one("4711|n|RUNNING\n", "squeue", "--jobs=4711", jobs=("4711",)) == {
        "argv": ["squeue", "--jobs=1001"],
        "rc": 0,
        "stdout": "1001|n|RUNNING\n",
        "stderr": "",
    }


def test_a_name_that_is_cut_by_a_column_or_a_line_is_replaced_too() -> None:
    names = {"longusername": "USER", "/home/longusername": "/HOME"}
    table = "12.s  STDIN  longuserna*  0 R workq\n"
    record = "Job Id: 12.s\n    Error_Path = s:/home/longus\n\tername/x\n    Job_Owner = x@s\n"

    assert one(table, "qstat", names=names)["stdout"] == "12.s  STDIN  USER*  0 R workq\n"
    assert one(record, "qstat", "-f", "12", names=names)["stdout"] == (
        "Job Id: 12.HOST\n    Error_Path = HOST:/HOME/x\n    Job_Owner = x@HOST\n"
    )
