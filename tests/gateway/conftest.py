"""Gateways for tests. Each is checked when its test ends: nothing may be held that no request holds."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import uvloop
from gateway_under_test import Gateway, StartGateway


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture
async def start_gateway(tmp_path: Path) -> AsyncIterator[StartGateway]:
    """A factory of gateways that end with the test."""
    async with AsyncExitStack() as stack:

        async def start(**options: Any) -> Gateway:
            return await stack.enter_async_context(Gateway(tmp_path / f"gateway-{id(stack):x}", **options))

        yield start


@pytest.fixture
async def gateway(start_gateway: StartGateway) -> Gateway:
    """One replica, no limits."""
    return await start_gateway()
