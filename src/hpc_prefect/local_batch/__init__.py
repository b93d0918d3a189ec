"""The laptop's own small batch system: `engine.py` is run as a program and never imported."""
