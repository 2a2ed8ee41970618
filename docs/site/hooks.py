"""How the site comes together: pages from all over the repository at their own paths, notebooks, and the API.

The pages link to each other as files do, so they work on a code host as they are. MkDocs therefore sees the repository
as its root: docs/detect.md is docs/detect/ on the site, README.md its first page.
"""

import re
import subprocess
from pathlib import Path

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[2]
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)\s]*)?\)")
NOTEBOOKS = ROOT / "build" / "notebooks"
SKIPPED = ("__init__", "__main__", "cli", "commands", "command")  # of the package: what has no call for its users


def on_config(config):
    """Complete the navigation: pages that it forgot, and the API."""
    named = set(_leaves(config["nav"]))
    more = [str(path) for path in pages() if str(path) not in named]
    config["nav"] = [*config["nav"], {"More": more}] if more else config["nav"]
    config["nav"].append({"API": [{title: path} for path, title, _ in api_pages()]})
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
    kept += [_generated(path, text, config) for path, _, text in api_pages()]
    return Files(kept)


def on_page_markdown(markdown, page, **_):
    """On the site a link to a notebook leads to the executed one."""
    if "/" in page.file.src_uri:
        return re.sub(r"\]\(\.\./colab/(\w+)\.ipynb\)", r"](notebooks/\1.md)", markdown)
    return re.sub(r"\]\(colab/(\w+)\.ipynb\)", r"](docs/notebooks/\1.md)", markdown)


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


def api_pages():
    """One page for each part of the package, found by looking: list of (path, title, text)."""
    parts = {}
    for path in sorted((ROOT / "retinaface_tf").rglob("*.py")):
        relative = path.relative_to(ROOT / "retinaface_tf").with_suffix("")
        package = len(relative.parts) > 1 and relative.name == "__init__"
        if not package and any(part in SKIPPED for part in relative.parts):
            continue
        if package and (len(relative.parts) > 2 or any(part in SKIPPED[2:] for part in relative.parts)):
            continue
        relative = relative.parent if package else relative
        part = relative.parts[0] if (path.parent != ROOT / "retinaface_tf") else "Top level"
        parts.setdefault(part, []).append(".".join(("retinaface_tf", *relative.parts)))
    result = []
    for part in ["Top level", *sorted(set(parts) - {"Top level"})]:
        text = f"# {part}\n\n" + "\n\n".join(f"::: {module}" for module in parts[part]) + "\n"
        result.append((f"docs/api/{part.replace(' ', '_').lower()}.md", part, text))
    return result


def _file(path, config):
    return File(path.as_posix(), str(ROOT), config["site_dir"], config["use_directory_urls"])


def _generated(uri, text, config):
    return File.generated(config, uri, content=text)


def _leaves(nav):
    for entry in nav:
        if isinstance(entry, str):
            yield entry
        for value in entry.values() if isinstance(entry, dict) else ():
            yield from [value] if isinstance(value, str) else _leaves(value)
