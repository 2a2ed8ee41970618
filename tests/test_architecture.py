"""Who may import whom, and what the tree may not hold."""

import ast
import importlib
import os
import platform
import subprocess
import sys
from pathlib import Path

import keras
import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "retinaface_tf"
# Part -> the other parts that it may import; modules of a part see each other. `cli` may import anything,
# and nothing imports it; `integrations` and `compat` use the public names of `__init__` besides.
ARROWS = {
    "common": set(),
    "geometry": set(),
    "network": set(),
    "presets": {"common"},
    "image": {"common"},
    "annotations": {"common", "geometry"},
    # The branch hands its per-face fields to data, and label3d labels shards; data knows nothing of dense.
    "dense": {"common", "geometry", "annotations", "data"},
    "data": {"common", "geometry", "annotations"},
    "inference": {"common", "image", "dense"},
    "detector": {"common", "geometry", "network", "presets", "dense", "inference"},
    "layers": {"common", "detector", "dense", "geometry", "network"},
    "loading": {"common", "detector", "inference", "presets"},
    "evaluation": {"common", "annotations", "geometry", "image"},
    # Training reads recipes from the cards (presets), freezes and measures batch normalization (network), validates
    # on annotated photos (annotations) and draws what it finds (image).
    "training": {
        *("common", "geometry", "data", "detector", "evaluation", "dense"),
        *("presets", "network", "annotations", "image"),
    },
    # The exporters take the network apart (int8 begins after some layer) and read photos (calibration, certificates).
    "export": {"common", "geometry", "network", "image", "detector", "inference", "presets", "__init__"},  # its version
    "integrations": {"__init__", "common", "inference", "image"},
    "compat": {"__init__", "integrations", "image"},
    "__init__": {"common", "inference", "detector", "evaluation", "image", "loading", "training", "export"},
    "__main__": {"cli"},
}


def part_of(module):
    return module.split(".")[1] if "." in module else "__init__"


def imports(path):
    """Modules of ours that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("retinaface_tf"))
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            if node.module == "retinaface_tf":  # a public name is the package's own, anything else a part of it
                public = importlib.import_module("retinaface_tf").__all__
                yield from ("retinaface_tf" if a.name in public else f"retinaface_tf.{a.name}" for a in node.names)
            elif node.module and node.module.startswith("retinaface_tf."):
                yield node.module


FILES = sorted(PACKAGE.rglob("*.py"))


def arrows_of(path):
    """Parts that a file imports, its own left out: set of str."""
    own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    return {part_of(name) for name in imports(path)} - {own}


def test_arrows():
    wrong, used = set(), {part: set() for part in ARROWS}
    for path in FILES:
        relative = path.relative_to(PACKAGE)
        part = relative.parts[0].removesuffix(".py")
        if part == "cli":
            continue
        assert part in ARROWS, f"{part} has no place in the arrows"
        arrows = arrows_of(path)
        used[part] |= arrows
        wrong |= {(relative.as_posix(), target) for target in arrows - ARROWS[part]}
    assert wrong == set()
    unused = {part: ARROWS[part] - arrows for part, arrows in used.items()}
    assert {part: arrows for part, arrows in unused.items() if arrows} == {}, "permissions that nobody uses"


def test_no_utils_and_no_package_that_would_shadow_others():
    assert [p for p in ROOT.glob("**/utils.py") if ".venv" not in p.parts] == []
    for folder in ("datasets", "exports", "colab", "tests", "benchmarks"):
        assert not (ROOT / folder / "__init__.py").exists()


def test_every_sub_package_has_an_init():
    for path in FILES:
        assert (path.parent / "__init__.py").is_file()


def test_every_layer_is_registered_and_imported_by_layers():
    from retinaface_tf import layers

    found = set()
    for path in FILES:
        for node in ast.parse(path.read_text("utf-8")).body:
            bases = {ast.unparse(base) for base in getattr(node, "bases", [])}
            if bases & {"keras.layers.Layer", "keras.Model", *found}:
                module = importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))
                cls = getattr(module, node.name)
                assert keras.saving.get_registered_name(cls) == f"retinaface_tf>{node.name}"
                found.add(node.name)
    assert found == set(layers.__all__)


def test_the_package_alone_imports_no_tensorflow():
    modules = (
        "retinaface_tf",
        "retinaface_tf.inference.predictor",
        "retinaface_tf.presets",
        "retinaface_tf.image.align",
        "retinaface_tf.loading",
    )
    code = f"import sys, {', '.join(modules)}; print(sorted({{'tensorflow', 'keras'}} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.strip() == "[]", result.stderr


@pytest.mark.slow
@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="oneDNN is chosen on x86 alone")
@pytest.mark.parametrize("outside", [None, "0"])
def test_onednn_is_on_unless_the_user_says_otherwise(outside):
    name = "TF_ENABLE_ONEDNN_OPTS"
    code = f"import os, retinaface_tf; print(os.environ['{name}']); "  # where there is VNNI it is on without us
    code += "from tensorflow.python.util import _pywrap_util_port as p; print(p.IsMklEnabled())"
    own = {key: value for key, value in os.environ.items() if key != name}
    environment = own | ({} if outside is None else {name: outside})
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert result.stdout.split() == [outside or "1", str(outside is None)], result.stderr


def test_unknown_names_of_the_package_are_refused():
    import retinaface_tf

    with pytest.raises(AttributeError, match="has no attribute 'RetinaNet'"):
        _ = retinaface_tf.RetinaNet
    assert set(dir(retinaface_tf)) == set(retinaface_tf.__all__)
