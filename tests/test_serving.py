"""Both clients against small servers that run the real SavedModel; TensorFlow Serving is no part of the tests."""

import io
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from retinaface_tf.image.loading import ImageError
from retinaface_tf.integrations.serving.client import RestClient, ServingError
from retinaface_tf.integrations.serving.grpc_client import GrpcClient

pytestmark = pytest.mark.slow  # starts servers

ROOT = Path(__file__).resolve().parents[1]
pytest.importorskip("tensorflow_serving", reason="needs the extra `serving`")


@pytest.fixture(scope="module")
def served(saved_model_detector):
    from serving_servers import Served

    return Served(saved_model_detector.runtime.signatures)


@pytest.fixture(scope="module")
def addresses(served):
    from serving_servers import grpc_server, rest_server

    with grpc_server(served) as grpc_address, rest_server(served) as rest_address:
        yield {GrpcClient: grpc_address, RestClient: rest_address}


@pytest.fixture(params=[GrpcClient, RestClient], ids=["grpc", "rest"])
def make(request, addresses, served):
    """A function of a client's keywords that makes one."""
    served.delay = 0.0
    served.requests.clear()
    return lambda **options: request.param(addresses[request.param], **options)


def same(one, other, tolerance=1e-3):
    assert (one.width, one.height, len(one)) == (other.width, other.height, len(other))
    for name in ("boxes", "scores", "landmarks"):
        np.testing.assert_allclose(getattr(one, name), getattr(other, name), atol=tolerance)


def test_a_photo_has_the_same_faces_as_in_python(make, bundled_model, sample_photo):
    found = make().detect(sample_photo)
    assert found.boxes.dtype == found.scores.dtype == found.landmarks.dtype == np.float32
    same(found, bundled_model.detect(sample_photo, resize=None, close_ups=False))


def test_many_photos_of_any_kind_in_batches(make, served, bundled_model, sample_photo):
    picture = Image.open(sample_photo).crop((120, 20, 360, 240))
    webp = io.BytesIO()
    picture.save(webp, "WEBP", lossless=True)
    sources = [sample_photo, sample_photo.read_bytes(), picture, webp.getvalue(), np.zeros((40, 60), np.uint8)]
    found = make(batch_size=2).detect(sources)
    assert sorted(served.requests) == [("serve_bytes", 1), ("serve_bytes", 2), ("serve_bytes", 2)]
    for one, other in zip(found, bundled_model.detect(sources, resize=None, close_ups=False), strict=True):
        same(one, other)
    assert make().detect([]) == []


def test_thresholds_reach_the_server(make, served, bundled_model, sample_photo):
    options = {"score_threshold": 0.02, "max_detections": 2}
    found = make().detect(sample_photo, **options)
    assert len(found) == 2
    same(found, bundled_model.detect(sample_photo, **options, resize=None, close_ups=False))
    assert served.requests == [("detect_bytes", 1)]


