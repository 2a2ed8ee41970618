"""What anyone may call has type hints, and tools see them: `py.typed` is beside the package."""

import ast
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1] / "retinaface_tf"
LEAST = 0.9  # share of the public functions with every argument and the result hinted; mypy checks the hints themselves


def public_functions(tree, private=False):
    """Functions and methods that do not begin with a `_`, special methods included: yields `ast.FunctionDef`."""
    for node in tree.body:
        special = isinstance(node, ast.FunctionDef) and node.name.startswith("__")
        hidden = private or (getattr(node, "name", "").startswith("_") and not special)
        if isinstance(node, ast.ClassDef):
            yield from public_functions(node, hidden)
        elif isinstance(node, ast.FunctionDef) and not hidden:
            yield node


def is_hinted(function):
    arguments = function.args
    given = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg]
    bare = [a for a in given if a is not None and a.annotation is None and a.arg not in ("self", "cls")]
    return not bare and function.returns is not None


def test_public_functions_are_hinted():
    total, bare = 0, []
    for path in sorted(PACKAGE.rglob("*.py")):
        for function in public_functions(ast.parse(path.read_text("utf-8"))):
            total += 1
            if not is_hinted(function):
                bare.append(f"{path.relative_to(PACKAGE)}:{function.lineno} {function.name}")
    assert len(bare) <= (1 - LEAST) * total, "\n".join(bare)


def test_every_argument_counts():
    first, second, third, fourth = ast.parse(
        "def f(a: int) -> int: ...\ndef g(a) -> int: ...\ndef h(a: int): ...\ndef i(*b: int, c) -> int: ..."
    ).body
    assert [is_hinted(one) for one in (first, second, third, fourth)] == [True, False, False, False]


def test_tools_are_told():
    assert (PACKAGE / "py.typed").is_file()
