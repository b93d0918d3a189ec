"""The secrets in the folders of a run's jobs."""

from __future__ import annotations

from hpc_prefect.records.export.attempts import attempts
from hpc_prefect.records.export.files import BATCH_FILES, JobFiles, own_path, quantum_files
from hpc_prefect.records.export.redaction import Secrets
from hpc_prefect.records.fold import Record


def secrets_of(record: Record, files: JobFiles) -> Secrets:
    """The values with a secret's name of all jobs. Collect them before anything is written."""
    secrets = Secrets()
    for job in attempts(record):
        for attempt in job:
            if not (folder := files.folder(attempt)):
                continue
            kind = str(attempt.get("kind"))
            names = BATCH_FILES if kind == "batch" else quantum_files(kind)
            for name in names:
                if name.endswith((".json", ".jsonl")):
                    secrets.learn_json(files.read_record(own_path(attempt, folder, name)))
    return secrets
