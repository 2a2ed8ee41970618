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
# Part of the package -> the other parts that it may import. Modules of a part see each other.
ARROWS = {
    "config": {"config_checks"},
    "config_checks": set(),
    "types": set(),  # anything may import it
    "geometry": set(),
    "network": set(),
    "presets": set(),
    "detections": {"dense"},
    "files": set(),
    "quiet": set(),
    "extras": set(),
    "wording": set(),
    "dense": {"extras", "files", "types"},
    "image": {"geometry"},
    "drawing": {"detections"},
    "alignment": {"image"},
    "report": {"detections"},
    "crops": set(),
    "interop": {"crops", "detections", "extras", "image"},
    "compat": {"crops", "detections", "image", "interop", "runtimes"},
    "close_up": {"image"},
    "detect": {"close_up", "dense", "detections", "image"},
    "inference": {"geometry"},
    "detector": {
        "config",
        "dense",
        "detect",
        "detections",
        "geometry",
        "image",
        "inference",
        "network",
        "objective",
        "presets",
    },
    "objective": {"geometry", "network"},
    "layers": {"dense", "detector", "geometry", "network"},
    "data": {"dense", "drawing", "files", "geometry", "image", "quiet"},
    "training": {
        *("config", "dense", "geometry", "network", "data", "detector", "files", "presets"),
        *("image", "drawing", "detections"),
    },
    "evaluation": {"geometry", "data", "detector", "files", "wording"},
    "labelling": {"data", "evaluation", "files"},
    "export": {
        *("config", "dense", "detector", "detections", "geometry", "inference", "image", "files", "presets", "quiet"),
        *("evaluation", "network", "runtimes", "__init__"),  # the last for the version
    },
    "batch": {"files", "image", "presets", "quiet", "report", "runtimes", "__init__"},
    "runtimes": {"dense", "detect", "detections", "image", "files", "presets", "detector", "quiet", "extras"},
    "video": {"detections", "extras"},
    "serving": {"detect", "detections", "image"},
    "conversion": {"config", "detector", "network"},
}
# Commands turn words into calls, wherever they live: like the command line itself they may import anything.
FREE = {"cli", "commands", "__main__", "__init__"}


class _WithoutHints(ast.NodeTransformer):
    """Takes out what is imported for hints alone: nothing of it happens when the program runs."""

    def visit_If(self, node):
        return self.generic_visit(node) if ast.unparse(node.test) != "TYPE_CHECKING" else ast.Pass()


def part_of(module):
    return module.split(".")[1] if "." in module else "__init__"


def imports(path):
    """Modules of ours that a file imports, anywhere in it."""
    for node in ast.walk(_WithoutHints().visit(ast.parse(path.read_text("utf-8")))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("retinaface_tf"))
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            if node.module == "retinaface_tf":
                yield from (f"retinaface_tf.{alias.name}" for alias in node.names)
            elif node.module and node.module.startswith("retinaface_tf."):
                yield node.module


FILES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.relative_to(PACKAGE).as_posix())
def test_arrows(path):
    relative = path.relative_to(PACKAGE)
    part = relative.parts[0].removesuffix(".py")
    if part in FREE or "commands" in relative.parts or relative.name == "command.py" or relative.name == "commands.py":
        return
    assert part in ARROWS, f"{part} has no place in the arrows"
    homes = importlib.import_module("retinaface_tf")._HOMES
    for module in imports(path):
        target = part_of(module)
        target = part_of(homes[target]) if target in homes else target
        assert target in (part, "types", *ARROWS[part]), f"{relative} imports {module}"


def test_no_utils_and_no_package_that_would_shadow_others():
    assert [p for p in ROOT.glob("**/utils.py") if ".venv" not in p.parts] == []
    for folder in ("datasets", "exports", "colab", "tests", "benchmarks"):
        assert not (ROOT / folder / "__init__.py").exists()


def test_every_sub_package_has_an_init():
    for path in FILES:
        assert (path.parent / "__init__.py").is_file()


def test_no_file_holds_two_ideas():
    assert {p.name: n for p in FILES if (n := len(p.read_text("utf-8").splitlines())) > 300} == {}


def test_every_layer_is_registered_and_imported_by_layers():
    from retinaface_tf import layers

    found = set()
    for path in FILES:
        for node in ast.parse(path.read_text("utf-8")).body:
            bases = {ast.unparse(base) for base in getattr(node, "bases", [])}
            if bases & {"keras.layers.Layer", "keras.Model"}:
                module = importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))
                cls = getattr(module, node.name)
                assert keras.saving.get_registered_name(cls) == f"retinaface_tf>{node.name}"
                found.add(node.name)
    assert found == set(layers.__all__)


def test_the_package_alone_imports_no_tensorflow():
    for module in (
        "retinaface_tf",
        "retinaface_tf.detect",
        "retinaface_tf.presets",
        "retinaface_tf.alignment",
        "retinaface_tf.runtimes",
    ):
        code = f"import sys, {module}; print(sorted({{'tensorflow', 'keras'}} & set(sys.modules)))"
        result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert result.stdout.strip() == "[]", (module, result.stderr)


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
