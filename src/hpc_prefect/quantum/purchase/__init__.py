"""Quantum jobs of any vendor, run by the executor.

provider.py   a quantum service as one of the executor's providers
call.py       from a call to its job, and from the job's end to a result or an error
request.py    the executor's request: a job to buy, or one to attach to
attempt.py    one attempt: device, transpilation, budget, intent, POST
run.py        a job from start to end: how it is polled, how its result is stored
transpile.py  circuits in the device's own gates
budget.py     QPU seconds: spent, promised, left
retry.py      repeating failed questions, by the kind of the error
words.py      a job in words
show.py       the artifact
tally.py      what a flow run has used in total
"""
