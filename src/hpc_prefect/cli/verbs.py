"""What the modules of the verbs have in common."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

#: To what a verb adds its parser. Prefect takes seconds to import: a verb's module imports it, and
#: what needs it, only when the verb is run.
if TYPE_CHECKING:
    Verbs: TypeAlias = argparse._SubParsersAction[argparse.ArgumentParser]
else:
    Verbs = argparse._SubParsersAction

#: How a command's help says in which ways a run can be named.
RUN = "id or its beginning, flow run's name, folder, or latest"


def state_folder() -> Path:
    """Where this package keeps what belongs to the user, and to no experiment."""
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state) / "hpc-prefect"
