"""The notebooks of colab/, executed, as pages with their outputs and pictures.

    python docs/site/notebooks.py            # into build/notebooks/, where `mkdocs build` finds them

A cell that fails ends it with that cell and its error, and exit code 1. Each runs in an empty folder.
"""

import base64
import os
import re
import shutil
import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build" / "notebooks"
TIMEOUT = 900  # seconds a cell, on a machine that is busy with other things
ANSI = re.compile(r"\x1b\[[0-9;]*m")


def main():
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    for path in sorted((ROOT / "colab").glob("*.ipynb")):
        folder = BUILD / path.stem
        shutil.rmtree(folder, ignore_errors=True)
        (folder / "run").mkdir(parents=True)
        start = time.perf_counter()
        notebook = nbformat.read(path, as_version=4)
        client = NotebookClient(notebook, timeout=TIMEOUT, resources={"metadata": {"path": str(folder / "run")}})
        try:
            client.execute()
        except (CellExecutionError, CellTimeoutError) as error:
            print(f"{path.name}: {ANSI.sub('', str(error))}", file=sys.stderr)
            return 1
        (folder / "page.md").write_text(to_markdown(notebook, path, folder), "utf-8")
        print(f"{path.name}: {time.perf_counter() - start:.0f} seconds")
    return 0


def to_markdown(notebook, path, folder):
    """The page of an executed notebook; its pictures are written into `folder`."""
    parts = []
    for number, cell in enumerate(notebook.cells):
        if cell.cell_type == "markdown":
            parts.append(cell.source)
            continue
        if cell.source.startswith("REPOSITORY"):
            continue  # the page has no field to fill in
        language = "bash" if cell.source.startswith("%%bash") else "python"
        parts.append(f"```{language}\n{cell.source}\n```")
        text = ""
        for index, output in enumerate(cell.outputs):
            if output.output_type == "stream":
                text += output.text if output.name == "stdout" else ""
            elif "image/png" in output.get("data", {}):
                name = f"{number}_{index}.png"
                (folder / name).write_bytes(base64.b64decode(output.data["image/png"]))
                parts += [_block(text), f"![What the cell above shows]({path.stem}/{name})"]
                text = ""
            elif "text/plain" in output.get("data", {}):
                text += output.data["text/plain"] + "\n"
        parts.append(_block(text))
    source = f"Executed when this page was built, from [the notebook](../../colab/{path.name})."
    title, _, rest = parts[0].partition("\n")
    rest = rest.partition("Run all cells from the top.")[0]
    return "\n\n".join(filter(None, [title, source, rest.strip(), *parts[1:]])) + "\n"


def _block(text):
    """Printed text as a block, as a terminal would show it: str, empty without any."""
    lines = [line.rsplit("\r", 1)[-1].rsplit("\x08", 1)[-1] for line in ANSI.sub("", text).strip("\n").split("\n")]
    return f'```text title="prints"\n{chr(10).join(line.rstrip() for line in lines)}\n```' if any(lines) else ""


if __name__ == "__main__":
    sys.exit(main())
