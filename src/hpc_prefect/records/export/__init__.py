"""Exports of a run: as an RO-Crate, and into MLflow. Each library is imported when it is used."""
