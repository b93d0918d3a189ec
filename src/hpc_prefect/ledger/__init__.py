"""What is on disk: the folders of jobs and campaigns, and the claim on them. Knows no Prefect."""
