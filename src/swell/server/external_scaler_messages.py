"""The messages of KEDA's external scaler, `externalscaler.ExternalScaler`, as its documentation has them.

They are described here rather than generated, so that no compiler is needed and no generated file can be out of date.
In the words of their language:

    message ScaledObjectRef       { string name = 1; string namespace = 2; map<string, string> scalerMetadata = 3; }
    message IsActiveResponse      { bool result = 1; }
    message GetMetricSpecResponse { repeated MetricSpec metricSpecs = 1; }
    message MetricSpec            { string metricName = 1; int64 targetSize = 2; double targetSizeFloat = 3; }
    message GetMetricsRequest     { ScaledObjectRef scaledObjectRef = 1; string metricName = 2; }
    message GetMetricsResponse    { repeated MetricValue metricValues = 1; }
    message MetricValue           { string metricName = 1; int64 metricValue = 2; double metricValueFloat = 3; }
"""

from typing import Any

from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

from swell.server.external_scaler import METRIC

PACKAGE = "externalscaler"
SERVICE = f"{PACKAGE}.ExternalScaler"

_KINDS = {
    "string": FieldDescriptorProto.TYPE_STRING,
    "int64": FieldDescriptorProto.TYPE_INT64,
    "double": FieldDescriptorProto.TYPE_DOUBLE,
    "bool": FieldDescriptorProto.TYPE_BOOL,
}
_MESSAGES: dict[str, tuple[str, ...]] = {  # fields are numbered from 1
    "ScaledObjectRef": ("string name", "string namespace", "map scalerMetadata"),
    "IsActiveResponse": ("bool result",),
    "GetMetricSpecResponse": ("repeated MetricSpec metricSpecs",),
    "MetricSpec": ("string metricName", "int64 targetSize", "double targetSizeFloat"),
    "GetMetricsRequest": ("ScaledObjectRef scaledObjectRef", "string metricName"),
    "GetMetricsResponse": ("repeated MetricValue metricValues",),
    "MetricValue": ("string metricName", "int64 metricValue", "double metricValueFloat"),
}


def _file() -> FileDescriptorProto:
    file = FileDescriptorProto(name="swell/externalscaler.proto", package=PACKAGE, syntax="proto3")
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for number, field in enumerate(fields, 1):
            _add(message, number, *field.split()[-2:], is_repeated=field.startswith(("repeated ", "map ")))
    return file


def _add(message: DescriptorProto, number: int, kind: str, name: str, *, is_repeated: bool) -> None:
    field = message.field.add(name=name, number=number)
    field.label = FieldDescriptorProto.LABEL_REPEATED if is_repeated else FieldDescriptorProto.LABEL_OPTIONAL
    if kind in _KINDS:
        field.type = _KINDS[kind]
        return
    field.type = FieldDescriptorProto.TYPE_MESSAGE
    if kind == "map":  # of strings: on the wire, pairs
        kind = f"{message.name}.{name[0].upper()}{name[1:]}Entry"
        pair = message.nested_type.add(name=kind.partition(".")[2])
        pair.options.map_entry = True
        for i, part in enumerate(("key", "value"), 1):
            _add(pair, i, "string", part, is_repeated=False)
    field.type_name = f".{PACKAGE}.{kind}"


_pool = DescriptorPool()  # of its own: somebody else's file of the same messages may be in the common one
_pool.Add(_file())


def _message(name: str) -> Any:
    return GetMessageClass(_pool.FindMessageTypeByName(f"{PACKAGE}.{name}"))


ScaledObjectRef = _message("ScaledObjectRef")
IsActiveResponse = _message("IsActiveResponse")
GetMetricSpecResponse = _message("GetMetricSpecResponse")
GetMetricsRequest = _message("GetMetricsRequest")
GetMetricsResponse = _message("GetMetricsResponse")


def targets() -> Any:
    """The answer to GetMetricSpec: of the one metric, 1 for every replica. So who divides comes to as many as it is."""
    answer = GetMetricSpecResponse()
    answer.metricSpecs.add(metricName=METRIC, targetSize=1, targetSizeFloat=1.0)  # the whole number is for old ones
    return answer


def metrics(replicas: int) -> Any:
    """The answer to GetMetrics where there shall be so many replicas."""
    answer = GetMetricsResponse()
    answer.metricValues.add(metricName=METRIC, metricValue=replicas, metricValueFloat=float(replicas))
    return answer
