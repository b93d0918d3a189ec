"""IBM Quantum: a job of its service is posted once, waited for, and fetched.

    kinds.py      what kind of trouble an error of the client is
    client.py     the questions to the service, by IBM's own client
    options.py    what the client is told: its options, checked by its own models
    journal.py    what was intended, posted and ended, in the sampling's folder
    budget.py     QPU seconds: spent, promised, left
    patience.py   asking again, decided by the kind of the error
    post.py       one job for one intent
    look.py       how it is, and that it ended
    cancel.py     cancelling it, until the service shows that it has ended
    wait.py       until it ends
    show.py       the artifact
    tally.py      what a flow run has used in sum

All that blocks is in `client`, behind one lock, and is called in threads. Of these only `client`
and `options` import qiskit-ibm-runtime, when they are first used.
"""
