"""`hpc-prefect runs reproduce`: a recorded run is run again, and the two are compared."""

from __future__ import annotations

import argparse
import json
import os
import sys
from typing import TYPE_CHECKING, Any

from hpc_prefect.cli.verbs import RUN, Verbs, flow_failed, use_own_server
from hpc_prefect.errors import HpcPrefectError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hpc_prefect.lifecycle.reproduce import Reproduction, ReproductionPlan
    from hpc_prefect.records.compare.results import SameResults


#: Set in a process that was restarted with the recorded run's environment variables.
_AGAIN = "HPC_PREFECT_REPRODUCES_AGAIN"


def add_reproduce(actions: Verbs) -> None:
    """Add the action to those of `hpc-prefect runs`."""
    reproduce = actions.add_parser(
        "reproduce",
        help="run a recorded run again as it was, and compare the two",
        description="Run a flow again with the parameters, blocks, Variables and seeds that the"
        " record of a run has. Of what is stored in Prefect now only secrets are used, and nothing"
        " is changed. All of its jobs and samplings are run, and paid for, once more. Before that"
        " it says what is not as it was: code, versions, blocks, programs, inputs. Exit status 0"
        " when the results are the same, 1 when they are not or the flow has failed.",
    )
    reproduce.add_argument("which", metavar="RUN", help=RUN)
    reproduce.add_argument(
        "--plan", action="store_true", help="only say what would be done, and run nothing"
    )
    reproduce.add_argument(
        "--param", action="append", default=[], metavar="NAME=VALUE", type=_parameter,
        help="give a parameter another value than the recorded one, or one that the record does not"
        " hold; as JSON, or else as text (may be given several times)",
    )  # fmt: skip
    reproduce.add_argument(
        "--cwd", default="", metavar="DIR", help="run it in this directory instead of where it ran"
    )
    reproduce.add_argument(
        "--entrypoint", default="", metavar="FILE:FLOW",
        help="where the flow is, if it is no longer where the run was started from",
    )  # fmt: skip
    reproduce.add_argument(
        "--json", action="store_true", default=argparse.SUPPRESS, help="the comparison as JSON"
    )
    reproduce.set_defaults(run=_reproduce)


def _parameter(text: str) -> tuple[str, Any]:
    name, sign, value = text.partition("=")
    if not (name and sign):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def _reproduce(arguments: argparse.Namespace) -> int:
    from hpc_prefect.lifecycle.reproduce import carry_out, plan

    use_own_server()
    planned = plan(
        arguments.which,
        entrypoint=arguments.entrypoint,
        parameters=dict(arguments.param),
        cwd=arguments.cwd,
    )
    _start_as_then(planned)
    print("\n".join(planned.lines()), file=sys.stderr, flush=True)
    if arguments.plan:
        return 0
    done = carry_out(planned)
    _print(done, as_json=arguments.json)
    if isinstance(done.error, HpcPrefectError):
        raise done.error
    if done.error is not None:
        return flow_failed(done.error)
    return 0 if done.results is not None and not done.results.different else 1


def _start_as_then(planned: ReproductionPlan) -> None:
    """Restart this program with the recorded run's environment variables, if its own differ.

    Only once: if something sets a variable in every process, restarts would never end.
    """
    again = os.environ.pop(_AGAIN, "")
    environ = planned.environment(os.environ)
    if not again and environ != dict(os.environ):
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environ | {_AGAIN: "1"})


def _print(done: Reproduction, *, as_json: bool) -> None:
    from hpc_prefect.records.compare import compare
    from hpc_prefect.records.compare.text import report
    from hpc_prefect.records.compare.values import json_value

    if done.second is None or done.results is None:
        print(
            f"hpc-prefect: flow run {done.flow_run_id} ended before its first job or sampling, so"
            " that it has no record",
            file=sys.stderr,
        )
        return
    comparison = compare([done.first, done.second])
    if as_json:
        told = comparison.as_dict() | {"results": done.results.as_dict()}
        print(json.dumps(json_value(told), indent=1, allow_nan=False))
    else:
        print(report(comparison), *_verdict(done.results), sep="\n", flush=True)


def _verdict(results: SameResults) -> Iterator[str]:
    yield ""
    for each in results.different:
        yield f"NOT the same: {each}"
    if results.same:
        yield f"the same to the last bit: {'; '.join(results.same)}"
    for each in results.unknown:
        yield f"not known: {each}"
    if not (results.same or results.different or results.unknown):
        yield "neither run has left a result to compare"
