"""A TensorFlow Serving client over gRPC, with the messages of its Predict call. No TensorFlow."""

from __future__ import annotations

from functools import cache
from typing import Any, Self

import numpy as np

from retinaface_tf.common.imports import install_hint
from retinaface_tf.common.text import one_line
from retinaface_tf.integrations.serving.client import OUTPUTS, Client, ServingError

# Answers have as many rows as `max_detections`; gRPC's own limit is 4 MB.
CHANNEL_OPTIONS = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1))


class GrpcClient(Client):
    """A detector that runs in TensorFlow Serving, over its gRPC port (usually 8500).

    Use it in a `with` statement, which closes the connection.

    Args:
        address: str, "host:port".
        credentials: `grpc.ChannelCredentials`, or `None` for an open connection.
        others: see `Client`.

    Raises:
        ImportError: if grpcio is missing; the message names the extra to install.
    """

    def __init__(self, address: str, *args: Any, credentials: Any = None, **kwargs: Any) -> None:
        super().__init__(address, *args, **kwargs)
        try:
            import grpc

            answer = message("PredictResponse")
        except ImportError as error:
            raise ImportError(f"the gRPC client needs grpcio: {install_hint('serving')} ({error})") from None
        if credentials is None:
            self._channel = grpc.insecure_channel(address, options=CHANNEL_OPTIONS)
        else:
            self._channel = grpc.secure_channel(address, credentials, options=CHANNEL_OPTIONS)
        self._predict = self._channel.unary_unary(
            METHOD,
            request_serializer=lambda request: request.SerializeToString(),
            response_deserializer=answer.FromString,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """End the connection."""
        self._channel.close()

    def _send(self, signature, inputs, seconds):
        import grpc

        request = message("PredictRequest")()
        request.model_spec.name = self.model
        request.model_spec.signature_name = signature
        if self.version is not None:
            request.model_spec.version.value = self.version
        dtypes = {"image_bytes": STRING, "max_detections": INT32}
        for name, values in inputs.items():
            entry = request.inputs.add(key=name)
            to_tensor(values, dtypes.get(name, FLOAT), entry.value)
        try:
            response = self._predict(request, timeout=seconds)
        except grpc.RpcError as error:
            code, details = error.code(), one_line(error.details() or "")
            if code == grpc.StatusCode.DEADLINE_EXCEEDED:
                raise self._too_late() from None
            if code == grpc.StatusCode.UNAVAILABLE:
                raise self._unreachable(details) from None
            raise ServingError(f"{self.address}: {code.name}: {details}") from None
        try:
            outputs = {entry.key: entry.value for entry in response.outputs if entry.key in (*OUTPUTS, "vertices")}
            return {name: to_array(tensor) for name, tensor in outputs.items()}
        except ValueError as error:
            raise ServingError(f"{self.address}: the server's response is not a prediction ({error})") from None


METHOD = "/tensorflow.serving.PredictionService/Predict"
FLOAT, DOUBLE, INT32, STRING, INT64, BOOL = 1, 2, 3, 7, 9, 10  # of tensorflow.DataType
DTYPES = {FLOAT: "<f4", DOUBLE: "<f8", INT32: "<i4", INT64: "<i8", BOOL: "?"}
VALUES = {FLOAT: "float_val", DOUBLE: "double_val", INT32: "int_val", INT64: "int64_val", BOOL: "bool_val"}
# Message -> its fields: name, number, type, whether it is repeated.
MESSAGES: dict[str, tuple[tuple[str, int, str, bool], ...]] = {
    "tensorflow.TensorShapeProto.Dim": (("size", 1, "int64", False),),
    "tensorflow.TensorShapeProto": (("dim", 2, "tensorflow.TensorShapeProto.Dim", True),),
    "tensorflow.TensorProto": (
        ("dtype", 1, "int32", False),
        ("tensor_shape", 2, "tensorflow.TensorShapeProto", False),
        ("tensor_content", 4, "bytes", False),
        ("float_val", 5, "float", True),
        ("double_val", 6, "double", True),
        ("int_val", 7, "int32", True),
        ("string_val", 8, "bytes", True),
        ("int64_val", 10, "int64", True),
        ("bool_val", 11, "bool", True),
    ),
    "tensorflow.Version": (("value", 1, "int64", False),),
    "tensorflow.ModelSpec": (
        ("name", 1, "string", False),
        ("version", 2, "tensorflow.Version", False),
        ("signature_name", 3, "string", False),
    ),
    "tensorflow.Entry": (("key", 1, "string", False), ("value", 2, "tensorflow.TensorProto", False)),
    "tensorflow.PredictRequest": (
        ("model_spec", 1, "tensorflow.ModelSpec", False),
        ("inputs", 2, "tensorflow.Entry", True),  # a map has the form of a list of entries
    ),
    "tensorflow.PredictResponse": (("outputs", 1, "tensorflow.Entry", True),),
}


@cache
def message(name: str) -> Any:
    """The class of a message in `MESSAGES`, such as "PredictRequest"."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    kinds = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="retinaface_tf/predict.proto", package="tensorflow", syntax="proto3")
    made: dict[str, Any] = {}
    for full_name, fields in MESSAGES.items():
        *_, parent, own = full_name.split(".")
        made[full_name] = file.message_type.add() if parent == "tensorflow" else descriptor_pb2.DescriptorProto()
        made[full_name].name = own
        for field, number, kind, repeated in fields:
            label = kinds.LABEL_REPEATED if repeated else kinds.LABEL_OPTIONAL
            added = made[full_name].field.add(name=field, number=number, label=label)
            if kind in MESSAGES:
                added.type, added.type_name = kinds.TYPE_MESSAGE, f".{kind}"
            else:
                added.type = getattr(kinds, f"TYPE_{kind.upper()}")
    made["tensorflow.TensorShapeProto"].nested_type.add().CopyFrom(made["tensorflow.TensorShapeProto.Dim"])
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file) if hasattr(pool, "Add") else pool.AddSerializedFile(file.SerializeToString())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"tensorflow.{name}"))


def to_tensor(values: Any, dtype: int, tensor: Any) -> None:
    """Write a list of bytes, or of numbers of a type of `DTYPES`, into a TensorProto."""
    tensor.dtype = dtype
    if dtype == STRING:
        tensor.string_val.extend(values)
    else:
        tensor.tensor_content = np.asarray(values, DTYPES[dtype]).tobytes()
    tensor.tensor_shape.dim.add().size = len(values)


def to_array(tensor: Any) -> np.ndarray:
    """The array of a TensorProto of numbers.

    Raises:
        ValueError: for another type, or content that does not fill the shape.
    """
    shape = tuple(dim.size for dim in tensor.tensor_shape.dim)
    if tensor.dtype not in DTYPES or any(side < 0 for side in shape):
        raise ValueError(f"a tensor of type {tensor.dtype} and shape {list(shape)[:9]}")
    count = 1
    for side in shape:
        count *= side
    dtype = np.dtype(DTYPES[tensor.dtype])
    if tensor.tensor_content:
        if len(tensor.tensor_content) != count * dtype.itemsize:
            raise ValueError(f"{len(tensor.tensor_content)} bytes for a tensor of shape {list(shape)[:9]}")
        return np.frombuffer(tensor.tensor_content, dtype).reshape(shape)
    values = np.array(getattr(tensor, VALUES[tensor.dtype]), dtype)
    if len(values) == count:
        return values.reshape(shape)
    if len(values) > count or count > MAX_FILLED:  # a value that stands for many could stand for all memory
        raise ValueError(f"{len(values)} values for a tensor of shape {list(shape)[:9]}")
    filled = np.full(count, values[-1] if len(values) else 0, dtype)  # the last value stands for those that follow
    filled[: len(values)] = values
    return filled.reshape(shape)


MAX_FILLED = 1_000_000
