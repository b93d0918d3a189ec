"""What becomes of the blocks of qcsc-prefect, field by field."""

from __future__ import annotations

from typing import Any

import pytest

from hpc_prefect.block_files.document import read_document
from hpc_prefect.block_files.qcsc.conversion import Conversion, convert
from hpc_prefect.block_files.qcsc.documents import COMMAND, EXECUTION, HPC, RUNTIME, QcscDocument
from hpc_prefect.block_files.qcsc.toml_text import write_toml

from .documents_of_theirs import document, outcomes, three, told

MPI = {"num_nodes": 2, "mpiprocs": 4, "ompthreads": 3, "launcher": "mpiexec.hydra"}


def execution_of(made: Conversion) -> dict[str, Any]:
    return made.tables["execution-profile"]["exec"]


def hpc_of(made: Conversion) -> dict[str, Any]:
    return made.tables["hpc-profile"]["hpc"]


def decided(made: Conversion) -> list[str]:
    return [f"{fate.document} {fate.field}" for fate in made.fates if fate.outcome == "decide"]


def test_a_plain_job_on_miyabi_needs_no_decision_and_can_be_applied() -> None:
    made = three(MPI | {"modules": ["intel/2023.2.0", "impi"], "environments": {"A": "1"}}, {})

    assert decided(made) == []
    assert made.calls == [("cmd", "exec", "hpc")]
    text = write_toml(made.tables, made.comments, "")
    kinds = [item.kind for item in read_document(text, here="/", venv="/", environ={}).items]
    assert kinds == ["command", "execution-profile", "hpc-profile"]
    assert execution_of(made) == {
        "profile_name": "diag-mpi",
        "command_name": "diag",
        "resource_class": "cpu",
        "walltime": "00:05:00",
        "num_nodes": 2,
        "ranks_per_node": 4,
        "threads_per_rank": 3,
        "launch": "mpi",
        "environment": {"A": "1"},
    }
    hpc = hpc_of(made)
    assert (hpc["scheduler"], hpc["queue_cpu"], hpc["project_cpu"]) == ("pbs", "regular-c", "gz00")
    assert hpc["launcher"] == "mpiexec.hydra -n {ranks} {command}"
    assert hpc["executables"] == {
        "diag": {"path": "/opt/diag", "modules": ["intel/2023.2.0", "impi"]}
    }
    assert hpc["pbs"]["status_dialect"] == "table"  # from the profile of Miyabi that we have


@pytest.mark.parametrize(
    ("launcher", "options", "line"),
    [
        ("mpiexec", ["-n", "8"], "mpiexec -n {ranks} {command}"),
        ("mpirun", ["-np 8", "-ppn 4"], "mpirun -np {ranks} -ppn {ranks_per_node} {command}"),
        ("mpirun", ["-N", "4"], "mpirun -n {ranks} -N {ranks_per_node} {command}"),
        ("mpirun", ["-n", "6"], "mpirun -n 6 {command}"),
        ("mpiexec", ["--bind-to", "none"], "mpiexec -n {ranks} --bind-to none {command}"),
        ("mpirun", ["-x", "PATH=${PATH}"], "mpirun -n {ranks} -x PATH=${PATH} {command}"),
    ],
)
def test_a_launcher_with_its_options_becomes_a_launcher_line(
    launcher: str, options: list[str], line: str
) -> None:
    made = three(MPI | {"launcher": launcher, "mpi_options": options}, {})

    assert hpc_of(made)["launcher"] == line
    odd = "-n 6" in line
    assert outcomes(made, "mpi_options") == (["changed", "decide"] if odd else ["changed"])


def test_srun_counts_nodes_and_threads_too() -> None:
    options = ["--ntasks=8", "-N 2", "--cpus-per-task=3", "--mpi=pmix"]
    made = three(MPI | {"launcher": "srun", "mpi_options": options}, {"hpc_target": "slurm"})

    line = "srun --ntasks={ranks} -N {nodes} --cpus-per-task={threads} --mpi=pmix {command}"
    assert hpc_of(made)["launcher"] == line


def test_one_process_has_no_launcher_and_one_program_for_many_ranks_is_started_once() -> None:
    alone = three({"ompthreads": 1}, {})
    many = three({"ompthreads": 1, "mpiprocs": 4}, {})

    assert execution_of(alone)["launch"] == "single"
    assert "launcher" not in hpc_of(alone)
    assert (execution_of(many)["launch"], hpc_of(many)["launcher"]) == ("mpi", "{command}")


