"""KEDA's side of the external scaler: the calls that it makes, by a real client of gRPC."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

MISSING = "gRPC is not installed; make test installs what is missing"
plain_grpc = pytest.importorskip("grpc", reason=MISSING)
grpc = pytest.importorskip("grpc.aio", reason=MISSING)
messages = pytest.importorskip("swell.server.external_scaler_messages", reason=MISSING)


class Keda:
    """One connection. `metadata` is a trigger's, as each call passes it on."""

    def __init__(self, channel: Any) -> None:
        self.channel = channel

    def ref(self, metadata: dict[str, str]) -> Any:
        return messages.ScaledObjectRef(name="chat", namespace="engines", scalerMetadata=metadata)

    async def is_active(self, **metadata: str) -> bool:
        call = self._once("IsActive", messages.ScaledObjectRef, messages.IsActiveResponse)
        return bool((await call(self.ref(metadata), wait_for_ready=True)).result)

    async def spec(self, **metadata: str) -> list[tuple[str, int, float]]:
        call = self._once("GetMetricSpec", messages.ScaledObjectRef, messages.GetMetricSpecResponse)
        found = (await call(self.ref(metadata))).metricSpecs
        return [(each.metricName, each.targetSize, each.targetSizeFloat) for each in found]

    async def metrics(self, metric: str = "swell-replicas", **metadata: str) -> list[tuple[str, int, float]]:
        call = self._once("GetMetrics", messages.GetMetricsRequest, messages.GetMetricsResponse)
        asked = messages.GetMetricsRequest(scaledObjectRef=self.ref(metadata), metricName=metric)
        found = (await call(asked, wait_for_ready=True)).metricValues
        return [(each.metricName, each.metricValue, each.metricValueFloat) for each in found]

    def follow(self, **metadata: str) -> Any:
        """A stream of IsActiveResponse."""
        call = self.channel.unary_stream(
            f"/{messages.SERVICE}/StreamIsActive",
            request_serializer=messages.ScaledObjectRef.SerializeToString,
            response_deserializer=messages.IsActiveResponse.FromString,
        )
        return call(self.ref(metadata), wait_for_ready=True)

    def _once(self, name: str, request: Any, response: Any) -> Any:
        return self.channel.unary_unary(
            f"/{messages.SERVICE}/{name}",
            request_serializer=request.SerializeToString,
            response_deserializer=response.FromString,
        )


@asynccontextmanager
async def keda(port: int, credentials: Any = None, host: str = "127.0.0.1") -> AsyncIterator[Keda]:
    """Plaintext, unless there are credentials."""
    options = (("grpc.use_local_subchannel_pool", 1), ("grpc.max_reconnect_backoff_ms", 200))
    if credentials is None:
        channel = grpc.insecure_channel(f"{host}:{port}", options)
    else:
        channel = grpc.secure_channel(f"{host}:{port}", credentials, options)
    async with channel:
        yield Keda(channel)
