"""Call -> the part of its error that matters, for errors that no other test provokes."""

import io
import json
import pickle
import sys
import types
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ZEROS = np.zeros((5, 2), np.float32)


def nothing(*_, **__):
    return None


def align_no_face():
    from retinaface_tf import align

    align(np.zeros((9, 9, 3), np.uint8), ZEROS)


def image(picture):
    from retinaface_tf.image.loading import load_image

    load_image(picture)


def photos_of_a_list():
    from retinaface_tf.inference.predictor import detect

    options = {"resize": None, "batch_size": 1, "close_ups": False}
    options |= {"score_threshold": 0.5, "nms_threshold": 0.4, "max_detections": 9}
    detect(nothing, ["none.jpg", "none.png"], fill=(0, 0, 0), largest_anchor=9, **options)


def served_photo():
    from retinaface_tf.integrations.serving.client import _requests

    list(_requests(["none.jpg", "none.png"], 1, "raise"))


def served_by_another():
    from retinaface_tf.integrations.serving.client import Client

    class Other(Client):
        def _send(self, signature, inputs, seconds):
            return {"boxes": 0}

    Other("http://x").detect(Image.new("RGB", (9, 9)))


def served_badly():
    from retinaface_tf.integrations.serving.client import Client

    class Blind(Client):
        def _send(self, signature, inputs, seconds):
            sides = {"boxes": (0, 4), "scores": (0,), "landmarks": (0, 5, 2), "size": (2,)}
            empty = {
                name: np.zeros((1, *shape), np.int32 if name == "size" else np.float32) for name, shape in sides.items()
            }
            return {**empty, "count": np.zeros(1, int), "error": [True]}

    Blind("http://x").detect(Image.new("RGB", (9, 9)))


def answered(content):
    def ask():
        from http.server import BaseHTTPRequestHandler, HTTPServer
        from threading import Thread

        from retinaface_tf.integrations.serving.client import RestClient

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                self.rfile.read(int(self.headers["Content-Length"]))
                self.send_response(200 if content else 404)
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_):
                pass

        with HTTPServer(("127.0.0.1", 0), Handler) as server:
            Thread(target=server.handle_request, daemon=True).start()
            RestClient(f"http://127.0.0.1:{server.server_port}").detect(Image.new("RGB", (9, 9)))

    return ask


def damaged_run():
    from retinaface_tf.integrations.batch.output import RUN_FILE, open_folder

    Path(RUN_FILE).write_text("{")
    Path("part-1.parquet").touch()
    open_folder(Path(), {"model": "mobilenet025_wider"})


def damaged_rows():
    pytest.importorskip("pyarrow")
    from retinaface_tf.integrations.batch.output import photos_done

    Path("part-1.parquet").write_text("hello")
    photos_done(Path())


def torch(name, *arguments):
    def call():
        from retinaface_tf.presets import torch_checkpoint

        getattr(torch_checkpoint, name)(*arguments)

    return call


def torch_storage(given, data):
    def call():
        from retinaface_tf.presets.torch_checkpoint import _fill, _Storage

        _fill(_Storage(np.dtype("f4"), given), data)

    return call


def torch_reference():
    from retinaface_tf.presets.torch_checkpoint import _Unpickler

    _Unpickler(io.BytesIO()).persistent_load(("file", None, "0", "cpu", 3))


def torch_sizes():
    from torch_files import STORAGES  # noqa: F401  (the names that the file below spells out)

    from retinaface_tf.presets.torch_checkpoint import LEGACY_MAGIC, _read_legacy

    class Pickler(pickle.Pickler):
        def persistent_id(self, thing):
            return thing if isinstance(thing, tuple) and thing[0] == "storage" else None

    class Kind:
        def __reduce__(self):
            raise NotImplementedError

    import sys

    module = types.ModuleType("torch")
    module.FloatStorage = type("FloatStorage", (), {"__module__": "torch"})
    sys.modules["torch"] = module
    try:
        with Path("x.pth").open("wb") as file:
            for part in (LEGACY_MAGIC, 1001, {"little_endian": True}):
                pickle.dump(part, file, 2)
            Pickler(file, 2).dump(("storage", module.FloatStorage, "0", "cpu", 3, None))
            pickle.dump(["0"], file, 2)
            file.write((4).to_bytes(8, "little"))
    finally:
        del sys.modules["torch"]
    _read_legacy(Path("x.pth"))


