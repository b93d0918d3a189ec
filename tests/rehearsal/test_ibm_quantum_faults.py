"""IBM Quantum on loopback goes wrong: each fault, as the real client sees it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from qiskit import QuantumCircuit
from qiskit_ibm_runtime import QiskitRuntimeService, SamplerV2
from qiskit_ibm_runtime.accounts.exceptions import InvalidAccountError
from qiskit_ibm_runtime.api.exceptions import RequestsApiError
from qiskit_ibm_runtime.exceptions import (
    IBMNotAuthorizedError,
    IBMRuntimeError,
    RuntimeJobFailureError,
)

from hpc_rehearsal.ibm_quantum.command import main
from hpc_rehearsal.ibm_quantum.faults import ANSWERS, OTHERS, UnknownFault
from hpc_rehearsal.ibm_quantum.process import NotStarted

from ..quantum.service import QuantumService, common_ibm_quantum, ibm_quantum, quantum_service

__all__ = ["common_ibm_quantum", "ibm_quantum"]

pytestmark = pytest.mark.filterwarnings("ignore:The SamplerV2 class is deprecated")

PAGE = Path(__file__).parents[2] / "docs" / "rehearsal-quantum.md"
#: The client posts and polls again by itself after 500, 502, 503 and 504, not after this one.
AT_ONCE = 501


@pytest.fixture(scope="module")
def client(common_ibm_quantum: QuantumService) -> QiskitRuntimeService:
    return QiskitRuntimeService()


@pytest.fixture
def quantum(common_ibm_quantum: QuantumService) -> Iterator[QuantumService]:
    """The module's service; what is posted waits for an hour, unless the test says otherwise."""
    common_ibm_quantum.fault("queue", seconds=3600)
    yield common_ibm_quantum
    common_ibm_quantum.clear()


def post(client: QiskitRuntimeService, tag: str):
    """Post a job with this tag: one x on the first qubit of the small device."""
    circuit = QuantumCircuit(5)
    circuit.x(0)
    circuit.measure_all()
    backend = client.backend("fake_manila")
    options = {"environment": {"job_tags": [tag]}}
    return SamplerV2(backend, options=options).run([circuit], shots=10)


def until(condition: Callable[[], bool], timeout_seconds: float = 120) -> None:
    deadline = time.monotonic() + timeout_seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


# --- posting


def test_a_reply_that_is_lost_leaves_a_job_that_is_found_by_its_tag(
    client: QiskitRuntimeService, quantum: QuantumService
) -> None:
    quantum.fault("reply-lost", times=1)
    with pytest.raises(IBMRuntimeError, match="Failed to run program"):
        post(client, "lost")
    assert quantum.posted("lost") == 1
    (found,) = client.jobs(job_tags=["lost"])
    assert found.status() == "QUEUED"


def test_the_client_posts_again_by_itself_after_a_503_and_has_posted_twice(
    client: QiskitRuntimeService, quantum: QuantumService
) -> None:
    quantum.fault("reply-lost", times=1, status=503)
    job = post(client, "again")
    assert quantum.posted("again") == 2
    assert job.job_id() in [found.job_id() for found in client.jobs(job_tags=["again"])]


def test_a_post_that_fails_before_it_is_accepted_leaves_nothing(
    client: QiskitRuntimeService, quantum: QuantumService
) -> None:
    quantum.fault("post-fails", status=AT_ONCE)
    with pytest.raises(IBMRuntimeError, match="Failed to run program"):
        post(client, "refused")
    assert quantum.posted("refused") == 0


def test_a_post_that_fails_once_is_posted_once(
    client: QiskitRuntimeService, quantum: QuantumService
) -> None:
    quantum.fault("post-fails", times=1)
    post(client, "once")
    assert quantum.posted("once") == 1


