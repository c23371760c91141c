"""Other sides for alert sinks, and the harnesses of the suite."""

import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from http_receiver import HttpReceiver
from sink_harness import CommandHarness, EmailHarness, FakeHarness, HttpHarness, tls_pair
from smtp_receiver import SmtpReceiver


@pytest.fixture
def fake_harness() -> FakeHarness:
    return FakeHarness()


@pytest.fixture
async def receiver() -> AsyncIterator[HttpReceiver]:
    """An HTTP server on loopback."""
    async with HttpReceiver() as running:
        yield running


@pytest.fixture
async def webhook_harness(receiver: HttpReceiver) -> AsyncIterator[HttpHarness]:
    harness = HttpHarness(receiver, "webhook")
    yield harness
    await harness.sink.close()


@pytest.fixture
async def slack_harness(receiver: HttpReceiver) -> AsyncIterator[HttpHarness]:
    harness = HttpHarness(receiver, "slack")
    yield harness
    await harness.sink.close()


@pytest.fixture(scope="session")
def loopback_tls() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Server's and client's contexts for 127.0.0.1."""
    return tls_pair("127.0.0.1")


@pytest.fixture
async def email_harness(loopback_tls: tuple[ssl.SSLContext, ssl.SSLContext]) -> AsyncIterator[EmailHarness]:
    server, client = loopback_tls
    async with SmtpReceiver(starttls=server) as running:
        yield EmailHarness(running, client)


@pytest.fixture
def command_harness(tmp_path: Path) -> CommandHarness:
    return CommandHarness(tmp_path)
