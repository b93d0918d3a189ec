"""The page on quantum jobs: its code runs, its blocks can be applied, it has every field."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from hpc_prefect.block_files.document import read_document
from hpc_prefect.quantum import EstimatorOptions, QuantumBackendBlock, SamplerOptions

PAGE = (Path(__file__).parents[2] / "docs" / "quantum.md").read_text(encoding="utf-8")


def code(language: str) -> str:
    """All code of the page in that language, as one document."""
    return "\n".join(re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE))


def test_the_python_on_the_page_runs(prefect_server, tmp_path):
    program = code("python") + "\nassert abs(value - 1) < 0.1, value\n"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=250
    )

    assert done.returncode == 0, done.stderr
    assert re.search(r"\{'(00|11)': \d+, '(00|11)': \d+\}", done.stdout)


def test_the_blocks_on_the_page_can_be_applied():
    document = read_document(
        code("toml"), here="/here", venv="/venv", environ=os.environ | {"MY_IBM_TOKEN": "t"}
    )

    kinds = [item.kind for item in document.items]
    assert kinds == ["ibm-credentials", *["quantum-backend"] * 3]
    assert document.items[0].value.token.get_secret_value() == "t"


def test_the_page_has_every_field_and_option():
    fields = {*QuantumBackendBlock.model_fields, *SamplerOptions.model_fields}
    fields |= {*EstimatorOptions.model_fields} - {"depolarizing"}
    own = {name for name in fields if not name.startswith("_")} - {"depolarizing"}

    assert {name for name in own if f"`{name}`" not in PAGE} == set()
