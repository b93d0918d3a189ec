"""Any vendor's Qiskit backend (`BackendV2`) whose jobs can be found again by their id.

    backend.py    the backend that a block names, and what it takes
    service.py    the questions to it
    samples.py    from the vendor's result to that of Qiskit's sampler

IonQ's, IQM's and Azure's packages have such backends: `run(circuits, shots=…)` gives a job with an
id, and `retrieve_job(id)` gives it again. They have no search by a tag of ours. So one thing cannot
be promised: when the reply to a submission is lost, it is unknown whether the job exists. Then
nothing is submitted again before a person has looked; the error says how to go on.
"""
