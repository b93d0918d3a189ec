"""`make demo`: the whole experiment on this machine, from nothing to a converged energy.

    python demo.py [--optimize] [--hold] [--hpc-profile NAME] [--quantum-backend NAME]
                   [--work-dir DIR] [--server-home DIR] [--seed N]

With --optimize it is the loop around: LUCJ's couplings by differential evolution (optimize.py).
With --hold the loop waits in the queue once, in a held allocation, and its subspaces are an array.
Starts a Prefect server of its own if you have none, applies blocks.toml, runs the flow, and prints
what came out. Interrupt or kill it and start it again: it goes on where it was.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
DEMO = HERE.parent.parent / ".demo"
STARTED = "SQD_DEMO_UI"  # set once the server is there, and this program runs again with it


def main() -> None:
    """Start the server, then this program again in the server's environment."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    kinds = parser.add_mutually_exclusive_group()
    kinds.add_argument("--optimize", action="store_true")
    kinds.add_argument("--hold", action="store_true")
    parser.add_argument("--work-dir", type=Path, default=DEMO / "work")
    parser.add_argument("--server-home", type=Path, default=DEMO / "prefect")
    parser.add_argument("--hpc-profile", default="hpc-local")
    parser.add_argument("--quantum-backend", default="qpu-simulator")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    if STARTED in os.environ:
        asyncio.run(run(arguments))
        return
    from hpc_prefect.extras import missing
    from hpc_prefect.server import ensure_server, environment

    if told := missing("the demo", "ffsim", "pyscf", "qiskit_addon_sqd", "mpi4py", "matplotlib"):
        raise SystemExit(told)
    server = ensure_server(arguments.server_home, progress=say)
    # Prefect reads its settings when it is imported, so they must be there before.
    settings = environment(server) | {
        STARTED: server.ui_url,
        # Progress is printed instead (below); the whole log is in Prefect's UI.
        "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"),
    }
    os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | settings)


async def run(arguments: argparse.Namespace) -> None:
    """Apply the blocks, run the flow, print the table."""
    from prefect.logging.configuration import setup_logging

    from hpc_prefect.block_files import apply

    setup_logging()  # now: when the flow starts it would take our handler away
    handler = Progress(logging.INFO)
    # A generation has a dozen jobs at once: their lines are in Prefect's UI.
    tasks = () if arguments.optimize else ("prefect.task_runs",)
    for name in ("prefect.flow_runs", *tasks):
        logging.getLogger(name).addHandler(handler)
    say("saving blocks and Variables ...")
    document = apply.read_file(HERE / "blocks.toml", venv=sys.prefix, environ=os.environ)
    await apply.apply_document(document, report=lambda change: None, force=True)
    say("preparing the molecule and running the loop ...")
    from report import result_line

    experiment, table = chosen(optimize=arguments.optimize)
    began = time.monotonic()
    result = await experiment(
        str(arguments.work_dir),
        hpc_profile=arguments.hpc_profile,
        quantum_backend=arguments.quantum_backend,
        seed=arguments.seed,
        **({"hold": True} if arguments.hold else {}),
    )
    seconds = time.monotonic() - began
    print()
    print(table(result.history))
    print()
    if result.resumed_at is not None and result.resumed_at > 1:
        print(f"This run went on at iteration {result.resumed_at} of an earlier one.")
    print(
        "random: the same loop with the same budget, but uniformly random bits in place of the\n"
        "circuit's samples. At this size the difference says nothing for or against the circuit:\n"
        "see examples/sqd_n2/README.md before you conclude anything."
    )
    print(f"plot:     {result.plot}")
    print(f"Prefect:  {os.environ[STARTED]}  (flow runs, logs, blocks, artifacts)")
    from hpc_prefect.server import find_server

    if find_server(arguments.server_home) is not None:
        print(f"          stop it: {sys.prefix}/bin/hpc-prefect server stop", end=" ")
        print(f"--home {arguments.server_home}")
    print(f"loop:     {seconds:.0f} s, ended for {result.reason}")
    print(result_line(result.history, converged=result.converged))


def chosen(*, optimize: bool) -> tuple[Callable[..., Any], Callable[..., str]]:
    """The flow, and what makes a table of its history."""
    import report

    if optimize:
        from optimize import optimize_lucj

        return optimize_lucj, report.generations
    from flow import sqd_n2

    return sqd_n2, report.iterations


def say(text: str) -> None:
    """A line of progress, with the time."""
    print(f"[{time.strftime('%H:%M:%S')}] {text}", flush=True)


class Progress(logging.Handler):
    """Prints what the flow and its tasks log, without Prefect's own comings and goings."""

    NOISE = ("Beginning", "View at", "Finished in state", "Running hook", "Hook ", "Created")
    DETAIL = (" stdout (", ": running as ")

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if not text.startswith(self.NOISE) and not any(part in text for part in self.DETAIL):
            say(text.splitlines()[0].partition("; record: ")[0])


if __name__ == "__main__":
    main()
