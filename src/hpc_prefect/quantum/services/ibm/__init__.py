"""IBM Quantum, by IBM's own client.

    error_kinds.py  what kind of trouble an error of the client is
    client.py       the questions to the service
    options.py      the client's options, checked by its own models
    sessions.py     one batch or session a flow run and device
    backend.py      the device that a block names, and what it takes

All blocking calls are in `client`, behind one lock, and run in threads. Only `client`
and `options` import qiskit-ibm-runtime, when they are first used.
"""
