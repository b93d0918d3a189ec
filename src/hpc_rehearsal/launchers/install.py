"""Writing a site's launchers and its `module` into a folder."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

from hpc_rehearsal.common.install import add_commands
from hpc_rehearsal.common.text import shell_quoted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

CONFIG, LAUNCHERS, BASHRC, RANK = "site.json", "jobs-bin", "jobs-bashrc", "rank.sh"
ANY = "*"

_RANK = """\
#!/bin/sh
# FOLDER CALL PROGRAM [ARGUMENT ...]: a rank whose output goes to files of its own.
rank=${PMI_RANK:-${PMIX_RANK:-${OMPI_COMM_WORLD_RANK:-0}}}
exec > "$1/stdout.$2.$rank" 2> "$1/stderr.$2.$rank" || exit
shift 2
exec "$@"
"""

_BASHRC = """\
# Read by each bash of a rehearsed job: where the launchers are, and `module`.
case ":$PATH:" in *:{launchers}:*) ;; *) PATH={launchers}:$PATH ;; esac
_rehearsed_module() {{
  local verb=${{1:-}} name
  shift
  case $verb in
    load | add)
      for name in "$@"; do
        case ${{name%%/*}} in
          {known}) LOADEDMODULES=${{LOADEDMODULES:+$LOADEDMODULES:}}$name ;;
          *)
            # Assumed: Environment Modules says it like this.
            echo "ERROR: Unable to locate a modulefile for '$name'" >&2
            echo "rehearsal: add it with --module ${{name%%/*}} if the site has it" >&2
            return 1
            ;;
        esac
      done
      ;;
    unload | rm | del)
      for name in "$@"; do
        LOADEDMODULES=:$LOADEDMODULES:
        LOADEDMODULES=${{LOADEDMODULES/:"$name":/:}}
        LOADEDMODULES=${{LOADEDMODULES#:}} LOADEDMODULES=${{LOADEDMODULES%:}}
      done
      ;;
    swap | switch) _rehearsed_module unload "$1" && _rehearsed_module load "${{2:-$1}}" || return ;;
    purge) LOADEDMODULES= ;;
    list) echo "Currently Loaded Modulefiles: ${{LOADEDMODULES//:/ }}" >&2 ;;
    avail | help | show | display | spider | unuse | use | whatis) ;;
    *)
      echo "ERROR: Invalid command '$verb'" >&2
      return 1
      ;;
  esac
  export LOADEDMODULES
}}
{where}module() {{ _rehearsed_module "$@"; }}
"""
_LOGIN = "shopt -q login_shell && "


def install(
    folder: Path,
    launchers: Mapping[str, object],
    modules: Sequence[str],
    *,
    login_only: bool,
    mpi: str,
) -> dict[str, object]:
    """Write the files; returns what the scheduler must give its jobs: folders of PATH, variables.

    `modules`: names without a version, or `*` for any; `mpi`: the laptop's mpiexec, or empty.
    """
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CONFIG).write_text(json.dumps({"launchers": launchers, "mpi": mpi}, indent=1))
    (folder / RANK).write_text(_RANK)
    programs, bashrc = folder / LAUNCHERS, folder / BASHRC
    add_commands("launchers", programs, folder, {name: name for name in launchers})
    known = ANY if ANY in modules else " | ".join(map(shell_quoted, modules)) or "''"
    text = _BASHRC.format(
        launchers=shell_quoted(str(programs)), known=known, where=_LOGIN if login_only else ""
    )
    bashrc.write_text(text)
    return {"path": [str(programs)], "environment": {"BASH_ENV": str(bashrc)}}


def find_mpi(python: Path | None = None) -> str:
    """The laptop's mpiexec: that of the Python environment in use, else the first on PATH; empty if
    there is none."""
    beside = (python or Path(sys.executable)).parent
    for path in (str(beside), None):
        for name in ("mpiexec", "mpirun"):
            if found := shutil.which(name, path=path):
                return found
    return ""
