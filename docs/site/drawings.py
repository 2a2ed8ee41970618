"""Draw the pictures of docs/concepts.md from the results of the package's own classes.

    python docs/site/drawings.py             # into docs/pictures/

The pictures are in the repository. Run this again when anchors, matching or the network change.
"""

import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import tensorflow as tf
from matplotlib.patches import FancyBboxPatch, Rectangle
from PIL import Image

from retinaface_tf import RetinaFace, align
from retinaface_tf.geometry.matcher import match_by_atss, match_by_iou
from retinaface_tf.image.letterbox import fit
from retinaface_tf.network.context_module import ContextModule

ROOT = Path(__file__).resolve().parents[2]
PICTURES = ROOT / "docs" / "pictures"
PHOTO = ROOT / "retinaface_tf" / "samples" / "astronaut.jpg"
COLORS = {"P3": "#e5484d", "P4": "#0b8f6a", "P5": "#3b6fd4"}
SIDE = 640


def main():
    plt.rcParams.update({"font.size": 10, "svg.hashsalt": "retinaface_tf", "savefig.bbox": "tight"})
    model = RetinaFace.from_preset("mobilenet025_wider")
    photo = np.asarray(Image.open(PHOTO))
    draw_anchors(model, photo)
    draw_matching(model)
    draw_network(RetinaFace.from_preset("mobilenet025", load_weights=False))
    draw_context()
    draw_suppression(model, photo)
    draw_alignment(model, photo)
    draw_letterbox(model, photo)


def draw_anchors(model, photo):
    """Left: the anchors of one place. Right: those that answer for the face, by `match_by_iou`."""
    generator, (height, width) = model.anchor_generator, photo.shape[:2]
    anchors = generator(height, width).numpy()
    levels = np.repeat(list(generator.sizes), generator.level_counts(height, width))
    box = model.detect(photo).boxes
    matched = match_by_iou(anchors, box[None]).numpy()[0] == 0
    centers = (anchors[:, :2] + anchors[:, 2:]) / 2
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 5))
    for axes, title in ((left, "anchors of the cells in the middle"), (right, f"{matched.sum()} anchors for one face")):
        axes.imshow(photo, alpha=0.55)
        axes.set(xlim=(-20, width + 20), ylim=(height + 20, -20), xticks=[], yticks=[])
        axes.set_title(title, fontsize=10)
    for level in generator.sizes:
        on_level = levels == level
        middle = centers[on_level][np.abs(centers[on_level] - width / 2).sum(axis=1).argmin()]
        here = on_level & (centers == middle).all(axis=1)
        for shown, axes in ((here, left), (matched & on_level, right)):
            for x1, y1, x2, y2 in anchors[shown]:
                axes.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, color=COLORS[level], lw=1.5))
        sizes = " and ".join(f"{size:g}" for size in generator.sizes[level])
        left.plot([], [], color=COLORS[level], label=f"{level}: {sizes} px every {generator.strides[level]} px")
    left.legend(loc="lower right", fontsize=8)
    x1, y1, x2, y2 = box[0]
    right.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, color="white", lw=2.5))
    _save(figure, "anchors.jpg")


def draw_matching(model):
    """How many anchors a face gets, by its size, over random places in an image of 640 x 640 pixels."""
    generator = model.anchor_generator
    anchors, counts = generator(SIDE, SIDE), generator.level_counts(SIDE, SIDE)
    random, sizes = np.random.default_rng(0), np.geomspace(6, 560, 60)
    rules = {
        "IoU 0.35, best anchor forced (bb6)": lambda boxes: match_by_iou(anchors, boxes),
        "IoU 0.35 alone": lambda boxes: match_by_iou(anchors, boxes, forced_iou=None),
        "IoU 0.5 / 0.3 (paper)": lambda boxes: match_by_iou(anchors, boxes, 0.5, 0.3, None),
        "ATSS, k = 9": lambda boxes: match_by_atss(anchors, boxes, counts),
    }
    figure, axes = plt.subplots(figsize=(7, 3.6))
    for (name, rule), style in zip(rules.items(), ("-", ":", "--", "-."), strict=True):
        means = []
        for size in sizes:
            side = np.array([size / 1.1, size * 1.1])  # a face is higher than wide
            corner = random.uniform(0, np.maximum(1, SIDE - side), (64, 2))
            boxes = np.concatenate([corner, corner + side], axis=1).astype("float32")[:, None]
            means.append((rule(boxes).numpy() == 0).sum(axis=1).mean())
        axes.plot(sizes, means, style, label=name)
    for level, level_sizes in generator.sizes.items():
        for size in level_sizes:
            axes.axvline(size, color=COLORS[level], lw=0.7, alpha=0.6)
    axes.set(
        xscale="log",
        yscale="log",
        ylim=(0.03, 300),
        xlabel="side of the face in pixels (vertical lines: anchor sizes)",
        ylabel="mean number of anchors per face",
    )
    axes.set_xticks([8, 16, 32, 64, 128, 256, 512], [8, 16, 32, 64, 128, 256, 512])
    axes.minorticks_off()
    axes.legend(fontsize=8)
    _save(figure, "matching.svg")


