"""Arrays: many small jobs in few submissions, each of them run once.

    request.py      what a caller hands over
    opening.py      what earlier calls have submitted of it, and what each member came to
    submission.py   one submission: its folder, its members, our claim on it
    evidence.py     what the members' files tell of each
    monitor.py      watching one up to the end of its last member
    run.py          from the call to the results: follow what is there, submit what is missing

A call's members are known by their keys. Each submission of the same array has some of them, and a
folder `<key>-<number>` as the attempts of a job have. So what failed, or is new in a later call, is
submitted as another and smaller array, and nothing else is.
"""
