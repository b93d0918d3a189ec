"""`hpc-prefect resume`: go on with a flow run that died or failed."""

from __future__ import annotations

import argparse
import sys

from hpc_prefect.cli.verbs import Verbs, flow_failed, use_own_server
from hpc_prefect.errors import HpcPrefectError


def add(verbs: Verbs) -> None:
    resume = verbs.add_parser(
        "resume",
        help="continue a flow run that died or failed",
        description="Continue a flow run that died or failed, as the same flow run: finished "
        "tasks give their stored results, jobs are taken up where they are. Before it begins it "
        "says which finished tasks will run again, and why.",
    )
    resume.add_argument("flow_run", metavar="FLOW_RUN", help="its id or name")
    resume.add_argument(
        "--entrypoint", default="", metavar="FILE:FLOW",
        help="where the flow is, if it is no longer where the run was started from",
    )  # fmt: skip
    resume.add_argument(
        "--dead", action="store_true",
        help="assume that its process is dead, where this cannot be checked (it ran on another"
            " host)",
    )  # fmt: skip
    resume.add_argument(
        "--plan", action="store_true", help="only say what would be done, and change nothing"
    )
    resume.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    from hpc_prefect.lifecycle.resume import carry_out, plan

    use_own_server()
    planned = plan(arguments.flow_run, entrypoint=arguments.entrypoint, dead=arguments.dead)
    print("\n".join(planned.lines()), file=sys.stderr)
    if arguments.plan:
        return 0
    try:
        carry_out(planned)
    except HpcPrefectError:
        raise
    except Exception as error:  # noqa: BLE001 - the flow's own, which Prefect has logged with its place
        return flow_failed(error)
    return 0
