"""PJM, of Fujitsu's Technical Computing Suite."""
