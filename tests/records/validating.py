"""Asks roc-validator about crates. Runs in its environment, which is not ours; see engines.py.

    python validating.py PROFILE CONTEXT CACHE CRATE [CRATE …]

It prints JSON: for each crate by severity what does not hold of the profile, and of those that it
extends: Provenance Run Crate extends Workflow Run Crate, Process Run Crate, Workflow RO-Crate and
RO-Crate 1.1. Nothing is fetched: the
two contexts that a crate names are put into the validator's HTTP cache first, and it is offline.
"""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from requests import Request
from requests_cache import CachedResponse, CachedSession
from rocrate_validator import services
from rocrate_validator.models import Severity, ValidationSettings

RO_CRATE = "https://w3id.org/ro/crate/1.1/context"
WORKFLOW_RUN = "https://w3id.org/ro/terms/workflow-run/context"
#: What RO-Crate 1.1 has otherwise than the later version of its context that rocrate comes with,
#: of the terms that our crates use.
_BIOSCHEMAS = "https://bioschemas.org/"
OF_1_1 = {
    "ComputationalWorkflow": f"{_BIOSCHEMAS}ComputationalWorkflow",
    "FormalParameter": f"{_BIOSCHEMAS}FormalParameter",
    "input": f"{_BIOSCHEMAS}ComputationalWorkflow#input",
    "output": f"{_BIOSCHEMAS}ComputationalWorkflow#output",
}
#: The terms of runs, all in one namespace.
TERMS = (
    *("ParameterConnection", "ContainerImage", "DockerImage", "SIFImage", "connection"),
    *("sourceParameter", "targetParameter", "md5", "sha1", "sha256", "sha512", "environment"),
    *("registry", "tag", "containerImage", "resourceUsage"),
)


def main(profile: str, context: str, cache: str, crates: list[str]) -> None:
    later = json.loads(Path(context).read_text())["@context"]
    terms = {term: f"https://w3id.org/ro/terms/workflow-run#{term}" for term in TERMS}
    _seed(cache, {RO_CRATE: later | OF_1_1, WORKFLOW_RUN: terms})
    print(json.dumps({crate: _faults(profile, crate, cache) for crate in crates}))


def _seed(cache: str, contexts: dict[str, dict[str, Any]]) -> None:
    session = CachedSession(cache, backend="sqlite", expire_after=-1, allowable_methods=("GET",))
    for url, terms in contexts.items():
        if not session.cache.contains(url=url):
            answer = CachedResponse(
                url=url,
                status_code=200,
                headers={"Content-Type": "application/ld+json"},
                content=json.dumps({"@context": terms}).encode(),
                created_at=datetime.now(UTC),
            )
            key = session.cache.create_key(Request("GET", url))
            session.cache.save_response(answer, cache_key=key)
    session.close()


def _faults(profile: str, crate: str, cache: str) -> dict[str, list[str]]:
    result = services.validate(
        ValidationSettings(
            rocrate_uri=crate,
            profile_identifier=profile,
            requirement_severity=Severity.RECOMMENDED,
            cache_path=Path(cache),
            offline=True,
        )
    )
    found: dict[str, set[str]] = {"REQUIRED": set(), "RECOMMENDED": set()}
    for issue in result.get_issues(Severity.RECOMMENDED):
        text = f"{issue.check.identifier} {issue.message} ({issue.violatingEntity})"
        found[issue.severity.name].add(text)
    return {severity: sorted(texts) for severity, texts in found.items()}


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4:])