def draw_network(model):
    """The maps of an image of 640 x 640 pixels on their way, with the shapes that the layers state."""
    shape = (1, SIDE, SIDE, 3)
    pyramid = model.get_layer("pyramid")
    levels = tuple(model.anchor_generator.sizes)
    body = keras.tree.flatten(pyramid.input)[-len(levels) :]  # C2 comes first, where the pyramid leaves it alone
    maps = {
        **dict(zip((f"C{level[1]}" for level in levels), body, strict=True)),
        **dict(zip(levels, keras.tree.flatten(pyramid.output), strict=True)),
        **{f"context {level}": model.get_layer(f"context_{level}").output for level in levels},
    }
    answers = keras.Model(model.input, maps)(np.zeros(shape, "float32"))
    shapes = {name: tuple(value.shape[1:]) for name, value in answers.items()}
    counts = dict(zip(levels, model.anchor_generator.level_counts(SIDE, SIDE), strict=True))
    figure, axes = plt.subplots(figsize=(10, 4.2))
    axes.set(xlim=(0, 10), ylim=(0, 4.4))
    axes.axis("off")
    for x, title in ((1.9, "backbone"), (4.3, "pyramid"), (6.5, "context module"), (8.8, "heads")):
        axes.text(x, 4.15, title, ha="center", weight="bold")
    _box(axes, 0.45, 0.7, "image", shape[1:], "#bbbbbb")
    previous = (0.45, 0.7)
    for row, level in enumerate(reversed(levels)):
        y = 3.4 - 1.35 * row
        _box(axes, 1.9, y, f"C{level[1]}", shapes[f"C{level[1]}"], COLORS[level])
        _box(axes, 4.3, y, level, shapes[level], COLORS[level])
        _box(axes, 6.5, y, "3x3, 5x5, 7x7", shapes[f"context {level}"], COLORS[level])
        _box(axes, 8.8, y, f"{counts[level]:,} anchors", "face 2, box 4, landmarks 10", COLORS[level], width=1.9)
        for start, end in ((1.9, 4.3), (4.3, 6.5), (6.5, 8.8)):
            _arrow(axes, (start + 0.72, y), (end - (0.72 if end < 8 else 0.98), y))
        if row:
            _arrow(axes, (4.3, y + 1.0), (4.3, y + 0.33))
            axes.text(4.38, y + 0.66, "up-sampled, added", fontsize=8, va="center")
    for low, high in ((0.7, 2.05), (2.05, 3.4)):
        _arrow(axes, (1.9, low + 0.33), (1.9, high - 0.33))
    _arrow(axes, (previous[0] + 0.42, previous[1]), (1.9 - 0.72, previous[1]))
    total, parameters = sum(counts.values()), sum(int(np.prod(w.shape)) for w in model.trainable_weights)
    axes.text(9.8, 0.1, f"{total:,} anchors, {parameters:,} parameters", ha="right", fontsize=9)
    _save(figure, "network.svg")


def draw_context():
    """What one cell of the context module's output sees: gradients of the layer itself, all kernels alike."""
    layer = ContextModule(4, negative_slope=1.0)
    x = tf.Variable(tf.ones((1, 11, 11, 1)))
    layer(x)
    for variable in layer.trainable_variables:
        if variable.name == "kernel":
            variable.assign(tf.ones_like(variable) / variable.shape[2])
    figure, panels = plt.subplots(1, 3, figsize=(8, 3))
    # Channels: the first half sees 3x3, then a quarter each 5x5 and 7x7.
    for axes, channel, name in zip(panels, (0, 2, 3), ("half of the channels", "a quarter", "a quarter"), strict=True):
        with tf.GradientTape() as tape:
            value = layer(x, training=False)[0, 5, 5, channel]
        seen = tape.gradient(value, x).numpy()[0, ..., 0]
        side = int((seen[5] > 0).sum())
        axes.imshow(np.where(seen > 0, seen, np.nan), cmap="viridis_r")
        axes.set(xticks=np.arange(-0.5, 11), yticks=np.arange(-0.5, 11), xticklabels=[], yticklabels=[])
        axes.grid(color="#dddddd", lw=0.6)
        axes.tick_params(length=0)
        axes.set_title(f"{name}: {side} x {side}", fontsize=10)
    _save(figure, "context.svg")


