"""A user's processes on one host share a scheduler: its queue slots, its answers, their orphans."""
