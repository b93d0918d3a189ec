"""What the modules of the verbs have in common."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, TypeAlias

#: To what a verb adds its parser. Prefect takes seconds to import: a verb's module imports it, and
#: what needs it, only when the verb is run.
if TYPE_CHECKING:
    Verbs: TypeAlias = argparse._SubParsersAction[argparse.ArgumentParser]
else:
    Verbs = argparse._SubParsersAction

#: How a command's help says in which ways a run can be named.
RUN = "id or its beginning, flow run's name, folder, or latest"


def use_own_server() -> None:
    """For a verb that asks Prefect: your own server, where no other one is named and it runs."""
    from hpc_prefect.block_files.project import use_own_server

    use_own_server()


def flow_failed(error: Exception) -> int:
    """Say that a flow has failed; the exit status. Prefect's log has the place in its code."""
    print(f"hpc-prefect: the flow failed: {type(error).__name__}: {error}", file=sys.stderr)
    return 1
