"""Call or command -> the part of its error that matters, for errors that no other test provokes.

Every row uses public names or the command line, with files and arguments that a user may have. Where the fault is of
another program (an artifact of wrong numbers, a missing package), that program is replaced.
"""

import json
import shutil
import struct
import sys
import zipfile
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from evaluation_data import found, ground_truth
from faces_3d import LANDMARKS, TRIANGLES, VERTICES
from PIL import Image
from torch_files import View, write_legacy, write_zip
from wider_tree import write_mat

import retinaface_tf
from retinaface_tf.cli.main import main
from retinaface_tf.image import load_image

MODEL = ["--preset", "mobilenet025_wider"]
FACES = ["--ground-truth", "faces.csv", "--images", ".", "--detections", "out"]
METADATA = {"format": 1, "library": "retinaface_tf", "input": {"size": None}, "fixed": [], "fill": [0, 0, 0]}
METADATA |= {"score_threshold": 0.5, "nms_threshold": 0.4, "max_detections": 9, "largest_anchor": 512}
MESH = {"vertices": VERTICES, "triangles": TRIANGLES, "landmarks": LANDMARKS}
OBJ = "".join("v {} {} {}\n".format(*vertex) for vertex in VERTICES)
OBJ += "".join("f {} {} {}\n".format(*(corner + 1 for corner in face)) for face in TRIANGLES)


def openvino(_):
    pytest.importorskip("openvino")
    Path("x.onnx").write_bytes(b"hello")
    retinaface_tf.load("x.onnx", runtime="openvino")


class Serving:
    """A server that gives one answer to one request; `with` gives a client of it."""

    def __init__(self, answer, status=200):
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                self.rfile.read(int(self.headers["Content-Length"]))
                self.send_response(status)
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_):
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)

    def detect(self):
        from retinaface_tf.integrations.serving.client import RestClient

        with self.server:
            Thread(target=self.server.handle_request, daemon=True).start()
            RestClient(f"http://127.0.0.1:{self.server.server_port}").detect(Image.new("RGB", (9, 9)))


def serving(answer=b"", status=200):
    return lambda _: Serving(answer if isinstance(answer, bytes) else json.dumps(answer).encode(), status).detect()


def client(*photos, **options):
    def call(_):
        from retinaface_tf.integrations.serving.client import RestClient

        RestClient("http://127.0.0.1:1").detect(list(photos), **options)

    return call


def image(picture):
    return lambda _: load_image(picture)


def files(*contents):
    """Write (path, text or bytes) of each; a folder where it is None."""
    for name, content in contents:
        path = Path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        if content is None:
            path.mkdir()
        else:
            path.write_bytes(content if isinstance(content, bytes) else content.encode())


def command(line, *written, needs=None):
    """The command line, in a folder with these files; `{shards}` is a folder of shards."""

    def call(given):
        if needs:
            pytest.importorskip(needs)
        files(*written)
        words = [given.shards if word == "{shards}" else word for word in line.split()]
        if main([str(word) for word in words]):
            raise ValueError(given.capsys.readouterr().err)

    return call


def dense(topology, *written):
    def call(_):
        files(*written)
        retinaface_tf.RetinaFace(dense=topology)

    return call


def topology(**changes):
    return dense({"topology": {**MESH, **changes}})


def archive(name, size):
    def call(_):
        with zipfile.ZipFile("a.zip", "w", zipfile.ZIP_DEFLATED) as file:
            file.writestr(name, bytes(size))
        retinaface_tf.RetinaFace(dense="a.zip")

    return call


def torch(write):
    def call(given):
        write(Path("x.pth"))
        given.model.load_torch_weights("x.pth")

    return call


def cut_short(path):
    """A checkpoint as a zip archive whose storage of three numbers is four bytes long."""
    write_zip(Path("whole"), {"x": np.zeros(3, np.float32)})
    with zipfile.ZipFile("whole") as whole, zipfile.ZipFile(path, "w") as file:
        for name in whole.namelist():
            file.writestr(name, b"1234" if "/data/" in name else whole.read(name))


