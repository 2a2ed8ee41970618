"""The `.tflite` files in the folder of a preset: they are there, are what the card says, and find what Keras finds."""

import hashlib
import pickle

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

import retinaface_tf
from retinaface_tf import RetinaFace, presets
from retinaface_tf.common.imports import BUNDLED
from retinaface_tf.export.certificate import bundled_photos
from retinaface_tf.inference.tflite import TFLiteModel

WITH_WEIGHTS = [name for name in presets.names() if "weights" in presets.load(name)]


def test_presets_with_weights_bring_their_artifact_and_no_other():
    found = {path.parent.name for path in presets.FOLDER.glob("*/*.tflite")}
    assert found == set(WITH_WEIGHTS) == {name for name in presets.names() if presets.artifacts(presets.load(name))}
    assert all(list(presets.artifacts(presets.load(name))) == ["tflite", "tflite_int8"] for name in WITH_WEIGHTS)
    assert sorted(found) == sorted(BUNDLED)  # the presets that messages name


@pytest.mark.parametrize("key", ["tflite", "tflite_int8"])
@pytest.mark.parametrize("name", WITH_WEIGHTS)
def test_the_file_is_what_the_card_says(name, key):
    card = presets.load(name)
    path, sha256 = presets.artifacts(card)[key]
    assert hashlib.sha256(path.read_bytes()).hexdigest() == sha256
    assert presets.verified((path, sha256)) == path
    metadata = TFLiteModel(path).metadata
    assert metadata["weights_sha256"] == card["weights"]["sha256"]
    assert (metadata["preset"], metadata["input"]["size"]) == (name, None)
    assert (metadata["quantization"] or {"scheme": ""})["scheme"] == ("int8" if key == "tflite_int8" else "")
    assert (metadata["max_detections"], metadata["fixed"]) == (750, [])


@pytest.mark.parametrize("name", WITH_WEIGHTS)
def test_it_finds_the_faces_of_keras(name):
    """Faces of many sizes, small and odd photos, and none."""
    model = RetinaFace.from_preset(name)
    runner = Interpreter(str(presets.artifacts(presets.load(name))["tflite"][0])).get_signature_runner(
        "serving_default"
    )
    counts = []
    for photo in [*bundled_photos().values(), np.zeros((16, 16, 3), np.uint8)]:
        outputs = runner(images=photo[None])
        window = np.array([[0, 0, photo.shape[1], photo.shape[0]]], np.float32)
        expected = model.inference()(photo[None], window, 0.5, 0.4, 750)
        counts.append(int(outputs["count"][0]))
        assert counts[-1] == expected["count"][0]
        for kind, tolerance in (("boxes", 0.05), ("landmarks", 0.05), ("scores", 1e-3)):
            np.testing.assert_allclose(outputs[kind], expected[kind], atol=tolerance)
    assert max(counts) > 290 and min(counts) == 0


@pytest.mark.parametrize("name", WITH_WEIGHTS)
def test_the_int8_runtime_opens_the_int8_file_and_passes_its_certificate(name):
    detector = retinaface_tf.load(name, runtime="litert-int8")
    path = presets.artifacts(presets.load(name))["tflite_int8"][0]
    assert detector.runtime.path == str(path)
    certificate = retinaface_tf.verify(path, RetinaFace.from_preset(name))
    assert certificate.passed, certificate.facts["failures"]
    assert certificate.facts["largest_difference"]["scores"] > 1e-3  # 8 bits indeed
    again = pickle.loads(pickle.dumps(detector))
    assert again.runtime.path == str(path)


def test_a_preset_without_an_int8_file_says_how_to_make_one():
    with pytest.raises(
        ValueError, match=r"resnet50: has no bundled int8 \.tflite\. Export one: .*--quantize int8 --cali"
    ):
        retinaface_tf.load("resnet50", runtime="litert-int8")
