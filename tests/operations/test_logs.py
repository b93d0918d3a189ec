"""What a job writes, to its end."""

from __future__ import annotations

import asyncio

from hpc_prefect.operations import follow, list_jobs
from hpc_prefect.operations.format import details

from ..executor.rig import until


def only(rig):
    (job,) = list_jobs(rig.work)
    return job


def text(pieces, stream="stdout"):
    return b"".join(piece.data for piece in pieces if piece.stream == stream).decode()


async def test_both_streams_are_printed_as_they_are(rig):
    await rig.run(rig.request(rig.spec("printf 'a\\0b\\nlast'; echo oops >&2; exit 3")))
    pieces = list(follow(only(rig), wait=False))
    assert (text(pieces), text(pieces, "stderr")) == ("a\0b\nlast", "oops\n")


async def test_a_stream_alone_is_printed(rig):
    await rig.run(rig.request(rig.spec("echo out; echo oops >&2")))
    (rig.attempt() / "scheduler.out").write_text("job killed: walltime\n")
    assert text(follow(only(rig), ("stderr",), wait=False), "stderr") == "oops\n"
    scheduler = follow(only(rig), ("scheduler",), wait=False)
    assert text(scheduler, "scheduler") == "job killed: walltime\n"


async def test_a_job_is_followed_to_its_own_record_also_when_nobody_looks_after_it(rig):
    gate = rig.folder / "gate"
    await rig.abandon(
        rig.request(rig.spec(f"echo one; until [ -e {gate} ]; do sleep 0.05; done; echo -n two"))
    )
    pieces = []

    def read():
        for piece in follow(only(rig)):
            pieces.append(piece)

    reading = asyncio.create_task(asyncio.to_thread(read))
    await until(lambda: text(pieces) == "one\n", "the first line")
    assert not reading.done()
    gate.touch()
    await asyncio.wait_for(reading, 60)
    assert text(pieces) == "one\ntwo"
    assert "verdict" not in rig.events()


async def test_a_job_without_a_record_is_followed_to_its_verdict(rig):
    await rig.run(rig.request(rig.spec("kill -KILL $PPID $$; sleep 60")))
    assert list(follow(only(rig))) == []
    assert only(rig).is_over


async def test_everything_about_a_job_is_shown(rig):
    spec = rig.spec(
        "echo oops >&2; exit 3",
        arguments=("a b", "\x1b[31m"),
        resources={"memory_per_node": 1 << 30, "ranks_per_node": 2},
    )
    blocks = {"hpc": {"name": "hpc-here"}}
    result = await rig.run(rig.request(spec, provenance={"blocks": blocks}))
    shown = details(only(rig))
    for part in (
        "state       failed: program failed",
        "verdict     ended with exit code 3",
        "what to do  read the program's stderr",
        f"script      {result.script_path}",
        f"id          {result.job_id}",
        "profile     hpc-here",
        "resources   1 nodes × 2 ranks × 1 threads, 1G a node, walltime 00:05:00, cpu, single",
        'arguments  ["a b", ',
        "submitted  id=",
        "claim-1  a script (pid ",
        "the end of stderr:\n  oops",
    ):
        assert part in shown
    assert "\x1b" not in shown