def test_no_threads_are_a_question_unless_the_environment_tells_them() -> None:
    silent = three({}, {})
    said = three({"environments": {"OMP_NUM_THREADS": "12"}}, {})

    assert outcomes(silent, "ompthreads") == ["decide"]
    assert outcomes(said, "ompthreads") == ["changed"]
    assert execution_of(said)["threads_per_rank"] == 12


def test_what_a_shell_read_in_their_script_is_read_by_one_again() -> None:
    made = three(MPI | {"environments": {"DATA": "$HOME/x", "N": "1"}}, {})

    assert execution_of(made)["environment"] == {"N": "1"}
    assert hpc_of(made)["executables"]["diag"]["setup"] == ['export DATA="$HOME/x"']
    assert outcomes(made, "environments") == ["changed", "kept"]


@pytest.mark.parametrize(
    ("given", "became", "outcome"),
    [
        (["--level", "3"], ["--level", "3"], ["kept"]),
        (["--level 3"], ["--level", "3"], ["changed", "kept"]),
        (["'a b'"], ["a b"], ["changed", "kept"]),
        (["$HOME"], ["$HOME"], ["decide", "kept"]),
        (["--password=hunter2"], ["<argument-with-a-secret>"], ["decide", "kept"]),
    ],
)
def test_arguments_are_the_words_that_their_shell_made_of_them(
    given: list[str], became: list[str], outcome: list[str]
) -> None:
    made = three({}, {}, {"default_args": given})

    assert made.tables["command"]["cmd"]["default_args"] == became
    assert [*dict.fromkeys(outcomes(made, "default_args"))] == outcome


def test_secrets_are_asked_for_and_written_nowhere() -> None:
    made = convert(
        [
            document(COMMAND, "cmd", default_args=["--api-key", "--token=hunter2"]),
            document(
                EXECUTION,
                "exec",
                environments={"MY_TOKEN": "hunter2"},
                pre_commands=["export PASSWORD=hunter2"],
                launcher="mpirun",
                mpi_options=["-genv", "MY_SECRET hunter2"],
            ),
            document(HPC, "hpc", executable_map={"diag": "/opt/diag"}, project_cpu="gz00"),
            document(RUNTIME, "ibm", token="hunter2", instance="crn:v1:x"),
        ]
    )

    text = write_toml(made.tables, made.comments, "")
    assert "hunter2" not in text + repr(made.fates)
    assert hpc_of(made)["secret_environment"] == {"MY_TOKEN": "${ENV:MY_TOKEN}"}
    assert made.tables["ibm-credentials"]["ibm"]["token"] == "${ENV:QISKIT_IBM_TOKEN}"
    for field in ("default_args", "environments", "pre_commands", "mpi_options", "token"):
        assert "decide" in outcomes(made, field)


def test_a_secret_that_a_shell_fetches_is_fetched_by_it_again() -> None:
    line = 'export MY_TOKEN="$(cat ~/token)"'
    made = three(MPI | {"pre_commands": [line], "environments": {"API_KEY": "$OTHER"}}, {})

    setup = hpc_of(made)["executables"]["diag"]["setup"]
    assert setup == [line, 'export API_KEY="$OTHER"']
    assert decided(made) == []


def test_paths_that_ours_do_not_take_are_blanks() -> None:
    given = {"diag": "./diag", "b": "$HOME/b", "c": "/opt/c", "d": "/work/<user>/d"}
    made = three({}, {"executable_map": given})

    assert hpc_of(made)["executables"] == {
        "diag": "<absolute-path>",
        "b": "<absolute-path>",
        "c": "/opt/c",
        "d": "/work/<user>/d",
    }
    assert outcomes(made, "executable_map").count("decide") == 3
    assert made.comments["hpc-profile", "hpc", "executables"]


def test_two_launchers_for_one_place_become_two_profiles() -> None:
    made = convert(
        [
            document(COMMAND, "cmd"),
            document(EXECUTION, "exec-a", **MPI),
            document(EXECUTION, "exec-b", **MPI | {"mpi_options": ["-bind-to", "core"]}),
            document(EXECUTION, "exec-c", **MPI | {"num_nodes": 9}),
            document(HPC, "hpc", executable_map={"diag": "/opt/diag"}, project_cpu="gz00"),
            document(HPC, "hpc-2", project_cpu="gz00"),  # theirs, and it stays
        ]
    )

    profiles = made.tables["hpc-profile"]
    assert {name: each.get("launcher") for name, each in profiles.items()} == {
        "hpc": "mpiexec.hydra -n {ranks} {command}",
        "hpc-3": "mpiexec.hydra -n {ranks} -bind-to core {command}",
        "hpc-2": None,
    }
    assert made.calls == [
        ("cmd", "exec-a", "hpc"),
        ("cmd", "exec-c", "hpc"),
        ("cmd", "exec-b", "hpc-3"),
    ]
    assert decided(made) == ["execution_profile/exec-b launcher"]


