"""Pascal VOC: a folder with an XML file for each photo."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Container
from pathlib import Path

from retinaface_tf.annotations.annotations import Annotations, annotate_photo, join
from retinaface_tf.annotations.text import decode_text, parse_file, parse_numbers, parse_size, visible_files
from retinaface_tf.common.files import read_bytes

DECLARATION = re.compile(rb"""\s*<\?xml[^>]{0,200}?encoding=["']([A-Za-z0-9._-]{1,40})["']""")
ENCODINGS = (
    *("iso-8859-1", "iso-8859-15", "latin-1", "latin1", "us-ascii", "ascii", "windows-1250", "windows-1251"),
    *("windows-1252", "cp1252", "gbk", "gb2312", "gb18030", "big5", "shift_jis", "euc-jp", "euc-kr", "koi8-r"),
)
SIDES = ("xmin", "ymin", "xmax", "ymax")


def read_voc(folder: Path, images: Path | None, classes: Container[str]) -> Annotations:
    """Read xmin ymin xmax ymax as they are, without VOC's offset of 1, as annotation tools write them.

    `images` is not needed.
    """
    return join(_read_file(path, folder, classes) for path in visible_files(folder, ".xml"))


def _read_file(path, folder, classes):
    root = _parse(path)
    if root.tag != "annotation":
        raise ValueError(f"{path}: expected a Pascal VOC <annotation>, it is <{root.tag[:60]}>")
    below = path.parent.relative_to(folder)
    name = (root.findtext("filename") or "").strip() or f"{path.stem}.jpg"
    file = (below / parse_file(name, str(path))).as_posix()
    boxes, names = [], []
    for number, face in enumerate(root.iter("object"), 1):
        label = (face.findtext("name") or "").strip()
        if label in classes:
            words = [face.findtext(f"bndbox/{side}") for side in SIDES]
            boxes.append(parse_numbers(words, 4, f"{path}: object {number}: bndbox of {' '.join(SIDES)}"))
            names.append(label)
    size = parse_size([root.findtext(f"size/{side}") for side in ("width", "height")], f"{path}: size")
    return annotate_photo(file, boxes, classes=names, size=size)


def _parse(path):
    content = read_bytes(path)
    # Decoded here, since Python's parser takes any codec that a declaration names, such as rot13.
    declared = DECLARATION.match(content)
    encoding = declared[1].decode().lower() if declared else "utf-8"
    if encoding in ENCODINGS:
        text = decode_text(content, path, encoding)
    elif encoding.startswith("utf"):
        text = decode_text(content, path)
    else:
        raise ValueError(f"{path}: unknown encoding {encoding[:40]!r}. Save the file as UTF-8")
    text = text.lstrip()
    if text.startswith("<?xml"):
        text = text.partition("?>")[2]
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise ValueError(f"{path}: has a document type or entities, which no annotation tool writes")
    try:
        return ET.fromstring(text)
    except (ET.ParseError, ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not XML ({' '.join(str(error).split())[:100]})") from None
