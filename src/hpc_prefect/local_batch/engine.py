"""The laptop's own small batch system, for one user and one machine: Linux, standard library only.

    python -I -S engine.py submit [--spool DIR] --name NAME --queue Q --slots N --cpus C
                                  [--walltime SECONDS] [--memory BYTES] --out PATH --err PATH
                                  --cwd PATH [--kill-grace SECONDS]
                                  [--array SIZE [--at-once K]] SCRIPT
    python -I -S engine.py jobs   [--spool DIR] [ID ...]
    python -I -S engine.py find   [--spool DIR] NAME ...
    python -I -S engine.py cancel [--spool DIR] ID ...

submit  copies the script, prints the job's id and returns at once. There is no daemon: a detached
        supervisor process waits for its turn (first come, first served in each queue; a job starts
        when its cpus fit into its slots), runs the script, enforces the limits, writes the records.
        --array SIZE runs the script SIZE times, as elements ID_0, ID_1 … of one array job, each
        with its own --cpus and limits; HPC_LOCAL_ARRAY_INDEX holds the element's number. At most K
        elements run at once. The array waits in the queue as one job, and all elements append to
        the same two output files.
jobs    prints one JSON object a line for each known job; without ids, for all that have not ended.
find    prints the same for every job with one of these names, ended ones included.
cancel  prints "cancelled ID", "already ended ID" or "unknown ID" for each id. The job's processes
        get SIGTERM and, after the grace, SIGKILL. An id is that of a job, an array or an element.

--spool is the queue's folder, ~/.local/state/hpc-prefect/local/HOST when it is not given.

Exit status: 0 done, 1 refused or the spool cannot be read (stderr says why), 2 wrong usage, 70 a
defect of this program: what it did is then not known.
"""

# Python compiles this file at each run, but the modules beside it only once. So it is short. These
# modules avoid imports that take milliseconds (json, typing, enum, subprocess).

import os
import sys

if __name__ == "__main__":
    # Isolated mode leaves our folder out of the path. It is added last, so that nothing in it hides
    # the standard library.
    parent, folder = os.path.split(os.path.dirname(os.path.abspath(__file__)))
    sys.path.append(parent)
    try:
        status = __import__(f"{folder}.commands").commands.main(sys.argv[1:], __doc__)
    except Exception:  # noqa: BLE001 - Python's own status for this is 1, which means "refused"
        sys.excepthook(*sys.exc_info())
        status = 70
    os._exit(status)  # all is written; a normal exit takes 2 ms more
