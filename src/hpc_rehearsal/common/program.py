"""Run as a program by the commands that are installed: program.py KIND COMMAND STATE [ARGUMENT ...]

KIND is the scheduler that is rehearsed. It is compiled each time it is run and stays short; what it
imports is compiled once.
"""

import os
import sys

if __name__ == "__main__":
    # The packages as bare folders: what their own __init__ import is a third of what a command
    # costs, and isolated mode does not find them anyway.
    source = os.path.abspath(os.path.join(__file__, "..", "..", ".."))
    for name in ("hpc_prefect", "hpc_rehearsal"):
        package = type(sys)(name)
        package.__path__ = [os.path.join(source, name)]
        sys.modules[name] = package
    kind = __import__(f"hpc_rehearsal.{sys.argv[1]}.commands", fromlist=["main"])
    status = kind.main(sys.argv[2], sys.argv[3], sys.argv[4:])
    os._exit(status)  # everything is written; to tear the interpreter down would cost 2 ms