def raise_line(cli, words):
    args = cli.build_parser().parse_args(words)
    args.run(args)


def damaged_data(paths):
    def call():
        import tensorflow as tf

        from retinaface_tf.data.pipeline import shard_errors

        Path("a.tfrecord").write_bytes(b"hello, this is no record at all")
        with shard_errors(paths):
            for _ in tf.data.TFRecordDataset(["a.tfrecord"]):
                pass

    return call


def mesh(given):
    def call():
        from retinaface_tf.dense.branch import complete_dense

        complete_dense({"form": "mesh", **given})

    return call


def flat_face():
    from retinaface_tf.dense.branch import upright

    upright(np.zeros((3, 3)))


def index_outside():
    from retinaface_tf.dense.topology import _index

    _index("7", 3)


def large_archive():
    from retinaface_tf.dense.topology import LARGEST_FILE, _choose

    _choose({"face.obj": LARGEST_FILE + 1}, "a.zip")


def odd_landmarks():
    from retinaface_tf.dense.topology import read_topology

    Path("a.obj").write_text("v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n")
    Path("a.landmarks.json").write_text("[")
    read_topology(Path("a.obj"))


def no_topology():
    from retinaface_tf.dense.topology import Topology

    Path("a.obj").write_text("v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n")
    Path("a.landmarks.json").write_text('{"landmarks": [[0]]}')
    Topology.load("a.obj")


def points_without_files():
    from faces_3d import small_topology

    from retinaface_tf.dense.vertex_providers import FromPoints

    topology = small_topology()
    given = types.SimpleNamespace(**{**topology.__dict__, "points_68": [[0]] * 68})
    original = FromPoints.__mro__[1].__init__
    FromPoints.__mro__[1].__init__ = lambda self, *_: None
    try:
        FromPoints(given, ".")
    finally:
        FromPoints.__mro__[1].__init__ = original


def points_of_nothing():
    from faces_3d import small_topology

    from retinaface_tf.dense.vertex_providers import FromPoints

    FromPoints(small_topology(), ".")


def no_points():
    from retinaface_tf.annotations.landmark_sets import read_pts_file

    Path("a.pts").write_text("{ 1 2 }")
    read_pts_file("a.pts")


def compiled():
    from retinaface_tf.detector import RetinaFace

    RetinaFace.compute_loss(types.SimpleNamespace(objective=None))


def evaluation(name, *arguments, **options):
    def call():
        from importlib import import_module

        module, function = name.rsplit(".", 1)
        getattr(import_module(f"retinaface_tf.evaluation.{module}"), function)(*arguments, **options)

    return call


def found(value=np.nan):
    return types.SimpleNamespace(boxes=np.full((1, 4), value), scores=np.ones(1), landmarks=np.zeros((1, 5, 2)))


def truth():
    from evaluation_data import ground_truth

    return ground_truth({"a": [[1, 1, 9, 9]]})


def match_numbers():
    from retinaface_tf.evaluation.widerface import match

    match(truth(), {"a": found()})


def match_unknown():
    from retinaface_tf.evaluation.widerface import match

    match(truth(), {"b": found(1)})


def only_unknown():
    truth().only(["b"])


def run_detector(prepare, detect=None, **options):
    def call():
        from retinaface_tf.evaluation.runner import run_detector

        Path("out").mkdir()
        Image.new("RGB", (9, 9)).save("a.jpg")
        prepare()
        run_detector(detect or (lambda image: found(1)), {"a": Path("a.jpg")}, "out", progress=False, **options)

    return call


def ground_truth_in_part():
    from scipy.io import savemat

    from retinaface_tf.annotations.widerface import _kept

    savemat("x.mat", {"x": 1})
    _kept(Path("none.mat"), [])


