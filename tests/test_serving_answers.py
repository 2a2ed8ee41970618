"""Garbage from a server ends in `ServingError`; the gRPC client's messages are those of the protocol."""

import copy
import io
import json
import subprocess
import sys
from unittest.mock import patch

import numpy as np
import pytest
from hostile.answers import GOOD, PNG

from retinaface_tf.integrations.serving import grpc_client
from retinaface_tf.integrations.serving.client import RestClient, ServingError


def ask(answer):
    """The faces that the REST client makes of an answer: JSON-ready, or bytes."""
    content = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
    with patch("urllib.request.OpenerDirector.open", lambda *_, **__: io.BytesIO(content)):
        return RestClient("http://nowhere:1").detect(PNG)


def changed(**changes):
    return {"outputs": {**copy.deepcopy(GOOD), **changes}}


@pytest.mark.parametrize(
    "address", ["", "foo", "localhost:8501", "file:///etc", "http://a b", "http://a\n", None, 8501]
)
def test_an_address_that_is_none_is_refused_at_once(address):
    with pytest.raises(ValueError, match="`address` must be such as 'http://localhost:8501'"):
        RestClient(address)


def test_an_answer_that_does_not_end_is_refused(monkeypatch):
    monkeypatch.setattr("retinaface_tf.integrations.serving.client.MAX_ANSWER", 20)
    with pytest.raises(ServingError, match="not a prediction"):
        ask({"outputs": GOOD})


def test_a_good_answer():
    found = ask({"outputs": GOOD})
    assert (found.boxes.tolist(), found.width, found.height) == ([[1, 2, 3, 4]], 60, 40)
    none = ask(changed(boxes=[[]], scores=[[]], landmarks=[[]], count=[0]))
    assert (none.boxes.shape, none.landmarks.shape) == ((0, 4), (0, 5, 2))


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"null",
        b"[]",
        b"[" * 100_000,
        b'{"outputs": NaN}',
        b"\xff\xfe\x00",
        {"outputs": None},
        {"outputs": [1, 2]},
        {"outputs": {}},
        changed(boxes=None),
        changed(boxes={"a": 1}),
        changed(boxes=[[["x"] * 4] * 2]),
        changed(boxes=[[[1.0, 2.0, 3.0]] * 2]),
        changed(boxes=[]),
        changed(boxes=[[[1.0] * 4, [1.0]]]),
        changed(boxes=[[[1.0] * 4]]),
        changed(scores=[0.9]),
        changed(scores=[[0.9, -0.5]]),
        changed(boxes=[[[3.0, 2.0, 1.0, 4.0], [0.0] * 4]]),
        changed(boxes=[[[1.0, 4.0, 3.0, 2.0], [0.0] * 4]]),
        b'{"outputs": {}, "outputs": {}}',
        changed(scores=[[7.0, 0.0]]),
        b'{"outputs": {"scores": [[NaN, 0]]}}',
        changed(landmarks=[[[[1.0, 2.0]] * 4] * 2]),
        changed(count=[3]),
        changed(count=[-1]),
        changed(count=[0.5]),
        changed(count=[[1]]),
        changed(count=1),
        changed(size=[[-40, 60]]),
        changed(size=[[0, 0]]),
        changed(size=[[10**12, 60]]),
        changed(size=[40]),
        changed(error=["no"]),
        changed(error=[]),
        changed(vertices=[[[1.0, 2.0, 3.0]] * 2]),
    ],
)
def test_garbage_is_a_serving_error_that_names_the_photo(answer):
    with pytest.raises(ServingError, match=r"^bytes: http://nowhere:1: ") as caught:
        ask(answer)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


@pytest.mark.parametrize("timeout", [0, -1, float("inf"), float("nan"), "30"])
def test_timeouts_are_positive_and_finite(timeout):
    with pytest.raises(ValueError, match="`timeout` must be positive and finite"):
        RestClient("http://nowhere:1", timeout=timeout)


def test_the_messages_are_those_of_tensorflow_serving():
    predict_pb2 = pytest.importorskip("tensorflow_serving.apis.predict_pb2", reason="needs tensorflow-serving-api")
    tf = pytest.importorskip("tensorflow")
    request = grpc_client.message("PredictRequest")()
    request.model_spec.name, request.model_spec.version.value = "faces", 7
    grpc_client.to_tensor([b"one", b"two"], grpc_client.STRING, request.inputs.add(key="image_bytes").value)
    grpc_client.to_tensor([0.25, 0.5], grpc_client.FLOAT, request.inputs.add(key="score_threshold").value)
    theirs = predict_pb2.PredictRequest.FromString(request.SerializeToString())
    assert (theirs.model_spec.name, theirs.model_spec.version.value) == ("faces", 7)
    assert tf.make_ndarray(theirs.inputs["image_bytes"]).tolist() == [b"one", b"two"]
    assert tf.make_ndarray(theirs.inputs["score_threshold"]).tolist() == [0.25, 0.5]

    answer = predict_pb2.PredictResponse()
    arrays = {
        "boxes": np.arange(8, dtype="f4").reshape(1, 2, 4),
        "count": np.array([3], "i4"),
        "error": np.array([True]),
    }
    for name, array in arrays.items():
        answer.outputs[name].CopyFrom(tf.make_tensor_proto(array))
    ours = grpc_client.message("PredictResponse").FromString(answer.SerializeToString())
    for entry in ours.outputs:
        np.testing.assert_array_equal(grpc_client.to_array(entry.value), arrays[entry.key])


@pytest.mark.parametrize(("shape", "content"), [((-1,), b""), ((3,), b"12345678"), ((10**9, 10**9), b"")])
def test_crafted_tensors_are_refused(shape, content):
    pytest.importorskip("google.protobuf")
    tensor = grpc_client.message("TensorProto")(dtype=grpc_client.FLOAT, tensor_content=content)
    for side in shape:
        tensor.tensor_shape.dim.add().size = side
    with pytest.raises(ValueError, match="tensor"):
        grpc_client.to_array(tensor)


@pytest.mark.slow
def test_the_grpc_client_needs_no_tensorflow():
    pytest.importorskip("grpc")
    code = """
import sys
from retinaface_tf.integrations.serving.grpc_client import GrpcClient
client = GrpcClient("127.0.0.1:1", timeout=2)
try:
    client.detect(b"\\x89PNG\\r\\n\\x1a\\n")
except (ConnectionError, TimeoutError) as error:
    print(error)
print(sorted({"tensorflow", "keras"} & set(sys.modules)))
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.splitlines()[-1] == "[]", result.stderr


def test_only_the_outputs_that_are_used_are_unpacked(monkeypatch):
    """Some bytes stand for a tensor of a megabyte, and an answer may hold thousands of them."""
    pytest.importorskip("grpc")
    answer = grpc_client.message("PredictResponse")()
    for number in range(1000):
        tensor = answer.outputs.add(key=f"more {number}").value
        tensor.dtype = grpc_client.INT64
        tensor.tensor_shape.dim.add().size = 1_000_000
    client = grpc_client.GrpcClient("nowhere:1")
    client._predict = lambda *_, **__: answer
    monkeypatch.setattr(grpc_client, "to_array", lambda tensor: pytest.fail("unpacked"))
    with pytest.raises(ServingError, match="no output 'boxes'"):
        client.detect(PNG)
    client.close()


def test_a_servers_words_do_not_steer_the_terminal():
    with pytest.raises(ConnectionError, match=r"no server to be reached \(a\\x1b\[31m b\)") as caught:
        raise RestClient("http://nowhere:1")._unreachable("a\x1b[31m\r\nb")
    assert str(caught.value).isprintable()
