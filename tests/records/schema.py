"""The schema of records, to hold real ones against."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

from jsonschema import Draft202012Validator

SCHEMA = json.loads(files("hpc_prefect.records").joinpath("run.schema.json").read_text())


def faults(record: dict[str, Any]) -> list[str]:
    """What is wrong with a record, by where."""
    found = Draft202012Validator(SCHEMA).iter_errors(json.loads(json.dumps(record)))
    return [f"{each.json_path}: {each.message}" for each in found]
