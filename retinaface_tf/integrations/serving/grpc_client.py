"""A client over gRPC, the faster wire: the arrays travel as they are."""

from typing import Any, Self

from retinaface_tf.common.imports import install_hint
from retinaface_tf.integrations.serving import messages
from retinaface_tf.integrations.serving.client import Client, ServingError

# Answers have as many rows as `max_detections`; gRPC's own limit is 4 MB.
CHANNEL_OPTIONS = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1))


class GrpcClient(Client):
    """A detector behind TensorFlow Serving's gRPC port, 8500 as a rule.

    Usable in a `with` statement, which closes the connection.

    Args:
        address: str, "host:port".
        credentials: `grpc.ChannelCredentials`, or `None` for an open connection.
        others: see `Client`.

    Raises:
        ImportError: naming the extra to install.
    """

    def __init__(self, address: str, *args: Any, credentials: Any = None, **kwargs: Any) -> None:
        super().__init__(address, *args, **kwargs)
        try:
            import grpc

            answer = messages.message("PredictResponse")
        except ImportError as error:
            raise ImportError(f"the gRPC client needs grpcio: {install_hint('serving')} ({error})") from None
        if credentials is None:
            self._channel = grpc.insecure_channel(address, options=CHANNEL_OPTIONS)
        else:
            self._channel = grpc.secure_channel(address, credentials, options=CHANNEL_OPTIONS)
        self._predict = self._channel.unary_unary(
            messages.METHOD,
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

        request = messages.message("PredictRequest")()
        request.model_spec.name = self.model
        request.model_spec.signature_name = signature
        if self.version is not None:
            request.model_spec.version.value = self.version
        dtypes = {"image_bytes": messages.STRING, "max_detections": messages.INT32}
        for name, values in inputs.items():
            entry = request.inputs.add(key=name)
            messages.to_tensor(values, dtypes.get(name, messages.FLOAT), entry.value)
        try:
            response = self._predict(request, timeout=seconds)
        except grpc.RpcError as error:
            code, details = error.code(), " ".join((error.details() or "").split())
            if code == grpc.StatusCode.DEADLINE_EXCEEDED:
                raise self._too_late() from None
            if code == grpc.StatusCode.UNAVAILABLE:
                raise self._unreachable(details) from None
            raise ServingError(f"{self.address}: {code.name}: {details}") from None
        try:
            return {entry.key: messages.to_array(entry.value) for entry in response.outputs}
        except ValueError as error:
            raise ServingError(f"{self.address}: an answer that is no prediction ({error})") from None
