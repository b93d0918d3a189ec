"""A stand-in for IBM Quantum's Runtime service: HTTP on loopback, simulators behind it.

The service is a process of its own. Clients need no change: with the variables of `environment.py`
a plain `QiskitRuntimeService()` finds it.
"""
