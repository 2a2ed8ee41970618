"""Many photos with boxes and landmarks on one picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from retinaface_tf.common.landmarks import NOT_LABELED, OCCLUDED
from retinaface_tf.image.drawing import BOX_COLOUR, LANDMARK_COLOURS
from retinaface_tf.image.letterbox import resized_size

BACKGROUND, TEXT, INVALID_COLOUR = (24, 24, 24), (225, 225, 225), (255, 120, 0)
CAPTION = 16  # pixels under a tile
GAP = 4


def contact_sheet(examples: Sequence[Mapping[str, np.ndarray]], columns: int = 6, tile: int = 300) -> Image.Image:
    """One picture of many labeled photos.

    Args:
        examples: list of dicts with `image` uint8 `[H, W, 3]`, `boxes` `[N, 4]` `xyxy` pixels of it, `landmarks`
            `[N, 5, 2]`, `visible` `[N, 5]`, and maybe `caption` str and `invalid` `[N]`. Put an example before and
            after augmentation side by side to compare them.
        columns: photos in a row.
        tile: side of the square for one photo, pixels.

    Returns:
        PIL image.
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
        pen.rectangle((*low, *high), outline=INVALID_COLOUR if invalid[face] == 1 else BOX_COLOUR)
        dot = max(1.0, 0.025 * (box[2] - box[0]))
        points = zip(example["landmarks"][face] * scale, example["visible"][face], LANDMARK_COLOURS, strict=True)
        for (x, y), state, colour in points:
            if state != NOT_LABELED:
                fill = None if state == OCCLUDED else colour
                pen.ellipse((x - dot, y - dot, x + dot, y + dot), outline=colour, fill=fill)
    return photo


def _shortened(text, font, width):
    """The text, without its beginning if it is too wide."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(f"…{text}") > width:
        text = text[1:]
    return f"…{text}"