def other_count(path):
    """A legacy checkpoint that announces three numbers and says then that four follow."""
    write_legacy(path, {"x": np.zeros(3, np.float32)})
    content = path.read_bytes()
    path.write_bytes(content[:-20] + struct.pack("<q", 4) + content[-12:])


def no_storage(path):
    view = View(np.zeros(3, np.float32), 0, (3,), (1,))
    view.storage = None
    write_zip(path, {"x": view})


def other_reference(path):
    """A pickle that refers to something else than a storage."""
    write_zip(Path("whole"), {"x": np.zeros(3, np.float32)})
    with zipfile.ZipFile("whole") as whole, zipfile.ZipFile(path, "w") as file:
        for name in whole.namelist():
            file.writestr(name, whole.read(name).replace(b"storage", b"package"))


def evaluate(detections, *, photo=None, **options):
    def call(_):
        if photo is not None:
            files(("a.jpg", photo))
        elif callable(detections):
            Image.new("RGB", (9, 9)).save("a.jpg")
        where = {"images": "."} if callable(detections) else {}
        retinaface_tf.evaluate(ground_truth({"a": [[1, 1, 9, 9]]}), detections, **where, **options)

    return call


def tflite(**changes):
    """A file with our metadata behind what is no model."""

    def call(given):
        if "runner" in changes:
            library = ModuleType("ai_edge_litert.interpreter")
            library.Interpreter = lambda **_: SimpleNamespace(get_signature_runner=lambda name: changes["runner"])
            given.monkeypatch.setitem(sys.modules, library.__name__, library)
        Path("x.tflite").write_bytes(b"hello, this is no model at all")
        with zipfile.ZipFile("x.tflite", "a") as file:
            file.writestr("retinaface.json", json.dumps(changes.get("metadata", METADATA)))
        retinaface_tf.load("x.tflite")

    return call


def broken_run(**_):
    raise RuntimeError("a tensor is missing\nmore")


def verify(photos, model=None, boxes=np.nan):
    """An artifact that finds one face, with such coordinates."""

    def call(given):
        def run(images, *_, **__):
            shapes = {"boxes": (4,), "landmarks": (5, 2)}
            found = {name: np.full((1, 1, *shape), boxes, np.float32) for name, shape in shapes.items()}
            return {**found, "scores": np.ones((1, 1), np.float32), "count": np.ones(1, np.int32)}

        from retinaface_tf.inference.formats import Format

        metadata = {**METADATA, "quantization": None, "preset": None}
        opened = SimpleNamespace(metadata=metadata, run=run)
        given.monkeypatch.setattr(Format, "open", lambda self, path: opened)
        Path("x.onnx").touch()
        retinaface_tf.verify("x.onnx", given.model if model else None, photos)

    return call


def train(written=(), prepare=None, **changes):
    """`retinaface_tf.train` on good shards, with these fields of its configuration."""

    def call(given):
        from retinaface_tf.training.config import TrainConfig, override

        files(*written)
        if prepare:
            prepare(given.monkeypatch)
        strategy = changes.pop("strategy", "none")
        retinaface_tf.train(override(TrainConfig(), changes), [given.shards], "run", strategy=strategy, verbose=0)

    return call


def other_keras(monkeypatch):
    from retinaface_tf.training import strategy

    monkeypatch.setattr(strategy, "trainer", SimpleNamespace(TensorFlowTrainer=type("Trainer", (), {})))
    cluster = {"cluster": {"worker": ["localhost:1", "localhost:2"]}, "task": {"type": "worker", "index": 0}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(cluster))


def start_deleted(monkeypatch):
    """A run with a checkpoint whose start.npz is gone."""
    from retinaface_tf.training.checkpoint import Checkpoints

    monkeypatch.setattr(Checkpoints, "latest", "checkpoints/step-7")
    monkeypatch.setattr(Checkpoints, "restore", lambda self: 7)


def damaged_shard(given):
    """The last byte of a shard has changed."""
    folder = Path("damaged")
    shutil.copytree(given.shards, folder)
    shard = next(folder.glob("*.tfrecord"))
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    words = ["train", *MODEL, "--data", folder, "--validation", folder, "--output", "run"]
    if main([str(word) for word in words]):
        raise ValueError(given.capsys.readouterr().err)


