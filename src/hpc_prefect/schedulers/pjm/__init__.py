"""PJM, the scheduler of Fugaku and its relatives."""
