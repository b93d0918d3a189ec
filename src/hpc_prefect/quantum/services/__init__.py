"""Quantum services, one a vendor."""
