"""The provider of what somebody else runs."""

from pathlib import Path

from swell.adapters.providers.external import ExternalProvider
from swell.ports.provider import ChildSpec, Presence


async def test_an_endpoint_is_used_until_it_is_stopped() -> None:
    provider = ExternalProvider()
    handle = await provider.start(ChildSpec("theirs-0", (), Path("unused.log")))
    assert provider.status(handle).presence is Presence.RUNNING
    assert await provider.log_tail(handle.log_path) == ""
    await provider.stop(handle, grace_seconds=5.0)
    assert provider.status(handle).presence is Presence.GONE
    assert await ExternalProvider().adopt("theirs-0", handle.log_path, handle) is None
