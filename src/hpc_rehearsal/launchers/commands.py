"""A site's MPI launcher: reads its options, and runs the laptop's MPI instead."""

from __future__ import annotations

import json
import os

from hpc_rehearsal.common.commands import run
from hpc_rehearsal.common.text import Refusal
from hpc_rehearsal.launchers.install import CONFIG, RANK

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Record = dict[str, Any]

#: Settings for all MPIs: allow more ranks than cores, and root; do not look for other hosts, nor
#: for a batch system whose variables are set.
_MPI = {
    "HYDRA_LAUNCHER": "fork",
    "HYDRA_RMK": "user",
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "OMPI_MCA_rmaps_base_oversubscribe": "1",
    "PRTE_MCA_rmaps_default_mapping_policy": ":OVERSUBSCRIBE",
}
_JOB_ID = ("PJM_JOBID", "PBS_JOBID")


def main(name: str, state: str, words: list[str]) -> int:
    """Run one launcher; it returns only if it refuses."""
    return run(lambda: _launch(name, state, words))


def _launch(name: str, folder: str, words: list[str]) -> int:
    with open(os.path.join(folder, CONFIG)) as file:
        config: Record = json.load(file)
    launcher = config["launchers"][name]
    asked = parsed(name, words, launcher)
    if not config["mpi"]:
        said = "there is no MPI on this machine that could stand in for it; --mpi names one"
        raise Refusal(f"rehearsal: {name}: {said}\n", 127)
    program = asked["program"]
    if "rank_output" in launcher:
        job = next((os.environ[each] for each in _JOB_ID if os.environ.get(each)), "0")
        where, call = _own_folder(launcher["rank_output"], job)
        program = ["/bin/sh", os.path.join(folder, RANK), where, call, *program]
    ranks = str(asked["ranks"] or _given())
    environment = {**_MPI, **os.environ, **asked["environment"]}
    os.execve(config["mpi"], [config["mpi"], "-n", ranks, *program], environment)


def parsed(name: str, words: list[str], launcher: Record) -> Record:
    """The number of ranks (0: not given), the program with its arguments, variables that are set.

    Raises:
        Refusal: the launcher's data do not have an option.
    """
    ranks, environment = 0, {}
    ahead = list(words)
    while ahead and ahead[0].startswith("-"):
        option = ahead.pop(0)
        counts = option in launcher["ranks"]
        many = 1 if counts else launcher.get("options", {}).get(option)
        if many is None:
            raise Refusal(f"rehearsal: {name} is not known to have the option {option}\n", 1)
        values, ahead = ahead[:many], ahead[many:]
        if len(values) < many or (counts and not values[0].isdecimal()):
            raise Refusal(f"rehearsal: {name}: {option} lacks what belongs to it\n", 1)
        if counts:
            ranks = int(values[0])
        elif option in launcher.get("sets", ()):
            variable, equals, value = "=".join(values).partition("=")
            if equals:
                environment[variable] = value
    if not ahead:
        raise Refusal(f"rehearsal: {name}: there is no program to start\n", 1)
    if ":" in ahead:
        raise Refusal(f"rehearsal: {name}: several programs (:) are not rehearsed\n", 1)
    return {"ranks": ranks, "program": ahead, "environment": environment}


def _own_folder(template: str, job: str) -> tuple[str, str]:
    """Make a folder for this call of the launcher in the job; returns it, and the call's number."""
    call = 1
    while True:
        where = template.format(job=job, call=call)
        try:
            os.makedirs(where)
        except FileExistsError:
            call += 1
        else:
            return where, str(call)


def _given() -> int:
    """The number of ranks that the scheduler was asked for."""
    if (found := os.environ.get("PJM_MPI_PROC", "")).isdecimal():
        return int(found)
    try:
        with open(os.environ.get("PBS_NODEFILE", "")) as file:
            return len(file.readlines()) or 1
    except OSError:
        return 1