def test_a_client_can_be_killed_between_the_jobs_acceptance_and_the_reply(
    quantum: QuantumService,
) -> None:
    quantum.fault("reply-lost", delay=3600)
    program = (
        "from qiskit import QuantumCircuit\n"
        "from qiskit_ibm_runtime import QiskitRuntimeService, SamplerV2\n"
        "circuit = QuantumCircuit(5)\n"
        "circuit.measure_all()\n"
        "backend = QiskitRuntimeService().backend('fake_manila')\n"
        "options = {'environment': {'job_tags': ['killed']}}\n"
        "SamplerV2(backend, options=options).run([circuit], shots=10)\n"
    )
    with subprocess.Popen([sys.executable, "-W", "ignore", "-c", program]) as process:
        try:
            quantum.wait(lambda counters: counters["posted_by_tag"].get("killed") == 1)
            assert process.poll() is None
        finally:
            process.kill()
    assert quantum.posted("killed") == 1


def test_a_duplicate_is_two_jobs_of_one_post(
    client: QiskitRuntimeService, quantum: QuantumService
) -> None:
    quantum.fault("duplicate", tag="double", times=1)
    post(client, "single")
    post(client, "double")
    assert (quantum.posted("single"), quantum.posted("double")) == (1, 2)


# --- asking


def test_a_poll_that_fails_twice_is_asked_again_by_the_client(
    client: QiskitRuntimeService, quantum: QuantumService
) -> None:
    job = post(client, "poll")
    quantum.fault("poll-fails", times=2)
    assert job.status() == "QUEUED"
    assert not (quantum.state / "faults" / "poll-fails").exists()
    quantum.fault("poll-fails", times=1, status=0)
    assert job.status() == "QUEUED"
    assert not (quantum.state / "faults" / "poll-fails").exists()


@pytest.mark.parametrize(
    ("fault", "ask"),
    [
        ("poll-fails", lambda client, job: job.status()),
        ("list-fails", lambda client, job: client.jobs()),
        ("results-fail", lambda client, job: client._active_api_client.job_results(job.job_id())),
        ("unavailable", lambda client, job: client.usage()),
    ],
)
def test_a_question_that_fails_is_an_error_and_the_job_is_still_there(
    fault: str, ask: Callable, client: QiskitRuntimeService, quantum: QuantumService
) -> None:
    job = post(client, fault)
    quantum.fault(fault, status=AT_ONCE)
    with pytest.raises(RequestsApiError) as error:
        ask(client, job)
    assert error.value.status_code == AT_ONCE
    quantum.clear(fault)
    assert job.status() == "QUEUED"


def test_a_rate_limit_is_waited_for_when_asking_and_an_error_when_posting(
    client: QiskitRuntimeService, quantum: QuantumService
) -> None:
    quantum.fault("rate-limit", times=1, retry_after=0)
    client.usage()
    assert not (quantum.state / "faults" / "rate-limit").exists()
    quantum.fault("post-fails", times=1, status=429, retry_after=0)
    with pytest.raises(IBMRuntimeError, match="429"):
        post(client, "limited")
    assert quantum.posted("limited") == 0


# --- the account


def test_an_answer_401_is_not_authorized(
    client: QiskitRuntimeService, quantum: QuantumService
) -> None:
    job = post(client, "unauthorized")
    quantum.fault("unauthorized", times=1)
    with pytest.raises(IBMNotAuthorizedError):
        job.status()
    assert job.status() == "QUEUED"


def test_a_token_that_expires_in_mid_wait_needs_a_new_client(
    client: QiskitRuntimeService, quantum: QuantumService
) -> None:
    job = post(client, "expired")
    quantum.fault("token-expired")
    with pytest.raises(IBMNotAuthorizedError):
        job.status()
    assert QiskitRuntimeService().job(job.job_id()).status() == "QUEUED"


def test_the_client_gets_a_new_token_when_its_own_runs_out(tmp_path: Path) -> None:
    with quantum_service(tmp_path, token_seconds=1) as service, service.found():

        def tokens() -> int:
            return int(service.counters()["requests"]["POST /identity/token"])

        client = QiskitRuntimeService()
        before = tokens()
        until(lambda: bool(client.usage()) and tokens() > before)


def test_a_wrong_key_is_refused(quantum: QuantumService) -> None:
    with pytest.raises(InvalidAccountError):
        QiskitRuntimeService(
            channel="ibm_quantum_platform", token="wrong", url=quantum.url, instance=quantum.crn
        )


