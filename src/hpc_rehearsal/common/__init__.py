"""What the stand-ins of schedulers share."""
