"""Servers that answer the clients with garbage: over HTTP byte by byte, over gRPC as messages."""

from __future__ import annotations

import copy
import random
import socketserver
import struct
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from .harness import Row, as_json, damaged, mutated

PNG = b"\x89PNG\r\n\x1a\n"
GOOD = {
    "boxes": [[[1.0, 2.0, 3.0, 4.0], [0.0] * 4]],
    "scores": [[0.9, 0.0]],
    "landmarks": [[[[1.0, 2.0]] * 5] * 2],
    "count": [1],
    "size": [[40, 60]],
    "error": [False],
}
HEADS = (
    b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n",
    b"HTTP/1.1 200 OK\r\n\r\n",
    b"HTTP/1.1 500 Oops\r\nContent-Length: %d\r\n\r\n",
    b"HTTP/1.1 404 \xff\xfe\r\nContent-Length: %d\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFF\r\n",
    b"HTTP/1.1 302 Found\r\nLocation: file:///etc/passwd\r\n\r\n",
    b"HTTP/1.1 302 Found\r\nLocation: http://[::bad/\r\n\r\n",
    b"HTTP/1.1 302 Found\r\nLocation: /v1/again\r\n\r\n",
    b"HTTP/1.1 999 x\r\n\r\n",
    b"HTTP/9.9 200 OK\r\n\r\n",
    b"200 OK\r\n\r\n",
    b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200 + b"\r\n",
    b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000 + b"\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\n" * 50,
    b"",
)


def check_faces(faces: Any) -> None:
    assert faces.width > 0 and faces.height > 0
    assert np.isfinite(faces.boxes).all() and ((faces.scores >= 0) & (faces.scores <= 1)).all()
    assert len(faces.boxes) == len(faces.scores) == len(faces.landmarks)


def answers(chance: random.Random, count: int) -> Iterator[Row]:
    yield _rest(chance, count)
    yield _grpc(chance, count)


def _rest(chance: random.Random, count: int) -> Row:
    from retinaface_tf.integrations.serving.client import RestClient

    row = Row("REST client against garbage")
    current = [b""]

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.settimeout(2)
            try:
                self.request.recv(65536)
                self.request.sendall(current[0])
            except OSError:
                pass

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        client = RestClient(f"http://127.0.0.1:{server.server_address[1]}", timeout=5)
        for number in range(count):
            body = as_json(mutated({"outputs": GOOD}, chance), chance)
            head = HEADS[0] if chance.random() < 0.7 else chance.choice(HEADS)
            head = head % len(body) if b"%d" in head else head
            current[0] = head + body if chance.random() < 0.95 else damaged(head + body, chance)
            row.attempt(f"{number} {current[0][:160]!r}", lambda: client.detect(PNG), check_faces)
        server.shutdown()
    return row


def _grpc(chance: random.Random, count: int) -> Row:
    import grpc

    from retinaface_tf.integrations.serving import grpc_client as messages
    from retinaface_tf.integrations.serving.grpc_client import GrpcClient

    row = Row("gRPC client against garbage")
    current = [b""]

    class Handler(grpc.GenericRpcHandler):  # type: ignore[misc]
        def service(self, details: Any) -> Any:
            return grpc.unary_unary_rpc_method_handler(lambda request, context: current[0])

    server = grpc.server(ThreadPoolExecutor(2), handlers=(Handler(),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        with GrpcClient(f"127.0.0.1:{port}", timeout=5) as client:
            for number in range(count):
                current[0] = _message(messages, chance)
                row.attempt(f"{number} {current[0][:160]!r}", lambda: client.detect(PNG), check_faces)
    finally:
        server.stop(None)
    return row


DTYPES = {"boxes": 1, "scores": 1, "landmarks": 1, "count": 3, "size": 3, "error": 10}
SIZES = (0, 1, 2, 3, 5, -1, 2**31, 2**62, -(2**63), 10_000_000, 10_000_001)


def _message(messages: Any, chance: random.Random) -> bytes:
    """A good answer in which one to three tensors are changed, doubled or left out."""
    response = messages.message("PredictResponse")()
    for name, value in copy.deepcopy(GOOD).items():
        for _ in range(chance.choice((1, 1, 1, 1, 1, 0, 2))):
            entry = response.outputs.add(
                key=name if chance.random() < 0.95 else chance.choice(("", "vertices", "x" * 999))
            )
            array = np.asarray(value, messages.DTYPES[DTYPES[name]])
            tensor = entry.value
            tensor.dtype = DTYPES[name] if chance.random() < 0.9 else chance.choice((0, 1, 2, 3, 7, 9, 10, 999, -1))
            for side in array.shape:
                tensor.tensor_shape.dim.add().size = side if chance.random() < 0.95 else chance.choice(SIZES)
            if chance.random() < 0.05:
                for _ in range(chance.choice((1, 70))):
                    tensor.tensor_shape.dim.add().size = chance.choice((0, 1, 2, 2**40))
            if chance.random() < 0.7:
                content = array.tobytes()
                tensor.tensor_content = content if chance.random() < 0.9 else damaged(content, chance)
            else:
                values = array.ravel().tolist() if chance.random() < 0.8 else [1]
                getattr(tensor, messages.VALUES[DTYPES[name]]).extend(values)
            if name == "scores" and chance.random() < 0.1:
                tensor.tensor_content = struct.pack("<ff", chance.choice((float("nan"), 7.0, -1.0)), 0)
    if chance.random() < 0.02:  # ten bytes that stand for 80 MB, a thousand times
        for number in range(1000):
            tensor = response.outputs.add(key=f"more {number}").value
            tensor.dtype = 9
            tensor.tensor_shape.dim.add().size = 10_000_000
    content = response.SerializeToString()
    return content if chance.random() < 0.85 else damaged(content, chance)
