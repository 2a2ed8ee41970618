"""Two small servers that answer as TensorFlow Serving does, and run a real SavedModel: gRPC and REST, on 127.0.0.1."""

import base64
import json
import threading
import time
from concurrent import futures
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import tensorflow as tf


class Served:
    """A SavedModel under a name. `delay` seconds before each answer; `requests` are the signatures asked for."""

    def __init__(self, signatures, name="retinaface", version=1):
        self.signatures = signatures
        self.name, self.version = name, version
        self.delay = 0.0
        self.requests = []

    def answer(self, name, version, signature, inputs):
        """Outputs as arrays; KeyError with a line for what TensorFlow Serving does not know."""
        if name != self.name or version not in (None, self.version):
            raise KeyError(f"Servable not found for request: Specific({name}, {version})")
        if signature not in self.signatures:
            raise KeyError(f"Serving signature name: {signature!r} not found in signature def")
        time.sleep(self.delay)
        function = self.signatures[signature]
        specs = function.structured_input_signature[1]
        self.requests.append((signature, len(next(iter(inputs.values())))))
        outputs = function(**{key: tf.constant(value, specs[key].dtype) for key, value in inputs.items()})
        return {key: value.numpy() for key, value in outputs.items()}


@contextmanager
def grpc_server(served):
    """A PredictionService; yields "host:port"."""
    import grpc
    from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

    class Service(prediction_service_pb2_grpc.PredictionServiceServicer):
        def Predict(self, request, context):  # noqa: N802
            spec = request.model_spec
            inputs = {key: tf.make_ndarray(value) for key, value in request.inputs.items()}
            version = spec.version.value if spec.HasField("version") else None
            try:
                outputs = served.answer(spec.name, version, spec.signature_name or "serving_default", inputs)
            except KeyError as error:
                context.abort(grpc.StatusCode.NOT_FOUND, error.args[0])
            response = predict_pb2.PredictResponse()
            for key, value in outputs.items():
                response.outputs[key].CopyFrom(tf.make_tensor_proto(value))
            return response

    server = grpc.server(futures.ThreadPoolExecutor(2), options=[("grpc.max_receive_message_length", -1)])
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(Service(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(0).wait()


@contextmanager
def rest_server(served):
    """The REST predict API, columns of inputs; yields "http://host:port"."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            path, _, verb = self.path.partition(":")
            name, version = path.removeprefix("/v1/models/"), None
            if "/versions/" in name:
                name, version = name.split("/versions/")
            inputs = {key: [_decoded(value) for value in values] for key, values in body["inputs"].items()}
            try:
                assert verb == "predict"
                outputs = served.answer(name, version and int(version), body["signature_name"], inputs)
                code, answer = 200, {"outputs": {key: np.asarray(value).tolist() for key, value in outputs.items()}}
            except KeyError as error:
                code, answer = 404, {"error": error.args[0]}
            content = json.dumps(answer).encode()
            try:
                self.send_response(code)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)
            except OSError:  # the client has given up
                pass

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


def _decoded(value):
    return base64.b64decode(value["b64"]) if isinstance(value, dict) else value
