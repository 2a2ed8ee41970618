"""Draw faces on a photo, blur them, or put many photos on one contact sheet, and write the picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from retinaface_tf.common.files import atomic_write
from retinaface_tf.common.types import NOT_LABELED, OCCLUDED, PathLike
from retinaface_tf.image.letterbox import resized_size

PICTURE_FORMATS = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG", ".webp": "WEBP"}
BOX_COLOR = (0, 230, 118)
MESH_COLOR = (120, 220, 255)
LANDMARK_COLORS = ((255, 64, 64), (64, 160, 255), (255, 220, 0), (255, 64, 255), (0, 255, 255))
BLUR_GROWTH = 0.15  # how far the blurred ellipse reaches beyond the box on each side, in sides of the box
BLUR_CELLS = 6  # cells that remain of a face's width


class Faces(Protocol):
    """The part of `Detections` that is drawn. `vertices` and `topology` may be `None`."""

    @property
    def boxes(self) -> np.ndarray: ...
    @property
    def scores(self) -> np.ndarray: ...
    @property
    def landmarks(self) -> np.ndarray: ...
    @property
    def vertices(self) -> np.ndarray | None: ...
    @property
    def topology(self) -> Any: ...


def draw(image: np.ndarray, detections: Faces, names: Sequence[str] | None = None) -> Image.Image:
    """The photo with boxes, scores, landmarks and, if there are any, meshes drawn on it.

    `names` has a text for each face, written before its score. Lines grow with the photo; faces with higher scores are
    drawn over those with lower ones.
    """
    picture = Image.fromarray(image)
    pen = ImageDraw.Draw(picture)
    unit = max(1, round(min(picture.size) / 400))
    names = [""] * len(detections.scores) if names is None else names
    meshes = [None] * len(detections.scores) if detections.vertices is None else detections.vertices
    columns = (detections.boxes.tolist(), detections.scores.tolist(), detections.landmarks.tolist(), names, meshes)
    for box, score, landmarks, name, mesh in reversed(list(zip(*columns, strict=True))):
        width = box[2] - box[0]
        pen.rectangle(box, outline=BOX_COLOR, width=unit if width < 100 * unit else 2 * unit)
        if mesh is not None:
            _draw_mesh(pen, mesh, detections.topology)
        dot = max(1.0, 0.02 * width)
        for (x, y), color in zip(landmarks, LANDMARK_COLORS, strict=True):
            pen.ellipse((x - dot, y - dot, x + dot, y + dot), fill=color)
        if width >= 24:
            font = ImageFont.load_default(size=max(10, min(0.22 * width, 12 * unit)))
            text = f"{name} {score:.2f}".strip()
            left, top, right, bottom = pen.textbbox((box[0], box[1]), text, font=font, anchor="lb")
            shift = max(0, -top)  # a face at the upper edge has its score inside the box
            pen.rectangle((left - unit, top + shift - unit, right + unit, bottom + shift + unit), fill=BOX_COLOR)
            pen.text((box[0], box[1] + shift), text, fill="black", font=font, anchor="lb")
    return picture


def _draw_mesh(pen, vertices, topology):
    """Draw a face's mesh as thin lines; without a topology its vertices as points."""
    flat = vertices[:, :2].tolist()
    if topology is None:
        pen.point([tuple(point) for point in flat], fill=MESH_COLOR)
        return
    for one, other in topology.edges.tolist():
        pen.line((*flat[one], *flat[other]), fill=MESH_COLOR)


def blur(image: np.ndarray, detections: Faces) -> Image.Image:
    """The photo with every face blurred beyond recognition.

    Each face is reduced to a few cells, which no sharpening brings back, and smoothed; the ellipse around it reaches
    a little beyond the box, over ears and chin.
    """
    picture = Image.fromarray(image)
    for box in detections.boxes:
        grow = BLUR_GROWTH * (box[2:] - box[:2])
        low = np.floor(box[:2] - grow).astype(int)
        high = np.ceil(box[2:] + grow).astype(int)
        (left, top), (right, bottom) = low.tolist(), high.tolist()
        patch = picture.crop((left, top, right, bottom))
        cells = (BLUR_CELLS, max(1, round(BLUR_CELLS * patch.height / patch.width)))
        hidden = patch.resize(cells, Image.Resampling.BOX).resize(patch.size, Image.Resampling.NEAREST)
        hidden = hidden.filter(ImageFilter.GaussianBlur(patch.width / BLUR_CELLS / 3))
        mask = Image.new("L", patch.size, 0)
        ImageDraw.Draw(mask).ellipse((0, 0, patch.width - 1, patch.height - 1), fill=255)
        picture.paste(hidden, (left, top), mask)
    return picture


