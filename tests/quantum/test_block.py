"""The block: what it takes, what it refuses, and that it needs no Qiskit."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest
from prefect.testing.standard_test_suites import BlockStandardTestSuite
from pydantic import ValidationError

from hpc_prefect.quantum import QuantumBackendBlock
from hpc_prefect.quantum.backends import BackendSpec


class TestAsAnyBlock(BlockStandardTestSuite):
    @pytest.fixture
    def block(self):
        return QuantumBackendBlock

    def test_has_a_valid_image(self, block):
        """None: Prefect's own form of this test would fetch it from the web."""
        assert block._logo_url is None


def test_its_slug_never_changes():
    assert QuantumBackendBlock.get_block_type_slug() == "hpc-prefect-quantum-backend"


def test_the_defaults_are_aer():
    assert QuantumBackendBlock().spec() == BackendSpec(kind="simulator", backend_name="aer")


def test_no_field_is_drawn_as_tabs_in_prefects_form():
    fields = QuantumBackendBlock.model_json_schema()["properties"]

    assert not [name for name, field in fields.items() if "anyOf" in field or "oneOf" in field]


def test_a_misspelt_field_is_an_error_that_suggests_the_right_one():
    with pytest.raises(ValidationError, match="there is no such field; did you mean 'noise'"):
        QuantumBackendBlock(nois=False)


def test_a_document_with_a_field_of_another_version_loads():
    block = QuantumBackendBlock.model_validate({"backend_name": "ffsim", "mode": "batch"})

    assert block.backend_name == "ffsim"


def test_kind_ibm_can_be_stored():
    assert QuantumBackendBlock(kind="ibm", backend_name="ibm_torino").kind == "ibm"


WITHOUT_QISKIT = """
    import sys

    class Blocker:
        def find_spec(self, name, path=None, target=None):
            if name.partition(".")[0] in ("qiskit", "qiskit_aer", "ffsim", "numpy", "scipy"):
                raise ImportError(f"{name} is blocked")

    sys.meta_path.insert(0, Blocker())

    import hpc_prefect, hpc_prefect.blocks, hpc_prefect.quantum
    from hpc_prefect.quantum import QuantumBackendBlock, SamplerOptions, sample, sample_sync

    print(QuantumBackendBlock(backend_name="ffsim").spec().backend_name, SamplerOptions(shots=1))
"""


def test_package_block_and_call_import_without_qiskit():
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(WITHOUT_QISKIT)], capture_output=True, text=True
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("ffsim shots=1")
