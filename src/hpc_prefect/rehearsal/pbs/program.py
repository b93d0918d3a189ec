"""Run as a program by the commands that `install` writes: program.py COMMAND STATE [ARGUMENT ...]

It is compiled each time it is run and stays short; what it imports is compiled once.
"""

import os
import sys

if __name__ == "__main__":
    # The package as a bare folder: what its own __init__ imports is a third of what a command
    # costs, and isolated mode does not find it anyway.
    package = type(sys)("hpc_prefect")
    package.__path__ = [os.path.abspath(os.path.join(__file__, "..", "..", ".."))]
    sys.modules["hpc_prefect"] = package
    from hpc_prefect.rehearsal.pbs.commands import main

    status = main(sys.argv[1], sys.argv[2], sys.argv[3:])
    os._exit(status)  # everything is written; to tear the interpreter down would cost 2 ms
