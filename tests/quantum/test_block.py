"""The block: what it takes, what it refuses, and that it needs no Qiskit."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest
from prefect.testing.standard_test_suites import BlockStandardTestSuite
from pydantic import ValidationError

from hpc_prefect.quantum import IBMQuantumCredentials, QuantumBackendBlock
from hpc_prefect.quantum.backends import BackendSpec


class TestAsAnyBlock(BlockStandardTestSuite):
    @pytest.fixture(params=[QuantumBackendBlock, IBMQuantumCredentials])
    def block(self, request):
        return request.param

    def test_has_a_valid_image(self, block):
        """None: Prefect's own form of this test would fetch it from the web."""
        assert block._logo_url is None


def test_its_slug_never_changes():
    assert QuantumBackendBlock.get_block_type_slug() == "hpc-prefect-quantum-backend"
    assert IBMQuantumCredentials.get_block_type_slug() == "hpc-prefect-ibm-credentials"


def test_the_defaults_are_aer():
    assert QuantumBackendBlock().spec() == BackendSpec(kind="simulator", backend_name="aer")


@pytest.mark.parametrize("kind", [QuantumBackendBlock, IBMQuantumCredentials])
def test_no_field_is_drawn_as_tabs_in_prefects_form(kind):
    fields = kind.model_json_schema()["properties"]

    assert not [name for name, field in fields.items() if "anyOf" in field or "oneOf" in field]


def test_a_misspelt_field_is_an_error_that_suggests_the_right_one():
    with pytest.raises(ValidationError, match="there is no such field; did you mean 'noise'"):
        QuantumBackendBlock(nois=False)


def test_a_document_with_a_field_of_another_version_loads():
    block = QuantumBackendBlock.model_validate({"backend_name": "ffsim", "colour": "blue"})

    assert block.backend_name == "ffsim"


def test_kind_ibm_can_be_stored():
    assert QuantumBackendBlock(kind="ibm", backend_name="ibm_torino").kind == "ibm"


def test_a_token_is_never_shown():
    credentials = IBMQuantumCredentials(token="hunter2", instance="crn:v1:x")

    assert "hunter2" not in f"{credentials!r} {credentials} {credentials.account()!r}"
    assert credentials.account().token == "hunter2"


def test_fields_that_do_not_belong_together_are_refused_all_at_once():
    with pytest.raises(ValidationError) as refused:
        QuantumBackendBlock(
            backend_name="aer",
            mode="batch",
            max_qpu_seconds=5,
            transpilation={"optimisation_level": 2},
        )

    text = str(refused.value)
    assert "transpilation: optimisation_level: there is no such setting; there are: " in text
    assert "transpilation: a simulator takes circuits as they are; remove it" in text
    assert "mode: it is for kind 'ibm', and this is a simulator; remove it" in text
    of = "the kinds ibm, qiskit"
    assert f"max_qpu_seconds: it is for {of}, and this is a simulator; remove it" in text


WITHOUT_QISKIT = """
    import sys

    class Blocker:
        def find_spec(self, name, path=None, target=None):
            if name.partition(".")[0] in ("qiskit", "qiskit_aer", "ffsim", "numpy", "scipy",
                                             "qiskit_ibm_runtime", "requests"):
                raise ImportError(f"{name} is blocked")

    sys.meta_path.insert(0, Blocker())

    import hpc_prefect, hpc_prefect.blocks, hpc_prefect.quantum
    from hpc_prefect.quantum import QuantumBackendBlock, SamplerOptions, sample, sample_sync
    from hpc_prefect.quantum import IBMQuantumCredentials, estimate, fetch, submit_sampling

    IBMQuantumCredentials(token="t")
    QuantumBackendBlock(kind="ibm", backend_name="ibm_torino").spec()

    print(QuantumBackendBlock(backend_name="ffsim").spec().backend_name, SamplerOptions(shots=1))
"""


def test_package_block_and_call_import_without_qiskit():
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(WITHOUT_QISKIT)], capture_output=True, text=True
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("ffsim")
    assert "shots=1" in done.stdout
