"""A held allocation as a scheduler: jobs are handed to its agent through a folder."""
