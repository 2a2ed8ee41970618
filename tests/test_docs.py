"""The pages: links that lead somewhere, code that runs or at least names what is there, options that exist."""

import argparse
import ast
import functools
import importlib.util
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from unittest.mock import patch
from urllib.parse import urlsplit

import pytest

ROOT = Path(__file__).resolve().parents[1]
FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
# Pages whose Python runs here, block after block, in a folder with photo.jpg.
EXECUTED = (
    *("README.md", "docs/quickstart.md", "docs/detect.md", "docs/crops.md"),
    *("docs/interop.md", "docs/migration.md", "docs/extend.md"),
)


def listed_pages():
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout.split()
    return sorted({name for name in names if (ROOT / name).is_file()})


PAGES = listed_pages()
pytestmark = pytest.mark.skipif(not PAGES, reason="not a git checkout: the list of pages comes from git")


def text_of(name):
    return (ROOT / name).read_text("utf-8")


def blocks(name, *languages):
    return [body for language, body in FENCE.findall(text_of(name)) if language in languages]


def anchors(name):
    """What a `#` may name: the headings of a page, as code hosts and MkDocs write them."""
    headings = re.findall(r"^#+ (.*)$", FENCE.sub("", text_of(name)), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_somewhere(name):
    for target in LINK.findall(FENCE.sub("", text_of(name))):
        parts = urlsplit(target)
        if parts.scheme:
            assert parts.scheme in ("http", "https") and "." in parts.netloc, target
            continue
        path = (ROOT / name).parent / parts.path if parts.path else ROOT / name
        assert path.is_file() and ROOT in path.resolve().parents, f"{name}: {target} leads nowhere"
        if parts.fragment:
            page = path.resolve().relative_to(ROOT).as_posix()
            assert parts.fragment in anchors(page), f"{name}: {target} is no heading of {page}"


@pytest.mark.parametrize("name", [name for name in PAGES if blocks(name, "python")])
def test_python_is_python_and_its_imports_are_there(name):
    for body in blocks(name, "python"):
        for node in ast.walk(ast.parse(body)):
            if not isinstance(node, ast.ImportFrom) or not node.module.startswith("retinaface_tf"):
                continue
            spec = importlib.util.find_spec(node.module)
            assert spec is not None, f"{name}: no module {node.module}"
            for alias in node.names:
                source = Path(spec.origin).read_text("utf-8")
                submodule = (
                    importlib.util.find_spec(f"{node.module}.{alias.name}") if spec.submodule_search_locations else None
                )
                assert submodule or re.search(rf"\b{alias.name}\b", source), (
                    f"{name}: {node.module} has no {alias.name}"
                )


@pytest.mark.parametrize("name", EXECUTED)
def test_python_runs(name, one_model, bundled_model, sample_photo, tmp_path, monkeypatch):
    from retinaface_tf.compat import pictures
    from retinaface_tf.inference.formats import FORMATS
    from retinaface_tf.network.backbones import BACKBONES

    if "supervision" in text_of(name):
        pytest.importorskip("supervision", reason="needs the extra `interop`")
    monkeypatch.chdir(tmp_path)
    shutil.copy(sample_photo, "photo.jpg")
    pictures.default_detector.cache_clear()
    names = {}
    with patch.dict(FORMATS), patch.dict(BACKBONES):  # a page may add an entry
        for body in blocks(name, "python"):
            exec(compile(body, name, "exec"), names)
    pictures.default_detector.cache_clear()


@functools.cache
def command_line():
    from retinaface_tf.cli.main import build_parser

    return build_parser()


def subparsers(parser):
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return action.choices
    return {}


def commands(name):
    """Every `retinaface-tf ...` of a page's blocks, fenced or indented, and of its other names: lists of words."""
    text = text_of(name)
    lines = [line for body in blocks(name, "bash", "sh", "") for line in re.sub(r"\\\n", " ", body).splitlines()]
    plain = re.sub(r"\\\n", " ", FENCE.sub("", text))
    lines += [line.strip() for line in plain.splitlines() if line.startswith("    ")]
    for line in lines:
        line = re.sub(r"^python -m retinaface_tf ", "retinaface-tf ", line)
        line = re.sub(r"^python train_tf\.py ", "retinaface-tf train ", line)
        if line.startswith("retinaface-tf "):
            yield shlex.split(re.split(r" [#|>] ?|[#|>]$| && ", line)[0].replace("…", "").replace("...", ""))


@pytest.mark.parametrize("name", [name for name in PAGES if list(commands(name))])
def test_options_exist(name):
    for words in commands(name):
        parser, rest = command_line(), words[1:]
        while rest and subparsers(parser):
            assert rest[0] in subparsers(parser) or rest[0].startswith("-"), f"{name}: {' '.join(words)}"
            parser, rest = subparsers(parser).get(rest[0], parser), rest[1:]
        known = {option: action for action in parser._actions for option in action.option_strings}
        for place, word in enumerate(rest):
            if not word.startswith("--"):
                continue
            option = word.partition("=")[0]
            assert option in known, f"{name}: {' '.join(words)} has no option {option}"
            value = rest[place + 1] if place + 1 < len(rest) else None
            if known[option].choices and value and not value.isupper():
                assert value in known[option].choices, f"{name}: {option} {value}"
        given = {word.partition("=")[0] for word in rest}
        for action in known.values():
            if action.required and "--help" not in given:
                assert given & set(action.option_strings), f"{name}: {' '.join(words)} lacks {action.option_strings[0]}"


def test_every_page_of_the_navigation_exists():
    """A page that is in no tab fails `make docs`."""
    named = re.findall(r": ([\w/]+\.md)$", (ROOT / "mkdocs.yml").read_text("utf-8"), re.MULTILINE)
    assert len(named) > 20
    for name in named:
        notebook = re.fullmatch(r"docs/notebooks/(\w+)\.md", name)
        assert (ROOT / "colab" / f"{notebook[1]}.ipynb" if notebook else ROOT / name).is_file(), name


def test_a_benchmark_replaces_its_own_section_only(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "docs" / "site"))
    performance = importlib.import_module("performance")
    page = tmp_path / "page.md"
    page.write_text("<!-- a -->\nold\n<!-- end of a -->\n<!-- b -->\n<!-- end of b -->\n")
    performance.write(page, "b", performance.section(["x.py"], "12 px\n| | ms |\n|---|---|\n| a | 1 |\n", 0.5))
    text = page.read_text()
    assert "<!-- a -->\nold\n<!-- end of a -->" in text and "| a | 1 |\n<!-- end of b -->" in text
    assert "`python x.py`" in text and "load 0.5 before" in text
    performance.write(page, "a", performance.section(["y.py"], "flat 7\n", 0.5))
    assert "old" not in page.read_text() and "```text\nflat 7\n```" in page.read_text()
    with pytest.raises(SystemExit, match="no section 'c'"):
        performance.write(page, "c", "")
    for name, (published, _) in performance.BENCHMARKS.items():
        assert f"<!-- end of {name} -->" in published.read_text("utf-8")
