"""A stand-in for IBM Quantum's Runtime service: HTTP on loopback, simulators behind it.

The service is a process of its own. Clients are not changed: `environment.py` has the variables
with which a plain `QiskitRuntimeService()` finds it.
"""
