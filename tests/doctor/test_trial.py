"""What only a job can show, on the laptop's engine with a machine that has a fault."""

from __future__ import annotations

from pathlib import Path

from hpc_prefect.blocks import HPCProfileBlock
from hpc_prefect.doctor.profile import by_set_up, read_side
from hpc_prefect.doctor.trial import Trial, carry_out
from hpc_prefect.schedulers import scheduler_for
from hpc_prefect.schedulers.finding import Finding, Outcome
from hpc_prefect.transports.base import Transport
from hpc_prefect.transports.local import LocalTransport

from .rig import local, of, wrong

FILE = "written"


class NotShared(LocalTransport):
    """A login node that does not see what nodes write in work_dir, but for job folders."""

    def read(self, path: str, offset: int = 0, size: int = -1) -> bytes | None:
        return None if path.endswith(FILE) else super().read(path, offset, size)


async def tried(folder: Path, transport: Transport, file: str = FILE) -> list[Finding]:
    place = local(folder)
    place.work.mkdir()
    side, _ = read_side(
        HPCProfileBlock(**place.fields),
        "cpu",
        work_dir=str(place.work),
        walltime="00:01:00",
        machine_cores=2,
    )
    assert side is not None
    ((spec, paths),) = by_set_up(side)
    trial = Trial(
        spec=spec,
        secrets={},
        paths=paths,
        scheduler=scheduler_for("local"),
        transport=transport,
        file=file,
        wait=240.0,
        poll_interval=1.0,
        unseen=0.5,
    )
    return (await carry_out(trial)).findings


async def test_a_work_dir_that_is_not_shared_is_found(tmp_path: Path) -> None:
    found = await tried(tmp_path, NotShared())

    assert wrong(found) == ["work_dir in a job"]
    assert "login and compute nodes share" in of(found, "work_dir in a job").remedy


async def test_a_work_dir_that_a_node_may_not_write_is_found(tmp_path: Path) -> None:
    found = await tried(tmp_path, LocalTransport(), file="no-such-folder/written")

    assert wrong(found) == ["work_dir in a job"]
    assert "scratch" in of(found, "work_dir in a job").remedy


async def test_a_right_one_has_a_file_seen_clocks_and_an_end(tmp_path: Path) -> None:
    found = await tried(tmp_path, LocalTransport())

    assert {each.outcome for each in found} == {Outcome.OK}
    assert [each.check for each in found][-4:] == [
        *("work_dir in a job", "clock", "exit record", "status of a job"),
    ]