def test_an_instance_at_its_limit_warns_and_lets_jobs_wait(
    client: QiskitRuntimeService, quantum: QuantumService
) -> None:
    quantum.clear("queue")
    quantum.fault("usage", consumed=10_000)
    assert client.usage()["usage_remaining_seconds"] == 0
    with pytest.warns(UserWarning, match="met its usage limit"):
        job = post(client, "limit")
    assert job.status() == "QUEUED"
    quantum.clear("usage")
    assert job.result()[0].data.meas.get_counts() == {"00001": 10}


# --- devices and jobs


def test_maintenance_is_told_and_jobs_wait_for_its_end(
    client: QiskitRuntimeService, quantum: QuantumService
) -> None:
    quantum.clear("queue")
    quantum.fault("maintenance", backend="fake_manila")
    status = client.backend("fake_manila").status()
    assert (status.operational, status.status_msg) == (False, "maintenance")
    assert QiskitRuntimeService().least_busy(simulator=False).name == "fake_torino"
    job = post(client, "maintenance")
    assert job.status() == "QUEUED"
    quantum.clear("maintenance")
    job.result()


def test_a_calibration_moves_the_time_of_the_properties(
    client: QiskitRuntimeService, quantum: QuantumService
) -> None:
    backend = client.backend("fake_manila")
    assert backend.properties().last_update_date.year == 2024
    quantum.fault("calibration", at="2026-05-06T07:08:09+00:00")
    moved = backend.properties(refresh=True).last_update_date
    assert (moved.year, moved.month, moved.day) == (2026, 5, 6)


def test_a_job_fails_with_the_reason_and_the_code_it_is_given(
    client: QiskitRuntimeService, quantum: QuantumService
) -> None:
    quantum.clear("queue")
    quantum.fault("job-fails", tag="fails", reason="Compilation failed", code=1517, times=1)
    other, failing = post(client, "other"), post(client, "fails")
    with pytest.raises(RuntimeJobFailureError, match="1517; Compilation failed"):
        failing.result()
    assert failing.status() == "ERROR"
    assert "Compilation failed" in failing.error_message()
    assert failing.usage() == 0
    other.result()
    post(client, "fails").result()


def test_what_no_fault_is_called_is_said(quantum: QuantumService) -> None:
    with pytest.raises(UnknownFault, match="poll-fails"):
        quantum.fault("pol-fails")
    with pytest.raises(UnknownFault, match="it takes backend"):
        quantum.fault("maintenance", device="fake_manila")


def test_the_page_has_every_fault() -> None:
    table = PAGE.read_text().partition("## What can go wrong")[2].partition("`status` replaces")[0]
    shown = re.findall(r"^\| `([\w-]+)` \|", table, re.MULTILINE)
    assert sorted(shown) == sorted([*ANSWERS, *OTHERS])


# --- the service itself


def test_a_service_that_is_killed_and_started_again_has_kept_its_jobs(
    ibm_quantum: QuantumService,
) -> None:
    ibm_quantum.fault("maintenance")
    job = post(QiskitRuntimeService(), "kept")
    ibm_quantum.kill()
    with pytest.raises(RequestsApiError):
        job.status()
    ibm_quantum.restart()
    assert job.status() == "QUEUED"
    ibm_quantum.clear()
    assert job.result()[0].data.meas.get_counts() == {"00001": 10}
    assert ibm_quantum.posted("kept") == 1


@pytest.mark.slow
def test_a_job_that_runs_when_the_service_is_killed_ends_after_its_restart(
    tmp_path: Path,
) -> None:
    with quantum_service(tmp_path, run_seconds=3600) as service, service.found():
        job = post(QiskitRuntimeService(), "running")
        until(lambda: job.status() == "RUNNING")
        service.kill()
        service.restart(run_seconds=0)
        assert job.status() in ("RUNNING", "DONE")
        job.result()
        assert service.posted("running") == 1


def test_a_state_folder_serves_one_service_at_a_time(tmp_path: Path) -> None:
    with quantum_service(tmp_path) as first, first.found():
        with pytest.raises(NotStarted, match="another service works on"), quantum_service(tmp_path):
            pass
        QiskitRuntimeService()


