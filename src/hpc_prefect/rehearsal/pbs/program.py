"""Run as a program by the commands that `install` writes: program.py COMMAND STATE [ARGUMENT ...]

It is compiled each time it is run and stays short; what it imports is compiled once.
"""

import os
import sys

if __name__ == "__main__":
    # Isolated mode leaves the packages out of the path. Ours goes last: it hides nothing.
    source = os.path.abspath(__file__)
    for _ in range(4):
        source = os.path.dirname(source)
    sys.path.append(source)
    from hpc_prefect.rehearsal.pbs.commands import main

    status = main(sys.argv[1], sys.argv[2], sys.argv[3:])
    os._exit(status)  # everything is written; to tear the interpreter down would cost 2 ms
