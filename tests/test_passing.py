"""How values are passed: no parsed words outside the command line, no untyped model that is taken apart."""

import ast
import configparser
import re
from pathlib import Path

from retinaface_tf.common.imports import install_hint

PACKAGE = Path(__file__).resolve().parents[1] / "retinaface_tf"
MOST_ATTRIBUTES = 3  # of an untyped model


def functions(path):
    """(where, function) of every function and lambda of a file."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield f"{path.relative_to(PACKAGE)}:{node.lineno}", node


def arguments(function):
    given = function.args
    return [*given.posonlyargs, *given.args, *given.kwonlyargs]


def attributes_read(function, name):
    """The attributes of an argument that a function reads: set of str."""
    return {
        node.attr
        for node in ast.walk(function)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == name
    }


def takes_args(function):
    return any(argument.arg == "args" for argument in arguments(function))


def takes_model_apart(function):
    untyped = [
        argument
        for argument in arguments(function)
        if argument.arg == "model" and (argument.annotation is None or ast.unparse(argument.annotation) == "Any")
    ]
    return bool(untyped) and len(attributes_read(function, "model")) > MOST_ATTRIBUTES


def test_no_function_outside_the_command_line_takes_args():
    wrong = [
        where
        for path in sorted(PACKAGE.rglob("*.py"))
        if path.relative_to(PACKAGE).parts[0] != "cli"
        for where, function in functions(path)
        if takes_args(function)
    ]
    assert wrong == []


def test_nobody_makes_up_parsed_words():
    wrong = [
        path.name for path in sorted(PACKAGE.rglob("*.py")) if re.search(r"\bNamespace\(", path.read_text("utf-8"))
    ]
    assert wrong == []


def test_no_function_reads_many_attributes_of_an_untyped_model():
    wrong = [
        where
        for path in sorted(PACKAGE.rglob("*.py"))
        for where, function in functions(path)
        if takes_model_apart(function)
    ]
    assert wrong == []


def test_the_rules_see_what_they_forbid():
    code = """
def f(args): ...
def g(*args): ...
lambda args: 0
def four(model): return model.a, model.b, model.c, model.d
def three(model): return model.a, model.b, model.c, model.a
def typed(model: RetinaFace): return model.a, model.b, model.c, model.d
def untyped(model: Any): return model.a(model.b), model.c, model.d
"""
    nodes = [n for n in ast.walk(ast.parse(code)) if isinstance(n, ast.FunctionDef | ast.Lambda)]
    named = {getattr(node, "name", "lambda"): node for node in nodes}
    assert {name for name, node in named.items() if takes_args(node)} == {"f", "lambda"}
    assert {name for name, node in named.items() if takes_model_apart(node)} == {"four", "untyped"}


def test_install_hints_come_from_one_place():
    wrong = [
        path.relative_to(PACKAGE).as_posix()
        for path in sorted(PACKAGE.rglob("*.py"))
        if "pip install 'retinaface-tf" in path.read_text("utf-8")
    ]
    assert wrong == ["common/imports.py"]


def test_an_install_hint_works_from_an_index_and_from_a_clone():
    assert install_hint("onnx") == "pip install 'retinaface-tf[onnx]', or in a clone pip install -e '.[onnx]'"
    config = configparser.ConfigParser()
    config.read(PACKAGE.parent / "setup.cfg")
    extras = set(config["options.extras_require"])
    code = "".join(path.read_text("utf-8") for path in PACKAGE.rglob("*.py"))
    assert set(re.findall(r"install_hint\(['\"](\w+)['\"]\)", code)) <= extras