def draw_suppression(model, photo):
    """Every candidate above 0.3, and what non-maximum suppression keeps."""
    every = model.detect(photo, score_threshold=0.3, nms_threshold=1.0, close_ups=False)
    kept = model.detect(photo, score_threshold=0.3, close_ups=False)
    figure, panels = plt.subplots(1, 2, figsize=(8, 4))
    for axes, faces, title in zip(panels, (every, kept), ("candidates above 0.3", "after NMS"), strict=True):
        axes.imshow(photo)
        axes.set(xlim=(130, 330), ylim=(220, 20), xticks=[], yticks=[])
        axes.set_title(f"{len(faces)} {title}", fontsize=10)
        for box, score, points in zip(faces.boxes, faces.scores, faces.landmarks, strict=True):
            x1, y1, x2, y2 = box
            color = plt.cm.viridis(score)
            axes.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, color=color, lw=1))
            axes.plot(*points.T, ".", color=color, ms=3)
    _save(figure, "suppression.jpg")


def draw_alignment(model, photo):
    """Photos rotated by some angles, and the crops that `align` makes of them."""
    figure, panels = plt.subplots(2, 4, figsize=(8, 4.2))
    for (above, below), angle in zip(panels.T, (0, 25, -25, 40), strict=True):
        turned = np.asarray(Image.fromarray(photo).rotate(angle, Image.Resampling.BICUBIC, fillcolor=(123, 117, 104)))
        (points,) = model.detect(turned).landmarks[:1]
        above.imshow(turned)
        above.plot(*points.T, "o", color="#00e676", ms=2.5)
        below.imshow(align(turned, points))
        for axes in (above, below):
            axes.set(xticks=[], yticks=[])
        above.set_title(f"rotated by {angle} degrees", fontsize=9)
    _save(figure, "alignment.jpg")


def draw_letterbox(model, photo):
    """A photo, its canvas of 320 x 320, and the box found there restored to the photo."""
    photo = photo[:384]
    box = fit(photo, (320, 320), [round(mean) for mean in model.pixel_mean])
    found = model.detect(box.canvas, close_ups=False).boxes[:1]
    restored = box.restore(found.reshape(-1, 2)).reshape(-1, 4)
    (height, width), scale = photo.shape[:2], float(box.scale[0])
    ratios = [width, 320, width]  # all three at one scale
    figure, panels = plt.subplots(1, 3, figsize=(11, 11 * height / sum(ratios)), width_ratios=ratios)
    titles = (f"photo, {width} x {height}", f"canvas, 320 x 320 (scale {scale:.3f})", f"box divided by {scale:.3f}")
    for axes, picture, boxes, title in zip(
        panels, (photo, box.canvas, photo), ([], found, restored), titles, strict=True
    ):
        axes.imshow(picture)
        for x1, y1, x2, y2 in boxes:
            axes.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, color="#00e676", lw=2))
        axes.set(xticks=[], yticks=[], anchor="N")
        axes.set_title(title, fontsize=9)
    _save(figure, "letterbox.jpg")


def _box(axes, x, y, title, shape, color, width=1.4):
    text = shape if isinstance(shape, str) else " x ".join(str(size) for size in shape)
    width = 0.8 if title == "image" else width
    patch = FancyBboxPatch((x - width / 2, y - 0.28), width, 0.56, boxstyle="round,pad=0.03", fc=color, alpha=0.25)
    axes.add_patch(patch)
    axes.text(x, y + 0.1, title, ha="center", va="center", fontsize=9)
    axes.text(x, y - 0.12, text, ha="center", va="center", fontsize=7)


def _arrow(axes, start, end):
    axes.annotate("", end, start, arrowprops={"arrowstyle": "->", "color": "#555555"})


def _save(figure, name):
    options = {"metadata": {"Date": None}} if name.endswith(".svg") else {"dpi": 110, "pil_kwargs": {"quality": 85}}
    figure.savefig(PICTURES / name, facecolor="white", **options)
    plt.close(figure)
    print(PICTURES / name)


if __name__ == "__main__":
    main()
