"""Run as a program by the commands that are installed: program.py KIND COMMAND STATE [ARGUMENT ...]

KIND is the rehearsed scheduler. Python compiles this file at each run, but its imports only once;
so it is short.
"""

import os
import sys

if __name__ == "__main__":
    # The packages without their __init__, whose imports would take a third of a command's time.
    # Isolated mode does not find the packages anyway.
    source = os.path.abspath(os.path.join(__file__, "..", "..", ".."))
    for name in ("hpc_prefect", "hpc_rehearsal"):
        package = type(sys)(name)
        package.__path__ = [os.path.join(source, name)]
        sys.modules[name] = package
    kind = __import__(f"hpc_rehearsal.{sys.argv[1]}.commands", fromlist=["main"])
    status = kind.main(sys.argv[2], sys.argv[3], sys.argv[4:])
    os._exit(status)  # all is written; a normal exit takes 2 ms more