def embeddings_of_nobody():
    from retinaface_tf.evaluation.verification import embed_photos

    nobody = types.SimpleNamespace(scores=np.zeros(0))
    embed_photos([np.zeros((9, 9, 3), np.uint8)], lambda image: nobody, nothing, nothing)


def parity():
    from retinaface_tf.export.parity import Parity

    Parity(None, 0.5, 9).add("a.jpg", found(1), found())


def no_photos():
    from retinaface_tf.export.certificate import compare

    metadata = {"quantization": None, "score_threshold": 0.5, "nms_threshold": 0.4, "max_detections": 9}
    compare(Path(), "onnx", types.SimpleNamespace(metadata=metadata), None, [])


def inconvertible():
    from retinaface_tf.cli.export_options import write_artifact

    def fail(*_):
        raise RuntimeError("no such operation\nmore")

    write_artifact(types.SimpleNamespace(output="x.onnx"), fail, None, None)


def parts_that_do_not_fit():
    from retinaface_tf.export.tflite_model import append_subgraph

    def part(shape):
        tensor = types.SimpleNamespace(shape=np.array(shape), shapeSignature=None, type=0, buffer=0, name=b"x")
        graph = types.SimpleNamespace(inputs=[0], outputs=[0], tensors=[tensor], operators=[])
        return types.SimpleNamespace(subgraphs=[graph], buffers=[0], operatorCodes=[])

    append_subgraph(part([1, 2]), part([1, 3]), {0: 0})


def other_weights(bundled_model=None):
    from retinaface_tf.presets import read_weights

    file = io.BytesIO()
    np.savez(file, x=np.zeros(3))
    read_weights([], file.getvalue())


def metadata():
    from retinaface_tf.inference.artifact import FORMAT, parse

    parse(json.dumps({"library": "retinaface_tf", "format": FORMAT}), "x.onnx")


def openvino(content):
    def call():
        pytest.importorskip("openvino")
        from retinaface_tf.inference.onnx import OpenVINOModel

        Path("x.onnx").write_bytes(content)
        OpenVINOModel("x.onnx")

    return call


def tflite():
    pytest.importorskip("ai_edge_litert")
    from retinaface_tf.inference.tflite import TFLiteModel

    metadata = {"format": 1, "library": "retinaface_tf", "input": {"size": None}, "fixed": [], "fill": [0, 0, 0]}
    metadata |= {"score_threshold": 0.5, "nms_threshold": 0.4, "max_detections": 9, "largest_anchor": 512}
    Path("x.tflite").write_bytes(b"hello, this is no model at all")
    with zipfile.ZipFile("x.tflite", "a") as archive:
        archive.writestr("retinaface.json", json.dumps(metadata))
    TFLiteModel("x.tflite")


def tflite_run():
    from retinaface_tf.inference.tflite import TFLiteModel

    def fail(**_):
        raise RuntimeError("a tensor is missing\nmore")

    interpreter = types.ModuleType("ai_edge_litert.interpreter")
    interpreter.Interpreter = lambda **_: types.SimpleNamespace(get_signature_runner=lambda name: fail)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "ai_edge_litert.interpreter", interpreter)
        TFLiteModel._open(types.SimpleNamespace(path="x.tflite", _size=None), 1)


def not_finite():
    from retinaface_tf.training.checkpoint import Checkpoints

    Checkpoints.save(types.SimpleNamespace(_finite=lambda: False, describe_kept=lambda: "nothing is kept"), 7)


def patience_without_validation():
    from retinaface_tf.training.config import TrainConfig
    from retinaface_tf.training.trainer import train

    train(TrainConfig(patience=3), [], ".")


def no_configuration():
    from retinaface_tf.training.config import TrainConfig
    from retinaface_tf.training.trainer import CONFIG_FILE, MODEL_FILE, keep_config

    Path(CONFIG_FILE).write_text("{}")
    Path(MODEL_FILE).touch()
    keep_config(Path(), TrainConfig(), [], "")


def lost_start():
    from retinaface_tf.training.trainer import _start_weights

    _start_weights(types.SimpleNamespace(blend=0.5), None, Path(), types.SimpleNamespace(latest="x"))


