"""A Pod as gateways see it: a real sidecar process in front of an engine, with certificates that a test chooses."""

import asyncio
import signal
import ssl
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from swell.security.certificates import issue_certificate, make_authority
from swell.security.replica_tls import CA_FILE, CERTIFICATE_FILE, KEY_FILE, client_context, gateway_name, replica_name
from swell.state.snapshot import ClientIdentity, ReplicaEntry

INSTALLATION = "inst-1"
CLIENT = gateway_name(INSTALLATION)
CHAT_PODS = replica_name("chat-0123456789", "models")
OTHER_PODS = replica_name("other-0123456789", "models")
AUTHORITY, FOREIGN = make_authority(time.time()), make_authority(time.time())
DAY, EXPIRED = 24 * 3600.0, -60.0  # seconds that a certificate is good for
WAIT_SECONDS = 10.0


def identity(
    authority: bytes = AUTHORITY, *, name: str = CLIENT, lasts: float = DAY, is_client: bool = True, trusts: bytes = b""
) -> ClientIdentity:
    """What a gateway shows. `trusts` is another authority than its own."""
    made = issue_certificate(authority, name, time.time(), lasts_seconds=lasts, is_client=is_client)
    ca = issue_certificate(trusts, name, time.time(), lasts_seconds=DAY).ca if trusts else made.ca
    return ClientIdentity("own", ca, made.certificate, made.private_key)


@dataclass
class Pod:
    """`async with` it; `engine_port` is where its engine listens."""

    folder: Path
    engine_port: int
    port: int = 0
    health_port: int = 0
    said: str = ""

    async def __aenter__(self) -> Self:
        self.folder.mkdir(exist_ok=True)
        if not (self.folder / CA_FILE).exists():
            self.mount()
        words = [f"--folder={self.folder}", f"--client={CLIENT}", f"--engine-port={self.engine_port}", "--port=0"]
        words += ["--host=127.0.0.1", "--health-port=0", "--health-path=/health"]
        self.process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "swell.server.replica_sidecar", *words, stderr=asyncio.subprocess.PIPE
        )
        self.port = int((await self.line("gateways are taken")).rsplit(b" ", 1)[1])
        self.health_port = int((await self.line("health is told")).rsplit(b" ", 1)[1])
        return self

    async def __aexit__(self, *_: object) -> None:
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(WAIT_SECONDS):
            await self.process.wait()

    def mount(self, authority: bytes = AUTHORITY, *, name: str = CHAT_PODS, lasts: float = DAY) -> None:
        """The Secret as it is from now on."""
        made = issue_certificate(authority, name, time.time(), lasts_seconds=lasts)
        content = {CA_FILE: made.ca, CERTIFICATE_FILE: made.certificate, KEY_FILE: made.private_key}
        for file, data in content.items():
            (self.folder / file).write_bytes(data)

    async def renew(self) -> None:
        """Another certificate of the same kind, and the sidecar told of it."""
        self.mount()
        self.process.send_signal(signal.SIGHUP)
        await self.line("another certificate is shown")

    async def line(self, words: str) -> bytes:
        """The next line that the sidecar says with these words in it."""
        assert self.process.stderr is not None
        async with asyncio.timeout(WAIT_SECONDS):
            while line := await self.process.stderr.readline():
                self.said += line.decode()
                if words.encode() in line:
                    return line.strip()
        raise AssertionError(f"the sidecar ended and said: {self.said}")

    def entry(self, name: str = "m-0", *, server_name: str = CHAT_PODS) -> ReplicaEntry:
        """The Pod as gateways are told of it."""
        return ReplicaEntry(name, "127.0.0.1", self.port, tls=True, identity="own", server_name=server_name)

    async def connect(
        self, shown: ClientIdentity | None, *, name: str = CHAT_PODS
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """As somebody who shows that certificate, or none."""
        context = client_context(shown or identity()) if shown else bare_context()
        return await asyncio.open_connection("127.0.0.1", self.port, ssl=context, server_hostname=name)

    async def is_refused(self, shown: ClientIdentity | None) -> bool:
        """Whether a request with that certificate comes to nothing."""
        try:
            reader, writer = await self.connect(shown)
            writer.write(b"GET /health HTTP/1.1\r\nhost: pod\r\n\r\n")
            async with asyncio.timeout(WAIT_SECONDS):
                answer = await reader.read(1)
            writer.transport.abort()
        except OSError:  # ssl.SSLError is one
            return True
        return answer == b""


def bare_context() -> ssl.SSLContext:
    """A client that trusts the right authority and shows nothing."""
    context = ssl.create_default_context(cadata=identity().ca.decode())
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    return context
