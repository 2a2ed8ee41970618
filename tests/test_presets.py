"""Presets as data: known by name, checked by hash, written to the same bytes each time."""

import hashlib
import json

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
            assert {"file", "sha256", "licence", "provenance", "scores"} <= card["weights"].keys()
            assert (presets.FOLDER / name / "README.md").is_file()
            assert (presets.FOLDER / name / "NOTICE").is_file()


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"mobilenet025_wider.*Received: 'mobilnet'"):
        RetinaFace.from_preset("mobilnet")


def test_a_preset_without_weights_says_so():
    with pytest.raises(ValueError, match=r"without weights. Pass weights=False.*mobilenet025_wider"):
        RetinaFace.from_preset("mobilenet025")


def test_damaged_weights_are_refused(bundled_model):
    card = presets.load("mobilenet025_wider")
    card["weights"] = {**card["weights"], "sha256": "0" * 64}
    with pytest.raises(OSError, match=r"damaged: sha256 [0-9a-f]{64}, expected 0{64}"):
        presets.assign_weights(bundled_model, card)


def test_the_same_numbers_give_the_bytes_of_the_bundled_file(bundled_model):
    card = presets.load("mobilenet025_wider")
    content = presets.weights_bytes(bundled_model)
    assert hashlib.sha256(content).hexdigest() == card["weights"]["sha256"]
    assert len(content) < 2_000_000


def test_weights_that_do_not_fit_are_all_named(bundled_model):
    other = RetinaFace(num_filters=8, anchors={"P4": (32,)})
    with pytest.raises(ValueError, match=r"left over .*context_P3") as caught:
        presets.read_weights(other, presets.weights_bytes(bundled_model))
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
    model = RetinaFace.from_preset(tmp_path, weights=False)
    assert model.anchor_generator.sizes == {"P5": (64.0,)}
    for text in ("[", "{}", "[1]", '{"architecture": 1}'):
        (tmp_path / "preset.json").write_text(text)
        with pytest.raises(ValueError, match=r"preset\.json: expected a JSON object with an `architecture`"):
            presets.load(str(tmp_path))
