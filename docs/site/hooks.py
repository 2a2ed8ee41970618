"""Build the site: pages from the whole repository at their own paths, executed notebooks, commands and the API.

Pages link to each other as files, so the links also work on a code host. MkDocs therefore sees the repository as its
root: docs/detect.md becomes docs/detect/ on the site, and README.md the first page.
"""

import argparse
import json
import re
import subprocess
from pathlib import Path

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[2]
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)\s]*)?\)")
NOTEBOOKS = ROOT / "build" / "notebooks"
PUBLIC = {  # heading -> where its docstring is
    "retinaface_tf.load": "retinaface_tf.loading.load",
    "retinaface_tf.RetinaFace": "retinaface_tf.detector.RetinaFace",
    "retinaface_tf.Detections": "retinaface_tf.inference.detections.Detections",
    "Detector": "retinaface_tf.inference.predictor.Detector",
    "retinaface_tf.align": "retinaface_tf.image.align.align",
    "retinaface_tf.train": "retinaface_tf.training.trainer.train",
    "retinaface_tf.evaluate": "retinaface_tf.evaluation.evaluate.evaluate",
    "retinaface_tf.export": "retinaface_tf.export.export",
    "retinaface_tf.verify": "retinaface_tf.export.certificate.verify",
}
SKIPPED = ("__init__", "__main__", "cli")  # modules without functions for users


def on_config(config):
    """Complete the tabs of generated pages."""
    tabs = {title: pages for tab in config["nav"] for title, pages in tab.items()}
    tabs["Commands"] += [{title: path} for path, title, _ in command_pages()]
    tabs["API"] += [{title: path} for path, title, _ in api_pages()]
    return config


def on_files(files, config):
    """In place of what lies in docs/: every page of the repository, what they link to, notebooks and API pages."""
    kept = [file for file in files if file.src_dir != config["docs_dir"]]  # the theme's
    documents = pages()
    linked = {target for page in documents for target in links(page) if target.suffix not in ("", ".md", ".ipynb")}
    styles = [Path(name) for name in config["extra_css"] if (ROOT / name).is_file()]
    kept += [_file(path, config) for path in [*documents, *sorted(linked), *styles]]
    for name in notebooks():
        folder = NOTEBOOKS / name
        if not (folder / "page.md").is_file():
            raise PluginError(f"{folder}: not executed yet. Run `make docs`, or docs/site/notebooks.py")
        kept.append(_file(Path("colab", f"{name}.ipynb"), config))
        kept.append(_generated(f"docs/notebooks/{name}.md", (folder / "page.md").read_text("utf-8"), config))
        for picture in sorted(folder.glob("*.png")):
            uri = f"docs/notebooks/{name}/{picture.name}"
            kept.append(File.generated(config, uri, abs_src_path=str(picture)))
    kept += [_generated(path, text, config) for path, _, text in [*command_pages(), *api_pages()]]
    return Files(kept)


def on_page_markdown(markdown, page, **_):
    """Links to notebooks lead to the executed ones; a page without a list at its side has no column for it."""
    if page.file.src_uri == "README.md":
        page.meta["hide"] = ["navigation"]
    if page.file.src_uri.startswith("docs/commands/"):
        page.meta["hide"] = ["toc"]
    if "/" in page.file.src_uri:
        return re.sub(r"\]\(\.\./colab/(\w+)\.ipynb\)", r"](notebooks/\1.md)", markdown)
    return re.sub(r"\]\(colab/(\w+)\.ipynb\)", r"](docs/notebooks/\1.md)", markdown)


def on_page_content(html, **_):
    """A name or option does not break at its hyphens; a short command does not break at all."""
    html = re.sub(r'<div class="highlight">.*?</div>', lambda block: _whole_options(block[0]), html, flags=re.DOTALL)
    html = re.sub(r"<code>([^<\n]{1,36})</code>", r'<code class="unbroken">\1</code>', html)
    return re.sub(r"<code>([^<\n]+)</code>", lambda code: f"<code>{_whole_words(code[1])}</code>", html)


