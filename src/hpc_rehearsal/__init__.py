"""Stand-ins for what a laptop lacks: commands that behave like a site's, with real processes.

What goes wrong at a site can be rehearsed: a fault is in force while a file of its name is in the
folder `faults/` of a state folder. Each scheduler has these, and more of its own:

    down                  every command finds no server
    hung                  every command blocks
    query-fails           a command that asks finds no server, the others do
    query-hangs           a command that asks blocks, the others do not
    dies-after-submit     a submission makes the job and is killed before it prints the id
    hangs-after-submit    it makes the job and then blocks
    error-after-submit    it makes the job and then says that there is no server
    late                  jobs submitted now neither run nor show while the file is there
    unlisted              no command knows of any job, though they wait, run and end as always: put
                          there and taken away, a listing that is behind; left there, jobs that
                          vanish from queue and history
    forgets               a job that still waits when somebody asks is gone, for good
    no-history            nothing is known of a job that has ended
    node-fails            what runs is killed, and its node called lost
    over-limit            the user may not submit another job

What a file server does wrong (a record that shows late, a full disk) is no matter of a scheduler's
commands: see `tests/kills/faults.py`.
"""
