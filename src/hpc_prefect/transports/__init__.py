"""The only modules that run commands and access files at a site."""