def clip(*, sound=False):
    av = pytest.importorskip("av")
    with av.open("clip.mp4", "w") as container:
        if sound:
            stream = container.add_stream("aac", rate=8000, layout="mono")
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            frame.sample_rate = 8000
        else:
            stream = container.add_stream("mpeg4", rate=25)
            stream.width = stream.height = 64
            frame = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")
        container.mux(stream.encode(frame))
        container.mux(stream.encode())


def sound_alone(given):
    clip(sound=True)
    command("detect clip.mp4")(given)


def no_encoder(given):
    from retinaface_tf.inference.video import writer

    clip()
    given.monkeypatch.setattr(writer, "ENCODERS", {".mp4": ("none", {})})
    command("detect clip.mp4 --output x.mp4 --no-tracks")(given)


def no_tf2onnx(given):
    from retinaface_tf.cli import export_onnx

    given.monkeypatch.setattr(export_onnx, "find_spec", lambda name: None)
    command("export onnx --preset mobilenet025_wider --output faces.onnx")(given)


def inconvertible(given):
    from retinaface_tf.export import onnx

    def fail(*_, **__):
        raise RuntimeError("no such operation\nmore")

    given.monkeypatch.setattr(onnx, "export_onnx", fail)
    command("export onnx --preset mobilenet025_wider --output faces.onnx")(given)


def another_model(_):
    import keras

    keras.Sequential([keras.Input([1]), keras.layers.ReLU()]).save("x.keras")
    retinaface_tf.RetinaFace.from_preset("x.keras")


def selection_missing(given):
    write_mat("wider_face_val.mat")
    command("evaluate widerface --ground-truth . --detections .")(given)


