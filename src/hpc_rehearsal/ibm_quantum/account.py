"""The account: one API key, access tokens made of it, one instance."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from typing import Any

from hpc_rehearsal.ibm_quantum.settings import Settings

PLAN = "rehearsal-plan"
#: A token is accepted so many seconds longer: a client renews it only just before its end.
_LEEWAY_SECONDS = 60


def access_token(settings: Settings) -> dict[str, Any]:
    """The answer of the identity service."""
    now = time.time()
    claims = {
        "iam_id": "IBMid-rehearsal",
        "iat": int(now),
        "exp": int(now) + settings.token_seconds,
        "issued": now,
    }
    body = ".".join(_encoded(json.dumps(part).encode()) for part in ({"alg": "HS256"}, claims))
    return {
        "access_token": f"{body}.{_signature(settings, body)}",
        "refresh_token": "not_supported",
        "token_type": "Bearer",
        "expires_in": settings.token_seconds,
        "expiration": claims["exp"],
        "scope": "ibm openid",
    }


def claims_of(settings: Settings, authorization: str) -> dict[str, Any] | None:
    """The claims of an `Authorization` header's token; None if it is not ours or has expired."""
    kind, _, token = authorization.partition(" ")
    body, _, signature = token.rpartition(".")
    if kind.lower() != "bearer" or not hmac.compare_digest(signature, _signature(settings, body)):
        return None
    encoded = body.rpartition(".")[2]
    padded = encoded + "=" * (-len(encoded) % 4)
    claims: dict[str, Any] = json.loads(base64.urlsafe_b64decode(padded))
    return claims if time.time() < claims["exp"] + _LEEWAY_SECONDS else None


def resources(settings: Settings, devices: list[str]) -> dict[str, Any]:
    """The answer of the search for instances."""
    instance = {
        "crn": settings.crn,
        "name": "rehearsal",
        "service_plan_unique_id": PLAN,
        "doc": {"extensions": {"backends": devices}},
        "tags": [],
    }
    return {"items": [instance], "limit": 100}


def plan() -> dict[str, Any]:
    """The catalogue's entry for the instance's plan."""
    return {
        "id": PLAN,
        "name": PLAN,
        "kind": "plan",
        "overview_ui": {"en": {"display_name": "Open"}},
        "metadata": {"pricing": {"type": "free"}},
    }


def _signature(settings: Settings, body: str) -> str:
    digest = hmac.new(settings.signing_key.encode(), body.encode(), hashlib.sha256).digest()
    return _encoded(digest)


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