@pytest.mark.slow
def test_the_pages_first_program_runs(capfd: pytest.CaptureFixture[str]) -> None:
    (program,) = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    assert main(["--seed", "1", "--", sys.executable, "-W", "error", "-c", program]) == 0
    said = capfd.readouterr().out
    assert "QUEUED" in said
    assert "QPU seconds: 1.25 left: 598.75" in said


@pytest.mark.slow
def test_the_command_runs_with_the_service_and_gives_its_status(tmp_path: Path) -> None:
    """Two commands, one state: the second finds what the first posted; a fault from the start."""
    first = (
        "from qiskit import QuantumCircuit\n"
        "from qiskit_ibm_runtime import QiskitRuntimeService, SamplerV2\n"
        "circuit = QuantumCircuit(5)\n"
        "circuit.measure_all()\n"
        "backend = QiskitRuntimeService().backend('fake_manila')\n"
        "SamplerV2(backend).run([circuit], shots=10)\n"
        "raise SystemExit(7)\n"
    )
    second = (
        "from qiskit_ibm_runtime import QiskitRuntimeService\n"
        "(job,) = QiskitRuntimeService().jobs()\n"
        "assert job.result()[0].data.meas.get_counts() == {'00000': 10}\n"
    )
    python = [sys.executable, "-W", "ignore", "-c"]
    options = ["--state", str(tmp_path / "state"), "--queue-seconds", "0", "--run-seconds", "0"]
    assert main([*options, "--fault", "maintenance", "--", *python, first]) == 7
    (tmp_path / "state" / "faults" / "maintenance").unlink()
    assert main([*options, "--", *python, second]) == 0


def test_the_commands_environment_leads_to_the_service(tmp_path: Path) -> None:
    program = (
        "import os, urllib.request\n"
        "root = os.environ['IAM_URL']\n"
        "assert os.environ['QISKIT_IBM_URL'].startswith(root)\n"
        "urllib.request.urlopen(root + '/rehearsal/counters').read()\n"
        "raise SystemExit(7)\n"
    )
    assert main(["--state", str(tmp_path), "--", sys.executable, "-c", program]) == 7


def test_a_command_that_is_not_there_and_a_fault_that_is_not_known_are_said(
    capfd: pytest.CaptureFixture[str],
) -> None:
    assert main(["--", "/no/such/command"]) == 127
    assert main(["--fault", "no-such", "--", "true"]) == 2
    assert main(["--device", "fake_nowhere", "--", "true"]) == 2
    errors = capfd.readouterr().err
    assert "/no/such/command: No such file" in errors
    assert "there is no fault 'no-such'" in errors
    assert "there is no device 'fake_nowhere'" in errors


@pytest.mark.slow
def test_the_service_and_its_simulator_end_with_whoever_started_them(tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "from hpc_rehearsal.ibm_quantum.command import main\n"
        "main(['--run-seconds', '0', '--queue-seconds', '0', '--state', sys.argv[1], '--',"
        " sys.executable, '-W', 'ignore', '-c', sys.argv[2]])\n"
    )
    command = (
        "import time\n"
        "from qiskit import QuantumCircuit\n"
        "from qiskit_ibm_runtime import QiskitRuntimeService, SamplerV2\n"
        "circuit = QuantumCircuit(5)\n"
        "circuit.measure_all()\n"
        "backend = QiskitRuntimeService().backend('fake_manila')\n"
        "SamplerV2(backend).run([circuit], shots=10).result()\n"
        "print('done', flush=True)\n"
        "time.sleep(3600)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path), command], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "done\n"
        children = descendants(parent.pid)
        parent.kill()
    services = [pid for pid, argv in children.items() if "hpc_rehearsal" in argv]
    try:
        assert len(services) == 2
        until(lambda: not any(alive(pid) for pid in services))
    finally:
        for pid in children:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def descendants(pid: int) -> dict[int, str]:
    """The processes below this one, with their command lines."""
    found: dict[int, str] = {}
    for folder in Path(f"/proc/{pid}/task").iterdir():
        with suppress(FileNotFoundError, ProcessLookupError):  # a thread or a child that has ended
            for child in map(int, (folder / "children").read_text().split()):
                argv = Path(f"/proc/{child}/cmdline").read_text().replace("\0", " ")
                found |= {child: argv} | descendants(child)
    return found
