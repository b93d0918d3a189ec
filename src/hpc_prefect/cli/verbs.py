"""What several verbs share."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, TypeAlias

#: Each verb adds its parser to this. Prefect takes seconds to import, so a verb's module imports
#: it, and what needs it, only when the verb is run.
if TYPE_CHECKING:
    Verbs: TypeAlias = argparse._SubParsersAction[argparse.ArgumentParser]
else:
    Verbs = argparse._SubParsersAction

#: The ways to name a run, for the help of commands.
RUN = "id or its beginning, flow run's name, folder, or latest"


def use_own_server() -> None:
    """Use your own server, if it runs and no other one is named; for verbs that ask Prefect."""
    from hpc_prefect.block_files.project import use_own_server

    use_own_server()


def flow_failed(error: Exception) -> int:
    """Print that a flow has failed; returns the exit status. Prefect's log has the traceback."""
    print(f"hpc-prefect: the flow failed: {type(error).__name__}: {error}", file=sys.stderr)
    return 1
