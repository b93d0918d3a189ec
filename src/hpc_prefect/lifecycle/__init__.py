"""Resumes and reproduces runs, and cancels jobs of runs whose process was killed."""
