"""A rehearsal PBS: qsub, qstat, qdel, qselect, qhold, qrls, qrerun, with real processes here.

They print what OpenPBS 23.06 prints, byte for byte as far as it was recorded; what is marked
"assumed" in a comment was not. `install.install` writes the commands into a folder for PATH, bound
to a state folder:

    config.json              what `install` was told: nodes, queues, resources, groups
    lock  last  wake         the lock, the last job's number, the pipe that wakes the daemon
    jobs/<n>.json            a job's record; beside it its script and its output until the end
    undelivered/  aux/  tmp/ output that could not be delivered, node files, $TMPDIR
    spool/                   the spool of the laptop's engine, which runs the jobs
    faults/                  what is to go wrong, see below

There is no server. A command changes the records under the lock; a "daemon" process, started by the
first command that needs one and gone when there is nothing left for it to do, starts the jobs
through the laptop's engine and delivers their output at their end.

A fault is in force while a file of its name is in `faults/`: those of `hpc_rehearsal`, and

    exiting               a job that has ended stays in state E, its output undelivered
"""
