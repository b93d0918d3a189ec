"""A rehearsal PJM: its commands run jobs as processes of this machine.

They print what manuals of Technical Computing Suite V4.0L20 and listings of a real machine show;
no PJM could be run for this. What none of these shows is marked "assumed" in a comment.
`install.install` writes the commands into a folder for PATH, bound to a state folder:

    config.json              what `install` was told: nodes, resource units and groups
    lock  last  wake         the lock, the last job's number, the pipe that wakes the daemon
    jobs/<n>.json            a job's record; beside it its script, SC, and what the engine runs, sh
    aux/  tmp/               node files, the jobs' own scratch folders
    spool/                   the spool of the laptop's engine, which runs the jobs
    faults/                  what is to go wrong, see below

There is no daemon. A command changes the records under the lock; a "daemon" process starts the jobs
through the laptop's engine and takes them from state to state. A job that has ended leaves the
queue first and shows in the history (`pjstat -H`) a moment later.

A fault is in force while a file of its name is in `faults/`: those of `hpc_rehearsal`, and

    runout                a job that has ended stays in state RNO
    error                 a job that is to start is stopped in state ERR
    deadline              what runs is stopped, because its nodes have a deadline
    loading               pjstat says first that it is loading data
"""