def test_a_gpu_profile_goes_to_the_gpu_side_and_takes_nothing_of_the_other() -> None:
    made = convert(
        [
            document(COMMAND, "cmd"),
            document(EXECUTION, "exec-a", **MPI | {"modules": ["intel"]}),
            document(EXECUTION, "exec-b", **MPI | {"launcher": "mpirun", "resource_class": "gpu"}),
            document(HPC, "hpc", executable_map={"diag": "/opt/diag"}, project_cpu="gz00"),
        ]
    )

    assert list(made.tables["hpc-profile"]) == ["hpc"]
    gpu = hpc_of(made)["gpu"]
    assert gpu["launcher"] == "mpirun -n {ranks} {command}"
    assert gpu["executables"] == {"diag": "/opt/diag"}
    assert hpc_of(made)["executables"]["diag"]["modules"] == ["intel"]


def test_profiles_are_not_laid_over_a_place_that_they_are_not_meant_for() -> None:
    places = {"executable_map": {"diag": "/opt/diag"}, "project_cpu": "p"}
    made = convert(
        [
            document(COMMAND, "cmd"),
            document(EXECUTION, "exec-a", **MPI),
            document(EXECUTION, "exec-fugaku", **MPI | {"launcher": "mpiexec"}),
            document(EXECUTION, "exec-s", **MPI | {"launcher": "srun"}),
            document(HPC, "hpc-miyabi", **places),
            document(HPC, "hpc-fugaku", **places | {"hpc_target": "fugaku"}),
        ]
    )

    assert made.calls == [
        ("cmd", "exec-a", "hpc-miyabi"),
        ("cmd", "exec-fugaku", "hpc-fugaku"),
    ]
    assert outcomes(made, "launcher").count("left out") == 4
    assert "execution_profile/exec-s launcher" in decided(made)


# --- Fugaku


def test_on_fugaku_the_ranks_are_those_that_their_job_had() -> None:
    place = {"hpc_target": "fugaku", "project_cpu": "ra000000", "queue_cpu": "small"}
    job = {"num_nodes": 2, "mpiprocs": 1, "launcher": "mpiexec", "ompthreads": 12}
    by_pjm = three(job, place | {"mpi_options_for_pjm": ["max-proc-per-node=4", "rank-map-bychip"]})
    by_option = three(job | {"mpi_options": ["-n", "8"]}, place)
    by_nothing = three(job | {"mpiprocs": 4}, place)

    assert [execution_of(made)["ranks_per_node"] for made in (by_pjm, by_option, by_nothing)] == [
        *(4, 4, 1)
    ]
    assert hpc_of(by_pjm)["pjm"]["mpi"] == ["rank-map-bychip"]
    assert hpc_of(by_option)["launcher"] == "ranks -n {ranks} {command}"
    assert "ranks()" in hpc_of(by_option)["setup"][0]
    assert [fate.why for fate in told(by_nothing, "mpiprocs")] == [
        "4 is now 1: by its other fields a job had so many ranks on a node of hpc"
    ]
    assert decided(by_pjm) == decided(by_option) == decided(by_nothing) == []


def test_more_ranks_than_pjm_gave_the_job_are_told() -> None:
    made = three(
        {"mpiprocs": 2, "launcher": "mpiexec", "mpi_options": ["-n", "2"], "ompthreads": 1},
        {
            "hpc_target": "fugaku",
            "project_cpu": "ra000000",
            "mpi_options_for_pjm": ["max-proc-per-node=1"],
        },
    )

    assert execution_of(made)["ranks_per_node"] == 2
    assert [fate.why for fate in told(made, "mpi_options") if fate.outcome == "decide"] == [
        "ask for 2 ranks, and mpi_options_for_pjm of hpc gave the job 1: 2 is taken"
    ]