NAN, ONE = found([[np.nan] * 4], [1]), found([[1, 1, 9, 9]], [1])
EMPTY = {"boxes": [[]], "scores": [[]], "landmarks": [[]], "count": [0], "size": [[0, 0]], "error": [True]}
LABEL3D = "label3d {shards} --topology a.obj --output out"
AUGMENTED = "inspect {shards} --contact-sheet s.png --augmented"
VERIFICATION = "evaluate verification --embeddings e.npy --templates t.txt --pairs p.txt"
POINTS_68 = json.dumps({"landmarks": LANDMARKS, "points_68": [0] * 68})
FIVE_CSV = ("five.csv", f"a.png,{','.join('1' * 10)}\n")
FACE_CSV = ("faces.csv", "file,x1,y1,x2,y2\na.png,1,1,9,9\n")
ROWS = [
    (
        lambda _: retinaface_tf.align(np.zeros((9, 9, 3), np.uint8), np.zeros((5, 2))),
        "landmarks that all coincide can't be aligned",
    ),
    (image(Image.new("F", (9, 9), 300)), "floating-point pixels from 300 to 300: bring them to 0 to 1, or 0 to"),
    (image(Image.new("RGB", (0, 9))), "an image without pixels, 0x9"),
    (image(3), "expected a path, bytes, a PIL image or an array. Received: int"),
    (image(np.ones((9, 9))), "values from 1.0 to 1.0. Bring them to 0 to 255 and cast: image.astype('uint8')"),
    (lambda given: given.model.detect(["none.jpg", "none.png"]), "photo 0 of 2: none.jpg: no such file"),
    (client("none.jpg", "none.png"), "photo 0 of 2: none.jpg: no such file"),
    (client(on_error="ignore"), '`on_error` must be "raise" or "skip". Received: on_error=\'ignore\''),
    (serving({"outputs": {}}), "the model 'retinaface' is not an export of this package: it has no output 'boxes'"),
    (serving({"outputs": EMPTY}), "the server could not decode it, or it is too large"),
    (serving(b"hello"), ": the server's response is not a prediction ("),
    (serving(status=404), ": HTTP 404: Not Found"),
    (
        command("batch a.png --output out", ("out/_run.json", "{"), ("out/part-1.parquet", ""), needs="ray"),
        "_run.json: not JSON (line 1, column 2",
    ),
    (torch(cut_short), "a storage of 3 numbers is cut short: the file is damaged"),
    (torch(other_count), "storage 0 has 4 numbers where 3 were announced"),
    (torch(no_storage), "a tensor without a storage: the file is damaged"),
    (torch(other_reference), "unknown reference 'package' in the pickle: expected a storage"),
    (damaged_shard, ".tfrecord: a damaged shard: run the same `convert` command again"),
    (dense({"form": "mesh", "topologie": "a.obj"}), "`dense` of form mesh has no field 'topologie'. Expected some of"),
    (dense({"form": "mesh"}), "`dense` needs a `topology`: path of an .obj, or of an archive with one"),
    (dense("a.obj", ("a.obj", "v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 7\n")), "index 7 of 3"),
    (dense("a.obj", ("a.obj", OBJ), ("a.landmarks.json", "[")), "a.landmarks.json: not JSON ("),
    (
        dense("a.obj", ("a.obj", OBJ), ("a.landmarks.json", '{"landmarks": [[0]]}')),
        "a.landmarks.json: `landmarks` must be ",
    ),
    (archive("face.obj", 50_000_001), "a.zip: face.obj is larger than "),
    (archive("chair.txt", 3), "a.zip: expected one .obj of a face in the archive. Received: none"),
    (topology(triangles=[[0, 1]]), "`triangles` must have shape [F, 3]. Received: (1, 2)"),
    (topology(triangles=[[0, 1, 99]]), "`triangles` must be indices below 9, the vertices. Received: 0 to 99"),
    (topology(uv=np.zeros((3, 2))), "`uv` must have shape [9, 2]. Received: (3, 2)"),
    (topology(points_68=[0]), "`points_68` must be 68 vertices. Received: 1"),
    (topology(points_68=[99]), "`points_68` must be indices below 9, the vertices. Received: up to 99"),
    (
        command(f"{LABEL3D} --points .", ("a.obj", OBJ), ("a.landmarks.json", json.dumps({"landmarks": LANDMARKS}))),
        "the topology does not say which vertices are the 68 points: `points_68` in its JSON file",
    ),
    (
        command(f"{LABEL3D} --points .", ("a.obj", OBJ), ("a.landmarks.json", POINTS_68)),
        ".: no .pts file there",
    ),
    (
        command(f"{LABEL3D} --max-strain 0", ("a.obj", OBJ), ("a.landmarks.json", POINTS_68)),
        "`max_strain` must be above 0. Received: max_strain=0",
    ),
    (
        command(f"{LABEL3D} --landmarker x.task", ("a.obj", OBJ)),
        "MediaPipe's points are the 468 vertices of its canonical face. Received: 9",
    ),
    (
        command("evaluate landmarks --format pts --ground-truth pts --predictions p.csv", ("pts/a.pts", "{ 1 2 }")),
        "a.pts is not a .pts file of 68 points: ",
    ),
    (
        command("evaluate landmarks --ground-truth five.csv --predictions p.csv --images .", FIVE_CSV, ("a.png", "")),
        "name the model to run: --preset NAME or --model PATH",
    ),
    (lambda given: given.model.compute_loss(), "Call `compile` with an `Objective` as `loss` first"),
    (evaluate({"a": NAN}), "a: boxes and scores must be finite numbers"),
    (evaluate({"b": ONE}), "the annotations have no photo 'b' (1 unknown in all)"),
    (evaluate({"b": ONE}, only_present=True), "the annotations have no photo 'b' (1 unknown in all)"),
    (evaluate(lambda image: ONE, photo="hello"), "a.jpg: not an image that Pillow can read"),
    (evaluate(lambda images: [], batch_size=2), "must return one result per image: 1 images, 0 results"),
    (
        command(f"evaluate photos {' '.join([*FACES, *MODEL])}", FACE_CSV, ("a.png", "x"), ("out/a.txt", "")),
        "out: contains results, but not run.json",
    ),
    (
        command(f"evaluate photos {' '.join([*FACES, *MODEL])}", FACE_CSV, ("a.png", "x"), ("out/run.json", "3")),
        "run.json: ",
    ),
    (selection_missing, "wider_easy_val.mat is missing: expected the official eval_tools/ground_truth"),
    (verify([np.zeros((64, 64, 3), np.uint8)], model=True), "the artifact returns numbers that are not finite"),
    (verify([], model=True), "no photo to compare on"),
    (verify([]), "x.onnx: made from your own model. Name that model: --model PATH"),
    (inconvertible, "this model can't be converted (RuntimeError: no such operation)"),
    (no_tf2onnx, "exporting to ONNX needs tf2onnx. Install it: pip install 'retinaface-tf[onnx]'"),
    (lambda given: given.model.export("x.onnx", size=(99999, 99999)), "`size` must be of at most "),
    (tflite(), "x.tflite: LiteRT can't open this model ("),
    (tflite(metadata={"library": "retinaface_tf", "format": 1}), "x.tflite: its metadata is damaged: "),
    (tflite(runner=broken_run), "x.tflite: LiteRT can't run this model (a tensor is missing)"),
    (openvino, "x.onnx: not an ONNX file, or a damaged one"),
    (another_model, "`x.keras` contains a Sequential. Expected a RetinaFace, saved with model.save"),
    (train(patience=3), "`patience` stops by the validation score: give validation photos as well"),
    (train([("run/config.json", "{}"), ("run/model.keras", "")]), ": give another --output"),
    (
        train(**{"distill.weight": 1.0}),
        "distill.weight needs a teacher: give distill.teacher, or weights to start from",
    ),
    (
        train(weights="mobilenet025_wider", **{"architecture.num_filters": 32}),
        "of another architecture than mobilenet025: num_filters is 64, not 32",
    ),
    (train(prepare=start_deleted, blend=0.5), "start.npz: blend=0.5 needs the weights that the run began with ("),
    (
        train(prepare=other_keras, strategy="multiworker"),
        "the workaround for multi-worker training needs Keras 3.15, and this version differs: ",
    ),
    (sound_alone, "clip.mp4: contains no video"),
    (no_encoder, "x.mp4: this build of FFmpeg has no encoder none"),
    (command(f"{AUGMENTED} hue=3"), "`hue` must be in [0, 0.5] turns. Received: hue=3"),
    (command(f"{AUGMENTED} fill=[0,0,999]"), "`fill` must be three levels from 0 to 255. Received: fill=[0, 0, 999]"),
    (command(f"{AUGMENTED} contrast=[2,1]"), "`contrast` must be a range of factors (low, high). Received: contrast=["),
    (
        command(
            "evaluate verification --embeddings e.npy --templates t.txt --pairs p.txt",
            ("t.txt", "a 1 1\n"),
            ("p.txt", "1 1 1\n"),
        ),
        "expected genuine pairs and impostors. Received: 1 and 0",
    ),
    (
        command(f"{VERIFICATION} --far 2", ("t.txt", "a 1 1\n"), ("p.txt", "1 1 1\n1 1 0\n")),
        "`fars` must be in (0, 1). Received: 2",
    ),
    (command("detect a.png --json .", ("a.png", "")), "can't be written (it is a folder)"),
]


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """Shards of two photos with a face each."""
    folder = tmp_path_factory.mktemp("calls")
    for name in ("a.png", "b.png"):
        Image.new("RGB", (64, 48), "green").save(folder / name)
    (folder / "faces.csv").write_text("file,x1,y1,x2,y2\na.png,9,9,30,40\nb.png,9,9,30,40\n")
    words = ["--images", folder, "--annotations", folder / "faces.csv", "--output", folder / "shards"]
    assert main(["convert", "custom", *map(str, words), "--workers", "1", "--quiet"]) == 0
    return folder / "shards"


@pytest.mark.parametrize(("call", "line"), ROWS, ids=[row[1].strip() for row in ROWS])
def test_line(call, line, tmp_path, monkeypatch, one_model, bundled_model, shards, capsys):
    monkeypatch.chdir(tmp_path)
    np.save("e.npy", np.ones((1, 4), np.float32))
    given = SimpleNamespace(model=bundled_model, shards=shards, monkeypatch=monkeypatch, capsys=capsys)
    with pytest.raises((ValueError, OSError, ImportError)) as caught:
        call(given)
    assert line in " ".join(str(caught.value).split())
    assert "Traceback" not in str(caught.value)
    assert not sorted(tmp_path.glob(".x.*"))