def _whole_options(block):
    return re.sub(r"(?<![\w-])--[a-z][\w-]*", r'<span class="unbroken">\g<0></span>', block)


def _whole_words(code):
    return re.sub(r"(?<!\S)(?=\S*-)\S{1,36}(?!\S)", r'<span class="unbroken">\g<0></span>', code)


def pages():
    """Every page of the repository, as git lists it: list of Paths relative to its root."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    return sorted({Path(name) for name in names if (ROOT / name).is_file()})


def links(page):
    """Files of the repository that a page links to, or shows: set of Paths relative to its root."""
    targets = set()
    for target in LINK.findall((ROOT / page).read_text("utf-8")):
        path = (ROOT / page).parent / target
        if "://" not in target and path.is_file():
            targets.add(path.resolve().relative_to(ROOT))
    return targets


def notebooks():
    return [path.stem for path in sorted((ROOT / "colab").glob("*.ipynb"))]


def command_pages():
    """One page for each command, from its parser: list of (path, title, text)."""
    from retinaface_tf.cli.main import build_parser

    return [
        (f"docs/commands/{'_'.join(words)}.md", " ".join(words), _command_page(words, parser))
        for words, parser in _commands(build_parser())
    ]


def _commands(parser, words=()):
    """(words, parser) of each command below a parser."""
    groups = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    if not groups:
        yield words, parser
    for group in groups:
        for name, child in group.choices.items():
            yield from _commands(child, (*words, name))


def _command_page(words, parser):
    """A command's description, examples and options as Markdown."""
    examples, _, rest = (parser.epilog or "").partition("exit codes:")
    code = [line[2:] for line in examples.splitlines() if line.startswith("  ")]
    prose = [line for line in examples.splitlines() if not line.startswith((" ", "examples:"))]
    lines = [f"# retinaface-tf {' '.join(words)}", "", parser.description or "", ""]
    lines += ["```text", *code, "```", "", *prose, ""] if code else []
    lines += ["| option | meaning |", "|---|---|"]
    for action in parser._actions:
        if action.help == argparse.SUPPRESS:
            continue
        names = ", ".join(action.option_strings) or action.metavar or action.dest
        value = (
            ""
            if not action.option_strings or action.nargs == 0
            else f" {action.metavar or '{' + ', '.join(map(str, action.choices or [])) + '}'}"
        )
        text = (action.help or "") % {**vars(action), "prog": parser.prog}
        lines.append(f"| `{names}{value}` | {text.replace('|', chr(92) + '|')} |")
    lines += ["", f"Exit codes: {rest.strip()}"] if rest else []
    return "\n".join(lines) + "\n"


def api_pages():
    """The public names first, then one page for each part of the package: list of (path, title, text)."""
    text = "# Public names\n\n"
    for heading, path in PUBLIC.items():
        label = heading.rpartition(".")[2]
        text += f"::: {path}\n    options: {{heading: {heading}, toc_label: {label}}}\n\n"
    result = [("docs/api/public.md", "Public names", text)]
    parts = {}
    for path in sorted((ROOT / "retinaface_tf").glob("*/**/*.py")):
        relative = path.relative_to(ROOT / "retinaface_tf").with_suffix("")
        if not any(part in SKIPPED for part in relative.parts):
            parts.setdefault(relative.parts[0], []).append(".".join(("retinaface_tf", *relative.parts)))
    for part, modules in sorted(parts.items()):
        text = f"# {part}\n\n" + "".join(f"::: {module}\n{_without_public(module)}\n" for module in modules)
        result.append((f"docs/api/{part}.md", part, text))
    return result


def _without_public(module):
    """Options that leave out what stands on the page of public names: a name must have one place that is linked."""
    names = [name for one, _, name in (path.rpartition(".") for path in PUBLIC.values()) if one == module]
    return f"    options: {{filters: {json.dumps(['!^_', *(f'!^{name}$' for name in names)])}}}\n" if names else ""


def _file(path, config):
    return File(path.as_posix(), str(ROOT), config["site_dir"], config["use_directory_urls"])


def _generated(uri, text, config):
    return File.generated(config, uri, content=text)
