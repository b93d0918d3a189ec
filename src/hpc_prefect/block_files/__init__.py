"""TOML files of blocks and Variables: read, checked, and saved in Prefect."""
