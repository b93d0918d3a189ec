"""Flows whose identity is tested, in processes of their own."""

from __future__ import annotations

import asyncio
import sys

from jobs import WAIT, job
from prefect import flow
from pydantic import BaseModel


class Chemistry(BaseModel):
    orbitals: set[str]


SITES = ["carbon", "nitrogen", "oxygen", "sulphur", "iron", "copper"]


@flow
async def with_sets(work_dir: str, sites: set[str], chemistry: Chemistry) -> None:
    await job(work_dir, "wait", WAIT)


@flow
async def alone(work_dir: str) -> None:
    await job(work_dir, "wait", WAIT)


if __name__ == "__main__":
    which, folder = sys.argv[1:]
    if which == "with_sets":
        asyncio.run(with_sets(folder, set(SITES), Chemistry(orbitals=set(SITES))))  # type: ignore[arg-type]
    else:
        asyncio.run(alone(folder))  # type: ignore[arg-type]
