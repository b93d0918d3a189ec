"""Arguments of this package's tasks that Prefect would else take from its settings.

`PREFECT_TASKS_DEFAULT_RETRIES=2` is meant for a user's tasks: ours would post three QPU jobs.
"""

from __future__ import annotations

from typing import Any

from prefect.cache_policies import NO_CACHE

#: Without these, settings of Prefect's would hold.
FIXED: dict[str, Any] = {
    "retries": 0,
    "retry_delay_seconds": 0,
    "refresh_cache": False,
    "log_prints": False,
}

#: The record on disk decides what is done again: no cache of Prefect's, and no stored result.
ONCE_ONLY: dict[str, Any] = {**FIXED, "persist_result": False, "cache_policy": NO_CACHE}
