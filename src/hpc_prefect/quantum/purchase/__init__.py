"""A quantum job as the executor's machinery takes it, whatever the vendor.

provider.py   the questions of a provider, put to a quantum service
call.py       a call's job, and what its end is to the call: a result, or an error
request.py    what is asked of the executor: a job to be bought, or one to attach to
attempt.py    one job for one intent: device, transpilation, budget, POST
run.py        its life, derived of a batch job's: how it is looked at, how its result is kept
transpile.py  circuits in the device's own gates
budget.py     QPU seconds: spent, promised, left
retry.py      asking again, decided by the kind of the error
words.py      a job in words
show.py       the artifact
tally.py      what a flow run has used in sum
"""
