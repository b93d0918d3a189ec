"""What probes make of recorded answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hpc_prefect.blocks import PBSOptions, PJMOptions, SlurmOptions
from hpc_prefect.job.dialogue import Command, Dialogue, Reply
from hpc_prefect.job.spec import Executable, JobSpec, Resources, Site
from hpc_prefect.schedulers import scheduler_for
from hpc_prefect.schedulers.finding import Finding, Outcome
from hpc_prefect.schedulers.pbs.probe import read_queues
from hpc_prefect.schedulers.probe import PROJECT, QUEUE, untold
from hpc_prefect.schedulers.probes import probe

from ..schedulers import recorded as openpbs
from .rig import of, wrong

FOLDER = Path(__file__).parents[1] / "transcripts" / "slurm"
THERE = Reply(0, "/usr/bin/x\n")
UNKNOWN_ID = Reply(1, stderr="slurm_load_jobs error: Invalid job id specified\n")


def slurm(name: str) -> Reply:
    found = json.loads((FOLDER / f"{name}.json").read_text())
    return Reply(found["rc"], found["stdout"], found["stderr"])


def job(scheduler: str, options: dict[str, Any], queue: str = "", project: str = "") -> JobSpec:
    return JobSpec(
        name="doctor",
        command_name="doctor",
        executable=Executable(path="/bin/bash"),
        site=Site(scheduler=scheduler, queue=queue, project=project, options=options),
        resources=Resources(),
        work_dir="/w",
    )


def answered(
    dialogue: Dialogue[list[Finding]], answers: dict[str, Reply]
) -> tuple[list[Finding], list[str]]:
    """The findings when each command gets the answer of the first text that it begins with."""
    commands: list[str] = []
    try:
        command: Command = next(dialogue)
        while True:
            commands.append(str(command))
            reply = next((r for text, r in answers.items() if str(command).startswith(text)), None)
            assert reply is not None, f"no answer to: {command}"
            command = dialogue.send(reply)
    except StopIteration as stop:
        return stop.value, commands


# --- Slurm


def on_slurm(
    queue: str = "normal",
    project: str = "proj",
    accounting: bool = True,
    max_array_size: int = 1001,
    **answers: Reply,
) -> tuple[list[Finding], list[str]]:
    options = SlurmOptions(accounting=accounting, max_array_size=max_array_size).model_dump()
    given = {name.replace("_", " "): reply for name, reply in answers.items()}
    usual = {
        "/bin/sh -c": THERE,
        "squeue --version": slurm("squeue_version"),
        "squeue --noheader --states=all --Format=": UNKNOWN_ID,
        "scontrol show config": slurm("scontrol_config"),
        "sinfo": slurm("sinfo_partitions"),
        "sbatch": slurm("sbatch_test_only_ok"),
        "id -un": Reply(0, "hpcuser\n"),
        "sacctmgr": slurm("sacctmgr_assoc"),
        "sacct": slurm("sacct_unknown"),
    }
    spec = job("slurm", options, queue, project)
    return answered(
        probe(scheduler_for("slurm"), spec),
        given | {text: usual[text] for text in usual if text not in given},
    )


def test_a_slurm_where_everything_is_right_has_nothing_wrong_and_nothing_is_submitted() -> None:
    found, commands = on_slurm()

    assert {each.outcome for each in found} == {Outcome.OK}
    assert of(found, "queue").seen == "'normal' is up, 4 nodes, limit 1-00:00:00"
    assert [c for c in commands if c.startswith("sbatch")] == [
        "sbatch --test-only --nodes=1 --ntasks-per-node=1 --cpus-per-task=1 --time=0-00:05:00"
        " --partition=normal --account=proj --no-requeue --wrap=true"
    ]


def test_the_default_partition_is_named() -> None:
    assert of(on_slurm(queue="")[0], "queue").seen.startswith("the default: 'normal' is up")


@pytest.mark.parametrize(
    ("queue", "seen", "remedy"),
    [
        ("nosuch", "there is no partition 'nosuch'", "normal, short, preemptible, requeueable"),
        ("short", "partition 'short' takes jobs but starts none (down)", "to: normal"),
        ("preemptible", "partition 'preemptible' takes no jobs (inactive)", "to: normal"),
        ("requeueable", "partition 'requeueable' takes no jobs (drain)", "to: normal"),
    ],
)
def test_a_partition_that_is_not_open_is_told_with_those_that_are(
    queue: str, seen: str, remedy: str
) -> None:
    found = of(on_slurm(queue=queue)[0], "queue")

    assert (found.outcome, found.seen) == (Outcome.WRONG, seen)
    assert "queue_cpu" in found.remedy
    assert found.remedy.endswith(remedy)


def test_a_project_that_slurm_refuses_is_told_with_the_users_own() -> None:
    found, _ = on_slurm(project="nosuch", sbatch=slurm("sbatch_test_only_bad_account"))

    assert wrong(found) == ["project"]
    assert of(found, "project").remedy == (
        "set project_cpu of the HPC profile to an account of yours: proj, root"
    )


def test_where_accounts_are_not_shown_a_refused_project_is_still_told() -> None:
    refused = slurm("sbatch_test_only_bad_account")
    found, _ = on_slurm(sbatch=refused, sacctmgr=Reply(1, stderr="no access"))

    assert of(found, "project").remedy.startswith("set project_cpu of the HPC profile to an acc")


def test_an_option_that_slurm_refuses_is_told_in_its_words() -> None:
    found, _ = on_slurm(sbatch=slurm("sbatch_test_only_bad_qos"))

    assert wrong(found) == ["submission"]
    assert "Invalid qos specification" in of(found, "submission").seen


def test_without_accounting_a_project_cannot_be_told() -> None:
    found, commands = on_slurm(accounting=False)

    assert of(found, "project").outcome is Outcome.UNKNOWN
    assert of(found, "history").outcome is Outcome.UNKNOWN
    assert not [each for each in commands if each.startswith("sacct")]


def test_a_place_without_accounting_wants_it_said_in_the_profile() -> None:
    found, _ = on_slurm(sacct=slurm("light_sacct"))

    assert wrong(found) == ["history"]
    assert "slurm.accounting = false" in of(found, "history").remedy


def test_a_controller_that_does_not_answer_stops_the_questions() -> None:
    found, commands = on_slurm(**{"squeue_--noheader": slurm("ctld_down_squeue")})

    assert wrong(found) == ["status dialect"]
    assert of(found, "queue").outcome is Outcome.UNKNOWN
    assert not [each for each in commands if each.startswith("s") and "squeue" not in each]


def test_what_is_no_answer_of_squeue_is_not_taken_for_one() -> None:
    found, _ = on_slurm(**{"squeue_--noheader": Reply(0, "JOBID|STATE\n")})

    assert wrong(found) == ["status dialect"]
    assert "an answer of squeue is cut off" in of(found, "status dialect").seen


def test_a_command_that_is_missing_is_named_and_nothing_else_is_asked() -> None:
    found, commands = on_slurm(**{'/bin/sh -c command -v -- "$1" sh sinfo': Reply(127)})

    assert wrong(found) == ["commands"]
    assert of(found, "commands").seen == "'sinfo' is not on PATH"
    assert all(each.startswith("/bin/sh") for each in commands)


@pytest.mark.parametrize(
    ("size", "outcome", "seen"),
    [
        (1001, Outcome.OK, "the profile allows 1001 elements, Slurm 10001"),
        (10001, Outcome.OK, "the profile allows 10001 elements, Slurm 10001"),
        (10002, Outcome.WRONG, "the profile allows 10002 elements, Slurm only 10001"),
        (0, Outcome.OK, "the profile switches them off: jobs are submitted one by one"),
    ],
)
def test_a_profile_with_larger_arrays_than_slurm_takes_is_told(
    size: int, outcome: Outcome, seen: str
) -> None:
    found = of(on_slurm(max_array_size=size)[0], "arrays")

    assert (found.outcome, found.seen) == (outcome, seen)
    assert (found.remedy == "set slurm.max_array_size = 10001 in the HPC profile") is (
        outcome is Outcome.WRONG
    )


def test_a_slurm_that_does_not_tell_how_large_arrays_may_be_is_no_mistake() -> None:
    found, _ = on_slurm(scontrol=Reply(1, stderr="not for you"))

    assert wrong(found) == []
    assert of(found, "arrays").outcome is Outcome.UNKNOWN


# --- PBS


def on_pbs(
    queue: str = "regular-c", project: str = "", groups: str = "gz00 gz01", **options: Any
) -> tuple[list[Finding], list[str]]:
    answers = {
        "/bin/sh -c": THERE,
        "qstat -E": Reply(0),
        "qselect": Reply(0),
        "id -Gn": Reply(0, f"{groups}\n"),
        "qstat -Q": openpbs.recorded("status_all", "qstat_Q_f_json"),
        "qstat -B": openpbs.recorded("status_all", "qstat_B_f_json"),
    }
    spec = job("pbs", PBSOptions(**options).model_dump(), queue, project)
    return answered(probe(scheduler_for("pbs"), spec), answers)


def test_a_pbs_queue_that_is_open_is_fine() -> None:
    found, _ = on_pbs()

    assert wrong(found) == []
    assert of(found, "queue").seen == "'regular-c' is enabled and started"


def test_the_default_queue_of_pbs_is_looked_at() -> None:
    assert of(on_pbs(queue="")[0], "queue").seen == "'workq' is enabled and started"


@pytest.mark.parametrize(
    ("queue", "seen"),
    [
        ("nosuch", "there is no queue 'nosuch'"),
        ("disabled-c", "queue 'disabled-c' takes no jobs (enabled = False)"),
        ("stopped-c", "queue 'stopped-c' takes jobs but starts none (started = False)"),
        ("acl-c", "queue 'acl-c' is for the groups gz99; yours: gz00, gz01"),
    ],
)
def test_a_pbs_queue_that_is_not_open_is_told_with_those_that_are(queue: str, seen: str) -> None:
    found = of(on_pbs(queue=queue)[0], "queue")

    assert (found.outcome, found.seen) == (Outcome.WRONG, seen)
    assert "queue_cpu" in found.remedy
    assert "workq, regular-c" in found.remedy


def test_a_queue_for_ones_own_group_is_fine() -> None:
    assert of(on_pbs(queue="acl-c", groups="gz99")[0], "queue").outcome is Outcome.OK


@pytest.mark.parametrize("flag", ["-A", "-P"])
def test_what_pbs_never_checks_is_not_called_fine(flag: str) -> None:
    found = of(on_pbs(project="any", account_flag=flag)[0], "project")

    assert (found.outcome, found.seen) == (
        Outcome.UNKNOWN,
        f"'any': PBS accepts any name after {flag}",
    )


def test_a_project_that_is_a_group_is_checked_by_the_groups() -> None:
    mine = of(on_pbs(project="gz01", account_flag="-W group_list")[0], "project")
    other = of(on_pbs(project="gz77", account_flag="-W group_list")[0], "project")

    assert mine.outcome is Outcome.OK
    assert other.outcome is Outcome.WRONG
    assert other.remedy == "set project_cpu of the HPC profile to one of: gz00, gz01"


def test_queues_are_read_from_text_too() -> None:
    found = read_queues(openpbs.recorded("status_all_text", "qstat_Q_f"))

    assert list(found) == ["workq", "disabledq", "tinyq", "shortq"]
    assert found["disabledq"]["enabled"] == "False"
    assert found["shortq"]["resources_max.walltime"] == "00:10:00"


@pytest.mark.parametrize("text", ["", "{", "[]", '{"Queue": 3}', "Queue\n", "x" * 300])
def test_what_is_no_list_of_queues_has_none(text: str) -> None:
    assert read_queues(Reply(0, text)) == {}


# --- PJM


NO_JOBS = Reply(0, (FOLDER.parent / "pjm" / "site_table_empty.txt").read_text())
GROUPS = Reply(0, "users hp250000 fugaku\n")
#: The refusal is the manual's; of an answer only the last line is known.
NO_GROUP = Reply(1, stderr="[ERR.] PJM 3298 pjacl Resource group does not exist: small.\n")
ACL = Reply(0, "small\n  pjsub + deny g(fugaku)\n")


def pjm(
    acl: Reply = ACL, queue: str = "small", project: str = "hp250000", unit: str = ""
) -> tuple[Finding, Finding]:
    """What is found of queue and project."""
    spec = job("pjm", PJMOptions(rscunit=unit).model_dump(), queue, project)
    answers = {"/bin/sh": THERE, "pjstat": NO_JOBS, "pjacl": acl, "id": GROUPS}
    found, _ = answered(probe(scheduler_for("pjm"), spec), answers)
    return of(found, QUEUE), of(found, PROJECT)


def test_of_pjm_commands_status_and_the_search_by_name_are_told() -> None:
    spec, scheduler = job("pjm", PJMOptions().model_dump()), scheduler_for("pjm")

    there, _ = answered(probe(scheduler, spec), {"/bin/sh": THERE, "pjstat": NO_JOBS, "id": GROUPS})
    missing, _ = answered(probe(scheduler, spec), {"": Reply(127)})

    assert of(there, "commands").seen == "pjsub, pjstat, pjdel in /usr/bin"
    assert of(there, "status dialect").outcome is Outcome.OK
    assert [of(there, check).outcome for check in (QUEUE, PROJECT)] == [Outcome.UNKNOWN] * 2
    assert wrong(missing) == ["commands"] * 3
    assert of(missing, QUEUE).outcome is Outcome.UNKNOWN


def test_a_pjstat_that_is_not_understood_is_wrong() -> None:
    spec, scheduler = job("pjm", PJMOptions().model_dump()), scheduler_for("pjm")
    for answer in (Reply(0, "hello\n"), Reply(1, "", "[ERR.] PJM 0290 pjstat PJM daemon is not")):
        found, _ = answered(
            probe(scheduler, spec), {"/bin/sh": THERE, "pjstat": answer, "id": GROUPS}
        )
        assert wrong(found) == ["status dialect"]


def test_a_resource_group_that_pjacl_knows_is_there_and_perhaps_open() -> None:
    queue, _ = pjm()
    assert queue.outcome is Outcome.UNKNOWN
    assert queue.seen == "'small' is a resource group; PJM does not say whether it takes jobs"


def test_a_resource_group_that_pjacl_does_not_know_is_wrong_unless_in_another_unit() -> None:
    queue, _ = pjm(NO_GROUP)
    assert queue.outcome is Outcome.WRONG
    assert queue.seen == "there is no resource group 'small'"
    queue, _ = pjm(NO_GROUP, unit="fx")
    assert queue.outcome is Outcome.UNKNOWN
    queue, _ = pjm(Reply(127, stderr="pjacl: not found"))
    assert queue.outcome is Outcome.UNKNOWN


def test_a_project_is_a_group_of_the_users_that_may_submit() -> None:
    _, project = pjm()
    assert project.outcome is Outcome.OK
    _, project = pjm(project="hp1")
    assert (project.outcome, project.seen) == (Outcome.WRONG, "you are not in the group 'hp1'")
    assert project.remedy == "set project_cpu of the HPC profile to one of: hp250000, users"
    _, project = pjm(project="fugaku")
    assert project.outcome is Outcome.WRONG
    assert project.seen == "this resource group takes no jobs of the group 'fugaku'"


# --- any dialect


def test_a_dialect_without_a_probe_calls_nothing_fine_that_it_cannot_tell() -> None:
    spec = job("local", {"slots": 1, "spool": "/s"})

    found, _ = answered(untold(scheduler_for("local"), spec), {"": Reply(0)})

    assert [of(found, check).outcome for check in (QUEUE, PROJECT)] == [Outcome.UNKNOWN] * 2


@pytest.mark.parametrize("name", ["local", "pbs", "pjm", "slurm"])
def test_where_no_command_answers_every_probe_ends_and_names_a_remedy(name: str) -> None:
    found, _ = answered(probe(scheduler_for(name), job(name, {})), {"": Reply(None)})

    assert wrong(found)
    assert all(each.remedy for each in found if each.outcome is Outcome.WRONG)
    assert not [each for each in found if each.outcome is Outcome.OK]
