"""The profiles of the places that come with the package, with a user's part filled in."""

from __future__ import annotations

import re

from hpc_prefect.block_files.document import read_document
from hpc_prefect.blocks import HPCProfileBlock
from hpc_prefect.sites import all_sites

SITES = {site.name: site for site in all_sites()}

#: What a user of each place writes for its blanks.
FILLED = {
    "fugaku": {
        "<resource group>": "small",
        "<group>": "hp250000",
        "<program>": "/vol0004/data/hp250000/me/diag",
        "<volume>": "/vol0004",
    },
    "laptop": {"<program>": "/home/me/diag"},
    "miyabi": {
        "<cpu queue>": "regular-c",
        "<gpu queue>": "regular-g",
        "<project>": "gz00",
        "<cpu program>": "/work/gz00/me/cpu/diag",
        "<gpu program>": "/work/gz00/me/gpu/diag",
    },
    "pbs": {
        "<queue>": "workq",
        "<gpu queue>": "gpuq",
        "<project>": "chem",
        "<program>": "/shared/me/diag",
    },
    "pjm": {"<resource group>": "a-batch", "<group>": "chem", "<program>": "/shared/me/diag"},
    "slurm": {
        "<partition>": "normal",
        "<gpu partition>": "gpu",
        "<account>": "chem",
        "<program>": "/shared/me/diag",
    },
}

#: Places with another side for `resource_class="gpu"`.
WITH_GPUS = ("miyabi", "pbs", "slurm")


def blanks(text: str) -> set[str]:
    return set(re.findall(r'"(<[a-z][a-z -]*>)"', text))


def filled(name: str) -> str:
    """The file of a place as a user would complete it."""
    text = SITES[name].text
    for blank, value in FILLED[name].items():
        text = text.replace(f'"{blank}"', f'"{value}"')
    return text


def profile(name: str) -> HPCProfileBlock:
    document = read_document(filled(name), here="/home/me", venv="/home/me/.venv", environ={})
    (item,) = document.items
    assert isinstance(item.value, HPCProfileBlock)
    return item.value