def save_picture(picture: Image.Image, path: PathLike) -> None:
    """Write a PIL image atomically, without the metadata of the photo: a thumbnail would show blurred faces.

    Raises:
        ValueError: for a suffix that is not in `PICTURE_FORMATS`.
        OSError: if it can't be written.
    """
    kind = PICTURE_FORMATS.get(Path(path).suffix.lower())
    if kind is None:
        raise ValueError(f"pictures are saved as {', '.join(PICTURE_FORMATS)}. Received: {path}")
    with atomic_write(path, "wb") as file:
        picture.save(file, format=kind, quality=95)


BACKGROUND, TEXT, INVALID_COLOR = (24, 24, 24), (225, 225, 225), (255, 120, 0)
CAPTION = 16  # pixels under a tile
GAP = 4


def contact_sheet(examples: Sequence[Mapping[str, np.ndarray]], columns: int = 6, tile: int = 300) -> Image.Image:
    """One picture of many labeled photos, in tiles of `tile` pixels a side.

    Args:
        examples: list of dicts with `image` uint8 `[H, W, 3]`, `boxes` `[N, 4]` `xyxy` pixels of it, `landmarks`
            `[N, 5, 2]`, `visible` `[N, 5]`, and maybe `caption` str and `invalid` `[N]`. Put an example before and
            after augmentation side by side to compare them.
        columns: photos in a row.
        tile: side of the square for one photo, pixels.
    """
    columns = max(1, min(columns, len(examples)))
    rows = max(1, -(-len(examples) // columns))
    step_x, step_y = tile + GAP, tile + CAPTION + GAP
    sheet = Image.new("RGB", (columns * step_x + GAP, rows * step_y + GAP), BACKGROUND)
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=11)
    for number, example in enumerate(examples):
        left, top = GAP + number % columns * step_x, GAP + number // columns * step_y
        photo = draw_labels(example, tile)
        sheet.paste(photo, (left + (tile - photo.width) // 2, top + (tile - photo.height) // 2))
        caption = _shortened(example.get("caption", ""), font, tile)
        pen.text((left + tile // 2, top + tile + 1), caption, fill=TEXT, font=font, anchor="ma")
    return sheet


def draw_labels(example: Mapping[str, np.ndarray], side: int) -> Image.Image:
    """One photo, at most `side` pixels wide and high, with its labels: PIL image.

    Boxes are green, or orange where flagged as invalid; landmarks are dots, hollow where occluded, none where not
    labeled.
    """
    height, width = example["image"].shape[:2]
    # Never larger than four times, where pixels are seen already.
    height, width = resized_size(height, width, (4 * min(height, width), side))
    photo = Image.fromarray(np.asarray(example["image"])).resize((width, height), Image.Resampling.BILINEAR)
    scale = np.array([width / example["image"].shape[1], height / example["image"].shape[0]])
    pen = ImageDraw.Draw(photo)
    invalid = example.get("invalid", np.zeros(len(example["boxes"])))
    for face, box in enumerate(np.asarray(example["boxes"]) * np.tile(scale, 2)):
        low, high = box[:2].tolist(), np.maximum(box[2:] - 1, box[:2]).tolist()
        pen.rectangle((*low, *high), outline=INVALID_COLOR if invalid[face] == 1 else BOX_COLOR)
        dot = max(1.0, 0.025 * (box[2] - box[0]))
        points = zip(example["landmarks"][face] * scale, example["visible"][face], LANDMARK_COLORS, strict=True)
        for (x, y), state, color in points:
            if state != NOT_LABELED:
                fill = None if state == OCCLUDED else color
                pen.ellipse((x - dot, y - dot, x + dot, y + dot), outline=color, fill=fill)
    return photo


def _shortened(text, font, width):
    """The text, without its beginning if it is too wide."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(f"…{text}") > width:
        text = text[1:]
    return f"…{text}"
