"""The folders of jobs and campaigns on disk, and the claims on them. Knows no Prefect."""