def test_a_bad_photo_is_named_or_skipped(make, sample_photo):
    content = sample_photo.read_bytes()
    truncated = content[: len(content) // 2]  # only the server sees that it is
    with pytest.raises(ImageError, match="photo 1 of 2: bytes: the server could not decode it"):
        make().detect([content, truncated])
    with pytest.raises(ImageError, match=r"photo 1 of 2: none\.jpg: no such file"):
        make().detect([content, "none.jpg"])
    found = make().detect([truncated, "none.jpg", content], on_error="skip")
    assert found[:2] == [None, None]
    assert len(found[2]) == 1


def test_a_passed_deadline_is_one_clear_error(make, served, sample_photo):
    served.delay = 1.5
    start = time.monotonic()
    with pytest.raises(TimeoutError, match=r"no answer within the deadline of 0\.3 s$"):
        make(timeout=0.3).detect(sample_photo)
    assert time.monotonic() - start < 1.4
    served.delay = 0.0


def test_the_deadline_is_of_the_whole_call(make, served, sample_photo):
    served.delay = 0.3
    with pytest.raises(TimeoutError, match="deadline of 1 s"):
        make(timeout=1, batch_size=1, in_flight=1).detect([sample_photo] * 6)
    served.delay = 0.0


@contextmanager
def serving(respond):
    """Address of an HTTP server that calls `respond(handler)` for each POST and GET."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            respond(self)

        def do_GET(self):
            respond(self)

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_a_server_that_drips_does_not_outlast_the_deadline():
    def drip(handler):
        handler.send_response(200)
        handler.end_headers()
        with suppress(OSError):
            for _ in range(30):
                handler.wfile.write(b" ")
                time.sleep(0.1)

    with serving(drip) as address:
        start = time.monotonic()
        with pytest.raises(TimeoutError, match="deadline"):
            RestClient(address, timeout=0.5).detect(np.zeros((8, 8), np.uint8))
        assert time.monotonic() - start < 1.5


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_another_place_does_not_answer_for_the_server(code):
    asked = []

    def redirect(handler):
        asked.append(handler.path)
        handler.send_response(code)
        handler.send_header("Location", "/elsewhere")
        handler.end_headers()

    with serving(redirect) as address, pytest.raises(ServingError, match=f"HTTP {code}"):
        RestClient(address, timeout=5).detect(np.zeros((8, 8), np.uint8))
    assert asked == ["/v1/models/retinaface:predict"]


def test_what_the_server_does_not_know_is_one_line(make, sample_photo):
    with pytest.raises(ServingError, match=r"^\S+astronaut\.jpg: \S+: (NOT_FOUND|HTTP 404): Servable not found[^\n]*$"):
        make(model="other").detect(sample_photo)
    with pytest.raises(ServingError, match="Servable not found"):
        make(version=7).detect(sample_photo)
    assert len(make(version=1).detect(sample_photo)) == 1


@pytest.mark.parametrize(("client", "address"), [(GrpcClient, "127.0.0.1:1"), (RestClient, "http://127.0.0.1:1")])
def test_no_server_is_one_line(client, address, sample_photo):
    with pytest.raises(ConnectionError, match=r"127\.0\.0\.1:1: no server to be reached \([^\n]+\)$"):
        client(address, timeout=5).detect(sample_photo)


@pytest.mark.parametrize("wrong", [{"timeout": 0}, {"batch_size": 0}, {"in_flight": 0}])
def test_options_out_of_range(wrong):
    with pytest.raises(ValueError, match="must be positive"):
        RestClient("http://127.0.0.1:1", **wrong)
    with pytest.raises(ValueError, match="`score_threshold` must be a number"):
        RestClient("http://127.0.0.1:1").detect(np.zeros((8, 8), np.uint8), score_threshold=2)


def test_the_rest_client_needs_no_tensorflow():
    code = "import sys, retinaface_tf.integrations.serving.client\n"
    code += "print({'tensorflow', 'grpc', 'keras'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "set()"


def test_the_samples_are_what_tensorflow_serving_reads():
    from google.protobuf import text_format
    from tensorflow_serving.config import model_server_config_pb2

    folder = ROOT / "exports" / "tf_serving"
    config = text_format.Parse((folder / "models.config").read_text(), model_server_config_pb2.ModelServerConfig())
    (model,) = config.model_config_list.config
    assert (model.name, model.base_path, model.model_platform) == ("retinaface", "/models/retinaface", "tensorflow")
    manifest = (folder / "kubernetes.yaml").read_text()
    monitoring = (folder / "monitoring.config").read_text()
    path = monitoring.split('path: "')[1].split('"')[0]
    assert "enable: true" in monitoring and f"prometheus.io/path: {path}\n" in manifest
    for name in ("models.config", "batching.config", "monitoring.config"):  # the manifest holds copies
        assert "".join(f"    {line}\n" for line in (folder / name).read_text().splitlines()) in manifest
    for text in (manifest, (folder / "docker-compose.yaml").read_text()):
        for option in ("model_config_file=/config/models", "monitoring_config_file=/config/monitoring"):
            assert f"--{option}.config" in text
        for word in ("/models/retinaface", "8500", "8501", "65534"):
            assert word in text
    compose = (folder / "docker-compose.yaml").read_text()
    for line in ("read_only: true", 'cap_drop: ["ALL"]', '["no-new-privileges:true"]', "mem_limit: 6g", "cpus: 2"):
        assert line in compose
    for line in (
        "runAsNonRoot: true",
        "allowPrivilegeEscalation: false",
        "readOnlyRootFilesystem: true",
        "capabilities: {drop: [ALL]}",
        'limits: {cpu: "4", memory: 6Gi}',
    ):
        assert line in manifest
