"""One quantum job for one intent: bought once, waited for, its result kept; whatever the vendor.

errand.py     what is needed to speak of a job, and to buy one
budget.py     QPU seconds: spent, promised, left
retry.py      asking again, decided by the kind of the error
post.py       one job for one intent
look.py       how it is, and that it ended
cancel.py     cancelling it, until the service shows that it has ended
wait.py       until it ends
run.py        these pieces in their order
show.py       the artifact
tally.py      what a flow run has used in sum
"""
