"""The notebooks of colab/ as they lie in the repository; `make docs` executes them."""

import ast
import json
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow  # runs notebooks

NOTEBOOKS = sorted((Path(__file__).resolve().parents[1] / "colab").glob("*.ipynb"))
DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)


def cells(path, kind):
    return [cell for cell in json.loads(path.read_text("utf-8"))["cells"] if cell["cell_type"] == kind]


def python_of(cell):
    """A code cell's Python, without what only IPython understands: str, empty for a cell of another language."""
    source = "".join(cell["source"])
    if source.startswith("%%"):
        return ""
    return "".join(
        line.replace("%pip", "pass  #") if line.strip().startswith("%pip") else line
        for line in source.splitlines(keepends=True)
    )


def test_there_are_three():
    assert [path.stem for path in NOTEBOOKS] == ["detect_and_align", "export_and_deploy", "train_and_evaluate"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_outputs_are_stripped(path):
    for cell in cells(path, "code"):
        assert cell["outputs"] == [] and cell["execution_count"] is None, "strip the outputs before you commit"
    assert "kernelspec" in json.loads(path.read_text("utf-8"))["metadata"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_prose_and_calls_no_definitions(path):
    """What a notebook defines nobody else can use, and nobody tests."""
    for cell in cells(path, "code"):
        found = [type(node).__name__ for node in ast.walk(ast.parse(python_of(cell))) if isinstance(node, DEFINITIONS)]
        assert found == [], "".join(cell["source"])
    assert len(cells(path, "markdown")) >= len(cells(path, "code")) / 2


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_first_cell_of_code_installs_from_the_repository(path):
    first = "".join(cells(path, "code")[0]["source"])
    assert first.startswith('REPOSITORY = ""  # @param')
    assert '%pip install --quiet "retinaface-tf[' in first and "] @ git+{REPOSITORY}" in first