def distillation(**given):
    def call():
        from retinaface_tf.training.build import _build_distillation

        distill = types.SimpleNamespace(weight=1.0, teacher=given.get("teacher"), ignore_score=0.5)
        config = types.SimpleNamespace(distill=distill, weights=None, preset="mine")
        _build_distillation(given.get("model"), config)

    return call


def start(ours, theirs, variables=()):
    def call():
        from retinaface_tf.training.build import EXTENSIONS, warm_start

        def model(config, variables=()):
            sizes = types.SimpleNamespace(sizes={})
            own = [types.SimpleNamespace(path=path) for path in variables]
            return types.SimpleNamespace(get_config=lambda: EXTENSIONS | config, variables=own, anchor_generator=sizes)

        warm_start(model(ours, variables), model(theirs))

    return call


def other_keras():
    from retinaface_tf.training import strategy

    original = strategy.trainer
    strategy.trainer = types.SimpleNamespace(TensorFlowTrainer=type("Trainer", (), {}))
    try:
        strategy.mend_keras()
    finally:
        strategy.trainer = original


def no_moving_picture():
    av = pytest.importorskip("av")
    from retinaface_tf.inference.video.clip import Clip

    with av.open("sound.mp4", "w") as container:
        stream = container.add_stream("aac", rate=8000, layout="mono")
        block = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        block.sample_rate = 8000
        container.mux(stream.encode(block))
        container.mux(stream.encode())
    Clip("sound.mp4")


def no_encoder():
    pytest.importorskip("av")
    from fractions import Fraction

    from retinaface_tf.inference.video import writer

    clip = types.SimpleNamespace(rate=Fraction(25), time_base=Fraction(1, 25), sound=None)
    original = writer.ENCODERS
    writer.ENCODERS = {".mp4": ("none", {})}
    try:
        writer.VideoWriter("x.mp4", clip)
    finally:
        writer.ENCODERS = original


def no_tf2onnx():
    from unittest import mock

    from retinaface_tf.cli import export_onnx as onnx
    from retinaface_tf.cli import main as cli

    with mock.patch.object(onnx, "find_spec", nothing):
        raise_line(cli, ["export", "onnx", "--preset", "mobilenet025_wider", "--output", "faces.onnx"])


def another_model():
    import keras

    from retinaface_tf import RetinaFace

    keras.Sequential([keras.Input([1]), keras.layers.ReLU()]).save("x.keras")
    RetinaFace.from_preset("x.keras")


def model_of_yours():
    from unittest import mock

    from retinaface_tf.cli import export_verify as verify
    from retinaface_tf.inference.formats import Format

    Path("x.onnx").touch()
    args = {"artifact": Path("x.onnx"), "runs": 1, "certificate": None, "json": None, "ground_truth": None}
    with mock.patch.object(Format, "open", lambda self, path: types.SimpleNamespace(metadata={})):
        verify.run(types.SimpleNamespace(**args, images=None, preset=None, model=None))


def augmentation(**options):
    def call():
        from retinaface_tf.data.augment import Augmentation

        Augmentation(64, **options)

    return call


def topology(**changes):
    def call():
        from faces_3d import TRIANGLES, VERTICES

        from retinaface_tf.dense.topology import Topology

        Topology(**{"vertices": np.array(VERTICES), "triangles": TRIANGLES, **changes})

    return call


def unknown_landmarks():
    from retinaface_tf.dense.fit import FaceFitter

    FaceFitter.__call__(types.SimpleNamespace(_families={5: 0}), np.zeros((7, 2)))


def labels_3d():
    from retinaface_tf.dense.label3d import LabelOptions

    LabelOptions(1, max_strain=0)


def other_landmarker():
    from faces_3d import small_topology

    from retinaface_tf.dense.vertex_providers import FromFaceLandmarker

    FromFaceLandmarker(small_topology(), "x.task")


def no_face_in_archive():
    from retinaface_tf.dense.topology import _choose

    _choose({"chair.txt": 3}, "a.zip")


def large_export():
    from retinaface_tf.export.options import ExportOptions

    ExportOptions(size=(99999, 99999))


