"""Damaged graphs are refused in one line or find faces: no crash, no traceback (tests/hostile/crafted_graphs.py)."""

import importlib.util
from pathlib import Path

import pytest

from retinaface_tf import presets

pytestmark = pytest.mark.slow  # starts processes


@pytest.mark.parametrize("kind", ["tflite", "onnx"])
def test_damaged_graphs(kind, request):
    spec = importlib.util.spec_from_file_location("crafted", Path(__file__).parent / "hostile" / "crafted_graphs.py")
    crafted = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(crafted)
    bundled, _ = presets.artifacts(presets.load("mobilenet025_wider"))["tflite"]
    path = bundled if kind == "tflite" else request.getfixturevalue("bundled_onnx")
    outcomes = crafted.attack(path, 12)
    assert set(outcomes) <= set(crafted.HELD), outcomes
    assert outcomes["refused"] > 0