def test_what_is_fugakus_own() -> None:
    made = three(
        {"launcher": "mpiexec", "ompthreads": 1, "pre_commands": ["ulimit -s unlimited"]},
        {
            "hpc_target": "fugaku",
            "spack_modules": ["fj"],
            "pjm_resources": ["rscunit=rscunit_ft02,freq=2200", "node=2x3:torus", "retention"],
            "slurm_memory": "4G",
        },
    )

    pjm = hpc_of(made)["pjm"]
    assert (pjm["rscunit"], pjm["resources"]) == ("rscunit_ft02", {"freq": "2200"})
    assert (pjm["gfscache"], pjm["node_shape"]) == (["/vol0002"], "2x3:torus")
    assert hpc_of(made)["setup"][-1] == "spack load fj"
    assert "queue_cpu" not in hpc_of(made)  # their default, which is a queue of Miyabi's
    assert outcomes(made, "pjm_resources") == ["kept", "kept", "changed", "decide"]
    assert outcomes(made, "pre_commands") == ["decide"]
    assert outcomes(made, "slurm_memory") == ["left out"]
    # Six nodes in that shape and one in the job: no call would be taken.
    assert any("which is 6 nodes" in fate.why for fate in made.fates)


# --- Slurm


def test_what_is_slurms_own() -> None:
    made = three(
        {"launcher": "srun", "num_nodes": 2, "mpiprocs": 9, "ompthreads": 1},
        {
            "hpc_target": "slurm",
            "queue_cpu": "cpu",
            "slurm_qpu": "ibm_torino, ibm_fez",
            "slurm_memory": "4000",
            "slurm_ntasks": 8,
            "slurm_extra_directives": [
                *("--qos=high", "-C ib", "--exclusive", "--gres=gpu:2", "--no-requeue"),
                *("--output=x", "--licenses=fluent"),
            ],
            "gfscache": "/vol0004",
        },
    )

    slurm = hpc_of(made)["slurm"]
    assert slurm["qpu"] == ["ibm_torino", "ibm_fez"]
    assert (slurm["qos"], slurm["constraint"], slurm["exclusive"]) == ("high", "ib", True)
    assert slurm["requeue"] == "no"
    assert slurm["directives"] == ["--gres=gpu:2", "--output=x", "--licenses=fluent"]
    assert execution_of(made)["memory_per_node"] == "4000M"
    assert execution_of(made)["ranks_per_node"] == 4
    assert outcomes(made, "gfscache") == ["left out"]
    (refused,) = [fate.why for fate in made.fates if fate.outcome == "decide"]
    assert (
        "'--output=x' cannot be given: hpc-prefect puts all output into the job folder" in refused
    )


# --- what cannot be read, what is not known, and the quantum side


def test_wrong_types_and_fields_of_a_later_version_are_told() -> None:
    fields = {"num_nodes": "two", "modules": "intel", "environments": {"A": 1}, "spare": 1}
    made = three(fields, {})

    for field in fields:
        assert outcomes(made, field) == ["decide"]


def test_values_that_no_block_takes_are_told() -> None:
    made = three(
        {"walltime": "soon", "environments": {"not a name": "x"}},
        {"hpc_target": "moon", "project_cpu": "", "slurm_memory": "much"},
    )

    for field in ("walltime", "environments", "hpc_target", "slurm_memory"):
        assert "decide" in outcomes(made, field)
    assert execution_of(made)["walltime"] == "<walltime>"


def test_a_name_that_no_block_of_ours_can_have_is_told() -> None:
    made = convert([QcscDocument(COMMAND, "My Command", {"command_name": "a"})])

    assert "[command.My Command] name" in decided(made)


def test_without_its_program_in_a_profile_the_fields_of_a_place_are_to_be_decided() -> None:
    made = convert([document(EXECUTION, "exec", **MPI | {"modules": ["intel"], "ompthreads": 1})])

    assert decided(made) == ["execution_profile/exec launcher", "execution_profile/exec modules"]


def test_a_runtime_config_becomes_a_backend_and_its_credentials() -> None:
    made = convert(
        [
            document(RUNTIME, "saved"),
            document(RUNTIME, "named", token="**", channel="ibm_quantum", account_name="lab"),
        ]
    )

    assert made.tables["quantum-backend"] == {
        "saved": {"kind": "ibm", "backend_name": "ibm_torino"},
        "named": {
            "kind": "ibm",
            "backend_name": "ibm_torino",
            "credentials_block_name": "named",
        },
    }
    assert list(made.tables["ibm-credentials"]) == ["named"]
    assert decided(made) == [
        f"qiskit_runtime_config/named {name}" for name in ("channel", "token", "account_name")
    ]
