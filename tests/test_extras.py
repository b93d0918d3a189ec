"""Without an optional package its users are told what to install, in one sentence."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from hpc_prefect.extras import OPTIONAL, missing
from hpc_prefect.server import Server

SRC = Path(__file__).parents[1] / "src"


def test_what_is_installed_is_not_missed():
    assert missing("sampling", "numpy", "qiskit") == ""


def test_each_optional_package_is_in_an_extra_of_ours():
    import tomllib

    project = tomllib.loads((SRC.parent / "pyproject.toml").read_text())["project"]
    of_extra = project["optional-dependencies"]
    for distribution, extra in OPTIONAL.values():
        assert any(
            line.startswith((f"{distribution}>", f"{distribution}=")) for line in of_extra[extra]
        )


def test_the_rehearsal_of_the_service_says_what_it_needs(bare: str) -> None:
    said = run(
        bare,
        "from hpc_prefect.errors import ConfigurationError\n"
        "from hpc_rehearsal import cli\n"
        "try:\n"
        "    cli.main(['ibm-quantum', '--', 'true'])\n"
        "except ConfigurationError as error:\n"
        "    print(error)\n",
    )
    assert said.startswith("the rehearsal of IBM Quantum needs ")
    assert "run: pip install 'hpc-prefect[" in said
    assert "rehearsal" in said.rpartition("[")[2]


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A path with all that is installed but the optional packages."""
    folder = tmp_path_factory.mktemp("bare")
    absent = {*OPTIONAL, "samplomatic", "ibm_quantum_schemas"}
    absent |= {name.replace("_", "-") for name in absent}
    # Wherever packages come from here; ours is taken from its source.
    for place in [Path(each) for each in sys.path if each.endswith("site-packages")]:
        for entry in place.iterdir():
            name = entry.name.partition(".")[0].partition("-")[0]
            if name not in absent and not (folder / entry.name).exists():
                (folder / entry.name).symlink_to(entry)
    return os.pathsep.join([str(SRC), str(folder), sysconfig.get_path("stdlib")])


def run(bare: str, program: str) -> str:
    done = subprocess.run(
        [sys.executable, "-S", "-c", program],
        env={**os.environ, "PYTHONPATH": bare},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


ALL = """
import asyncio
from hpc_prefect.convergence import StopRule, converge
from hpc_prefect.quantum import QuantumBackendBlock, QuantumJob, estimate, fetch, sample
from hpc_prefect.quantum.backends import BackendSpec, build

QuantumBackendBlock(kind="ibm", backend_name="least-busy")  # a block needs none of them
job = QuantumJob(kind="sampler", backend="b", job_id="", digest="", folder=".", work_dir=".")
place = {"quantum_backend_block_name": "b", "work_dir": "."}
calls = [
    lambda: sample([], **place),
    lambda: estimate([], **place),
    lambda: fetch(job),
    lambda: converge(max, 1, measure=max, work_dir=".", stop=StopRule(max_iterations=1)),
]
kinds = [("simulator", "aer"), ("simulator", "ffsim"), ("ibm", "x"), ("fake-device", "FakeTorino")]
calls += [lambda k=k, n=n: build(BackendSpec(kind=k, backend_name=n)) for k, n in kinds]
for call in calls:
    try:
        made = call()
        asyncio.run(made)
    except Exception as error:
        print(type(error).__name__, error)
"""


def test_every_call_tells_what_it_needs_and_what_to_run(bare, tmp_path):
    told = run(bare, ALL).splitlines()

    quantum, ibm = "'hpc-prefect[quantum]'", "'hpc-prefect[quantum,ibm]'"
    assert [line.rpartition(" ")[2] for line in told] == [*[quantum] * 6, ibm, ibm]
    assert all(line.startswith("ConfigurationError ") for line in told)
    assert told[0] == (
        "ConfigurationError sampling with 'b' needs qiskit, which is not installed here;"
        " run: pip install 'hpc-prefect[quantum]'"
    )
    assert "the simulator 'aer' needs qiskit, qiskit-aer, which are not installed" in told[4]


LOOP = """
import asyncio, logging, sys
logging.basicConfig(level=logging.INFO, stream=sys.stdout)
from hpc_prefect.convergence.reporter import LoopReporter, Source
from hpc_prefect.convergence.stop import StopRule
from hpc_prefect.convergence.telemetry import Plot
from pathlib import Path

rule = StopRule(max_iterations=1)
reporter = LoopReporter(name="n2", book=None, source=Source(rule, None),
            log=logging.getLogger("loop"), png=Path("n2.png"), plot=Plot(), on_iteration=None)
row = {"iteration": 1, "value": 1.0, "change": None, "seconds": 0.1, "time": ""}
asyncio.run(reporter.broken((row,), rule))
"""


def test_a_loop_without_matplotlib_tells_it_and_goes_on(bare, prefect_server: Server):
    told = "the plot of the loop needs matplotlib, which is not installed here; run: pip install"

    assert told in run(bare, LOOP)
