"""Arrays: many small jobs in few submissions, each of them run once.

    request.py      what a caller hands over
    opening.py      what earlier calls submitted of it, and how each member ended
    submission.py   one submission: its folder, its members, our claim on it
    evidence.py     the evidence in the members' files
    monitor.py      watching one up to the end of its last member
    run.py          from the call to the results: follows what is submitted, submits what is missing

A call's members are known by their keys. Each submission of the same array has some of them, and a
folder `<key>-<number>`, as the attempts of a job have. So members that failed, or are new in a
later call, are submitted as another, smaller array, and no others.
"""
