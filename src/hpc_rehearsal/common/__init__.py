"""The code that the stand-ins of schedulers share."""
