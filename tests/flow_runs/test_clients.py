"""Clients for single requests trust whom Prefect's own clients trust."""

from __future__ import annotations

import ipaddress
import ssl
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from prefect.settings import (
    PREFECT_API_SSL_CERT_FILE,
    PREFECT_API_TLS_INSECURE_SKIP_VERIFY,
    PREFECT_API_URL,
    temporary_settings,
)

from hpc_prefect.flow_runs.clients import short_client, short_sync_client


class Greeting(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, format: str, *words: object) -> None: ...


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """Of a server at 127.0.0.1 that nobody has vouched for, with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name, now = x509.Name([]), datetime.now(UTC)
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=True)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path / "server.pem"
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + signed.public_bytes(serialization.Encoding.PEM)
    )
    return path


@pytest.fixture
def api(certificate: Path) -> Iterator[str]:
    """The address of a Prefect, as far as a greeting goes, that speaks TLS."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Greeting)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"https://127.0.0.1:{server.server_port}/api"
    server.shutdown()
    thread.join()
    server.server_close()


async def greet() -> None:
    """Both kinds of client, twice: the second one has its certificates from the first."""
    for _ in range(2):
        async with short_client() as client:
            assert (await client.hello()).status_code == 200
        with short_sync_client() as sync_client:
            assert sync_client.hello().status_code == 200


async def test_a_server_is_trusted_by_the_certificates_that_prefect_is_told(
    api: str, certificate: Path
) -> None:
    with temporary_settings({PREFECT_API_URL: api, PREFECT_API_SSL_CERT_FILE: str(certificate)}):
        await greet()


async def test_a_server_that_nobody_vouches_for_is_not_talked_to(
    api: str, certificate: Path
) -> None:
    with temporary_settings({PREFECT_API_URL: api, PREFECT_API_SSL_CERT_FILE: str(certificate)}):
        await greet()  # another setting's certificates do not count later
    with temporary_settings({PREFECT_API_URL: api}), pytest.raises(httpx.ConnectError):
        await greet()


async def test_a_user_who_wants_no_certificates_has_none(api: str) -> None:
    settings = {PREFECT_API_URL: api, PREFECT_API_TLS_INSECURE_SKIP_VERIFY: True}
    with temporary_settings(settings):
        await greet()
