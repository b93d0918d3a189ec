"""Stand-ins for what a laptop lacks: commands that behave like a site's, with real processes."""
