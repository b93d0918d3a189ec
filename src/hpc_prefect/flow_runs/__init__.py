"""What a call knows of the flow runs around it."""
