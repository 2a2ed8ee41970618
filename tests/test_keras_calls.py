"""What Keras users call on a model, beside `detect`: answered as expected, or refused in one line."""

import copy
import pickle
import threading

import keras
import numpy as np
import pytest
import tensorflow as tf

import retinaface_tf
from retinaface_tf import RetinaFace

IMAGE = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    return RetinaFace(num_filters=8, anchors={"P3": (8,), "P4": (16,), "P5": (32,)})


def boxes(model):
    return model.detect(IMAGE, score_threshold=0.0, max_detections=9, close_ups=False).boxes


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_copies_detect_the_same(model, copied):
    np.testing.assert_array_equal(boxes(copied(model)), boxes(model))


def test_eight_threads_trace_one_graph():
    model = RetinaFace(num_filters=8, anchors={"P5": (32,)})
    functions, found = set(), []

    def work():
        functions.add(id(model.inference()))
        found.append(boxes(model))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(functions) == 1
    assert model.inference().traces() == 1
    assert len(found) == 8
    for each in found:
        np.testing.assert_array_equal(each, found[0])


def test_an_h5_file_is_refused_before_it_is_written(model, tmp_path):
    for name in ("model.h5", "model.HDF5"):
        with pytest.raises(ValueError, match=r"save the model as a \.keras file"):
            model.save(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_weights_go_through_an_h5_file(model, tmp_path):
    model.save_weights(tmp_path / "w.weights.h5")
    other = RetinaFace.from_config(model.get_config())
    other.load_weights(tmp_path / "w.weights.h5")
    np.testing.assert_array_equal(boxes(other), boxes(model))


def test_detect_inside_a_graph_says_what_to_call(model):
    with pytest.raises(RuntimeError, match=r"call it outside tf\.function and tf\.data"):
        tf.function(lambda x: model.detect(x), autograph=False)(IMAGE)


def test_export_writes_faces_not_raw_predictions(model, tmp_path, capsys):
    path = model.export(tmp_path / "faces.tflite", verbose=True, size=(64, 64), max_detections=9)
    assert str(path) in capsys.readouterr().out
    detected = retinaface_tf.load(path).detect(IMAGE, close_ups=False)
    expected = model.detect(IMAGE, max_detections=9, resize=None, close_ups=False)
    np.testing.assert_allclose(detected.boxes, expected.boxes, atol=0.1)
    with pytest.raises(ValueError, match="`format` must be one of"):
        model.export(tmp_path / "x", format="tf_saved_model")


def test_kerass_quantization_is_refused(model):
    with pytest.raises(NotImplementedError, match=r"Keras can.t quantize convolutions"):
        model.quantize("int8")


@pytest.mark.slow
def test_running_functions_eagerly_and_clearing_the_session(model):
    before = boxes(model)
    tf.config.run_functions_eagerly(True)
    try:
        assert len(boxes(RetinaFace.from_config(model.get_config()))) == len(before)
        np.testing.assert_array_equal(boxes(model), before)
    finally:
        tf.config.run_functions_eagerly(False)
    keras.backend.clear_session()
    np.testing.assert_array_equal(boxes(model), before)


def test_predict_and_a_part_of_the_network(model):
    assert model.predict(IMAGE[None], verbose=0)["box"].shape == (1, 64 + 16 + 4, 4)
    part = keras.Model(model.input, model.get_layer("context_P4").output)
    assert part(IMAGE[None].astype("float32")).shape == (1, 4, 4, 8)
