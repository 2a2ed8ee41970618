"""Presets as data: known by name, checked by hash, written to the same bytes each time."""

import hashlib
import io
import json
import pickle

import numpy as np
import pytest

from retinaface_tf import RetinaFace, presets


def test_names_and_cards():
    assert {"mobilenet025", "mobilenet025_wider", "resnet50"} <= set(presets.names())
    for name in presets.names():
        card = presets.load(name)
        assert card["name"] == name
        assert card["description"]
        assert {"backbone", "anchors", "pixel_mean", "pixel_std"} <= card["architecture"].keys()
        if "weights" in card:
            assert {"file", "sha256", "license", "provenance", "scores"} <= card["weights"].keys()
            assert (presets.FOLDER / name / "README.md").is_file()
            assert (presets.FOLDER / name / "NOTICE").is_file()


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"mobilenet025_wider.*Received: 'mobilnet'"):
        RetinaFace.from_preset("mobilnet")


def test_a_preset_without_weights_says_so():
    with pytest.raises(ValueError, match=r"without weights. Pass load_weights=False.*mobilenet025_wider"):
        RetinaFace.from_preset("mobilenet025")


def test_damaged_weights_are_refused():
    card = presets.load("mobilenet025_wider")
    card["weights"] = {**card["weights"], "sha256": "0" * 64}
    with pytest.raises(OSError, match=r"damaged: sha256 [0-9a-f]{64}, expected 0{64}"):
        presets.preset_weights(card)


def test_the_same_numbers_give_the_bytes_of_the_bundled_file(bundled_model):
    card = presets.load("mobilenet025_wider")
    content = presets.weights_bytes(bundled_model.variables)
    assert hashlib.sha256(content).hexdigest() == card["weights"]["sha256"]
    assert len(content) < 2_000_000


def test_weights_that_do_not_fit_are_all_named(bundled_model):
    other = RetinaFace(num_filters=8, anchors={"P4": (32,)})
    with pytest.raises(ValueError, match=r"left over .*context_P3") as caught:
        presets.read_weights(other.variables, presets.weights_bytes(bundled_model.variables))
    assert "\n" not in str(caught.value)


def test_folded_normalisation_does_nothing_but_add_its_bias(bundled_model):
    norm = bundled_model.get_layer("body_stage1_0").normalisation
    assert not norm.moving_mean.numpy().any()
    assert (norm.moving_variance.numpy() == 1).all()
    np.testing.assert_allclose(norm.gamma.numpy(), np.sqrt(1 + norm.epsilon), rtol=1e-6)
    assert norm.beta.numpy().any()


def test_a_folder_of_ones_own_is_a_preset(tmp_path):
    card = {"architecture": {"anchors": {"P5": [64]}, "num_filters": 8}, "recipe": {"config": {"epochs": 3}}}
    (tmp_path / "preset.json").write_text(json.dumps(card))
    assert presets.load(str(tmp_path))["recipe"] == card["recipe"]
    model = RetinaFace.from_preset(tmp_path, load_weights=False)
    assert model.anchor_generator.sizes == {"P5": (64.0,)}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[", "not JSON"),
        ("{}", "an object with 'architecture'"),
        ("[1]", "the content must be an object"),
        ('{"architecture": 1}', "`architecture` must be an object"),
        ('{"architecture": {"num_filters": 1000000000}}', "num_filters"),
        ('{"architecture": {"num_filter": 8}}', "has no field 'num_filter'"),
        ('{"architecture": {}, "weights": {"file": "../w.npz", "sha256": ""}}', r"weights\.file"),
        ('{"architecture": {}, "weights": {"file": "/etc/passwd", "sha256": ""}}', r"weights\.file"),
    ],
)
def test_a_card_that_can_not_be_used_is_refused_in_one_line(text, message, tmp_path):
    (tmp_path / "preset.json").write_text(text)
    with pytest.raises(ValueError, match=rf"preset\.json: .*{message}") as caught:
        presets.load(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_card_has_no_say_in_where_its_weights_are(tmp_path):
    card = {"name": "mobilenet025_wider", "architecture": {}, "weights": {"file": "w.npz", "sha256": "0" * 64}}
    (tmp_path / "preset.json").write_text(json.dumps(card))
    assert presets.load(tmp_path)["folder"] == tmp_path
    with pytest.raises(FileNotFoundError, match=r"w\.npz"):
        RetinaFace.from_preset(tmp_path)


@pytest.fixture
def own(tmp_path):
    """A small model, and the folder that it was saved to."""
    model = RetinaFace(anchors={"P5": [64]}, num_filters=8)
    model.save_to_preset(tmp_path / "own", "My model")
    return model, tmp_path / "own"


def test_save_to_preset_and_back(own, sample_photo):
    model, folder = own
    assert presets.load(folder)["description"] == "My model"
    again = RetinaFace.from_preset(folder)
    assert {**again.get_config(), "name": None} == {**model.get_config(), "name": None}
    for ours, theirs in zip(again.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    fresh = RetinaFace.from_preset(folder, load_weights=False)
    assert any((a != b).any() for a, b in zip(fresh.get_weights(), model.get_weights(), strict=True))
    assert RetinaFace.from_preset(folder, weights=False).count_params() == model.count_params()


def test_weights_that_are_not_finite_are_neither_written_nor_read(own):
    model, folder = own
    kernel = model.get_layer("face_head_P5").convolution.kernel
    kernel.assign(np.full(kernel.shape, np.nan))
    with pytest.raises(ValueError, match="face_head_P5/convolution/kernel are not finite"):
        model.save_to_preset(folder)
    kernel.assign(np.zeros(kernel.shape))
    content = bytearray(presets.weights_bytes(model.variables))
    place = content.index(b"face_head_P5/convolution/kernel.npy")
    start = content.index(b"\n", place) + 1
    content[start : start + 4] = np.array([np.nan], "<f4").tobytes()
    with pytest.raises(ValueError, match=r"damaged file .*CRC"):
        presets.read_weights(model.variables, bytes(content))


def archive(arrays):
    """An .npz of `{name: array}` as bytes, pickles allowed."""
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    return file.getvalue()


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((2, 3), "f4"), r"misshapen a: \(2, 3\) does not fit \(2, 2\)"),
        (np.array([[1, np.nan], [0, 0]]), "not finite a"),
        (np.array([[None, 1], [2, 3]]), "not floats: a of type object"),
        (np.zeros((10_000, 10_000), "f4"), "misshapen a"),  # 400 MB out of 400 KB: never read
    ],
)
def test_arrays_that_do_not_fit_are_refused_before_they_are_read(array, message):
    with pytest.raises(ValueError, match=message) as caught:
        presets.parse_weights(archive({"a": array}), {"a": (2, 2)})
    assert "pickle" not in str(caught.value)


def test_what_is_no_archive_is_refused_without_advice_to_allow_pickles():
    for content in (b"", b"hello", pickle.dumps([1]), archive({"a": np.zeros((2, 2))})[:-30]):
        with pytest.raises(ValueError, match=r"expected an \.npz of weights, found a damaged file") as caught:
            presets.parse_weights(content, {"a": (2, 2)})
        assert "pickle" not in str(caught.value).replace("Received", "")


def test_the_cards_are_at_the_class():
    assert RetinaFace.presets.keys() == set(presets.names())
    assert RetinaFace.presets["mobilenet025_wider"]["architecture"]["backbone"] == "mobilenet_v1_025"
