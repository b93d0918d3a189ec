"""The only subprocess, the only file access to a site; later the only SSH."""