def client():
    from retinaface_tf.integrations.serving.client import Client

    Client("http://x").detect([], on_error="ignore")


def teacher():
    from retinaface_tf.training.distillation import Distillation

    Distillation(None, weight=0)


def is_a_folder():
    from retinaface_tf.common.files import require_writable

    require_writable(".")


def model_unnamed():
    from retinaface_tf.cli.evaluation_options import open_detector

    open_detector(types.SimpleNamespace(preset=None, model=None, runtime=None))


ROWS = [
    (align_no_face, "landmarks that all coincide can't be aligned"),
    (
        lambda: image(Image.new("F", (9, 9), 300)),
        "floating-point pixels from 300 to 300: bring them to 0 to 1, or 0 to",
    ),
    (lambda: image(Image.new("RGB", (0, 9))), "an image without pixels, 0x9"),
    (photos_of_a_list, "photo 0 of 2: none.jpg: no such file"),
    (served_photo, "photo 0 of 2: none.jpg: no such file"),
    (served_by_another, "http://x: the model 'retinaface' is not an export of this package: it has no output 'count'"),
    (served_badly, "the server could not decode it, or it is too large"),
    (answered(b"hello"), ": an answer that is no prediction ("),
    (answered(b""), ": HTTP 404: Not Found"),
    (damaged_run, "_run.json: not JSON (line 1, column 2"),
    (damaged_rows, "Delete it and run the command again"),
    (torch("_rebuild_tensor", None, 0, (), ()), "a tensor without a storage: the file is damaged"),
    (torch_storage(3, b"1234"), "a storage of 3 numbers is cut short: the file is damaged"),
    (torch_reference, "unknown reference 'file' in the pickle: expected a storage"),
    (torch_sizes, "storage 0 has 4 numbers where 3 were announced"),
    (damaged_data([Path("a.tfrecord")]), "a.tfrecord: a damaged shard: run the same `convert` command again"),
    (damaged_data([]), "a damaged shard ("),
    (mesh({"topologie": "a.obj"}), "`dense` of form mesh has no field 'topologie'. Expected some of ["),
    (mesh({}), "`dense` needs a `topology`: path of an .obj, or of an archive with one"),
    (flat_face, "the topology's face has no width or height: x must point right and y up"),
    (index_outside, "index 7 of 3"),
    (large_archive, "a.zip: face.obj is larger than "),
    (odd_landmarks, "a.landmarks.json: not JSON ("),
    (no_topology, "a.landmarks.json: `landmarks` must be "),
    (points_of_nothing, "the topology does not say which vertices are the 68 points: `points_68` in its JSON file"),
    (points_without_files, ".: no .pts file there"),
    (no_points, "a.pts is not a .pts file of 68 points: "),
    (compiled, "Call `compile` with an `Objective` as `loss` first: see its docstring."),
    (match_numbers, "a: boxes and scores must be finite numbers"),
    (match_unknown, "the annotations have no photo 'b' (1 unknown in all)"),
    (only_unknown, "the annotations have no photo 'b' (1 unknown in all)"),
    (evaluation("fddb.roc", {"a": np.ones((1, 5))}, {"a": found()}), "a: boxes and scores must be finite numbers"),
    (run_detector(lambda: Path("a.jpg").write_text("hello")), "a.jpg: not an image that Pillow can read"),
    (run_detector(nothing, lambda images: [], batch_size=2), "must return one result an image: 1 images, 0 results"),
    (run_detector(lambda: Path("out/a.txt").touch(), settings={}), "out: contains results, but not run.json"),
    (run_detector(lambda: Path("out/run.json").write_text("3"), settings={}), "run.json: "),
    (ground_truth_in_part, "none.mat is missing: expected the official eval_tools/ground_truth"),
    (embeddings_of_nobody, "expected embeddings of one length from at least one face. Received lengths: []"),
    (parity, "a.jpg: the artifact returns numbers that are not finite. Export it again"),
    (no_photos, "no photo to compare on"),
    (inconvertible, "this model can't be converted (RuntimeError: no such operation)"),
    (parts_that_do_not_fit, "Parts do not fit: [1, 2] into [1, 3]"),
    (other_weights, "The weights do not fit the model: left over 'x'"),
    (metadata, "x.onnx: its metadata is damaged: "),
    (openvino(b"hello"), "x.onnx: not an ONNX file, or a damaged one"),
    (tflite, "x.tflite: LiteRT can't open this model ("),
    (tflite_run, "x.tflite: LiteRT can't run this model (a tensor is missing)"),
    (not_finite, "a weight became infinite or NaN by step 7; nothing is kept"),
    (patience_without_validation, "`patience` stops by the validation score: give validation photos as well"),
    (no_configuration, ": give another --output"),
    (lost_start, "blend=0.5 needs the weights that the run began with ("),
    (distillation(), "distill.weight needs a teacher: give distill.teacher, or weights to start from"),
    (start({"num_filters": 64}, {"num_filters": 32}), "num_filters is 32, not 64"),
    (start({}, {}, ["stem/kernel"]), "nothing to start stem/kernel from"),
    (other_keras, "the workaround for multi-worker training needs Keras 3.15, and this version differs: "),
    (no_moving_picture, "sound.mp4: contains no video"),
    (no_encoder, "x.mp4: this build of FFmpeg has no encoder none"),
    (no_tf2onnx, "exporting to ONNX needs tf2onnx. Install it: pip install 'retinaface-tf[onnx]'"),
    (another_model, "`x.keras` contains a Sequential. Expected a RetinaFace, saved with model.save"),
    (model_of_yours, "x.onnx: made from your own model. Name that model: --model PATH"),
    (augmentation(hue=3), "`hue` must be in [0, 0.5] turns. Received: hue=3"),
    (augmentation(fill=(0, 0, 999)), "`fill` must be three levels from 0 to 255. Received: fill=(0, 0, 999)"),
    (augmentation(contrast=(2, 1)), "`contrast` must be a range of factors (low, high). Received: contrast=(2, 1)"),
    (topology(triangles=[[0, 1]]), "`triangles` must have shape [F, 3]. Received: (1, 2)"),
    (topology(triangles=[[0, 1, 99]]), "`triangles` must be indices below 9, the vertices. Received: 0 to 99"),
    (topology(uv=np.zeros((3, 2))), "`uv` must have shape [9, 2]. Received: (3, 2)"),
    (topology(points_68=[0]), "`points_68` must be 68 vertices. Received: 1"),
    (topology(points_68=[99]), "`points_68` must be indices below 9, the vertices. Received: up to 99"),
    (unknown_landmarks, "the topology knows [5] landmarks. Received: 7 of them"),
    (labels_3d, "`max_strain` must be above 0. Received: max_strain=0"),
    (other_landmarker, "MediaPipe's points are the 468 vertices of its canonical face. Received: 9"),
    (no_face_in_archive, "a.zip: expected one .obj of a face in the archive. Received: none"),
    (lambda: image(3), "expected a path, bytes, a PIL image or an array. Received: int"),
    (lambda: image(np.ones((9, 9))), "values from 1.0 to 1.0. Bring them to 0 to 255 and cast: image.astype('uint8')"),
    (large_export, "`size` must be of at most "),
    (client, '`on_error` must be "raise" or "skip". Received: on_error=\'ignore\''),
    (teacher, "`weight` must be above 0. Received: weight=0"),
    (evaluation("verification.tar_at_far", [1], [True]), "expected genuine pairs and impostors. Received: 1 and 0"),
    (evaluation("verification.tar_at_far", [1, 0], [1, 0], [2]), "`fars` must be in (0, 1). Received: 2"),
    (is_a_folder, "can't be written (it is a folder)"),
    (model_unnamed, "name the model to run: --preset NAME or --model PATH"),
]


@pytest.mark.parametrize(("call", "line"), ROWS, ids=[row[1].strip() for row in ROWS])
def test_line(call, line, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises((ValueError, OSError, ImportError, RuntimeError)) as caught:
        call()
    assert line in " ".join(str(caught.value).split())
    assert not sorted(tmp_path.glob(".x.*"))
