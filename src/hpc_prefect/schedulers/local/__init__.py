"""The laptop's own batch system."""
