"""A run for others: as an RO-Crate, and in MLflow. Imports neither library until it is used."""
