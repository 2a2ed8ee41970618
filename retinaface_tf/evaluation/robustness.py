"""AP on rotated, compressed, noisy and small photos, and by face size and flag.

A `Corruption` is used like a protocol: `views` shows the corrupted photo, `merge` brings its detections back.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from retinaface_tf.common.text import pluralize
from retinaface_tf.common.types import PathLike
from retinaface_tf.evaluation.detection_files import ImageDetections, read_detections
from retinaface_tf.evaluation.protocols import by_score, rescale
from retinaface_tf.evaluation.runner import run_detector
from retinaface_tf.evaluation.widerface import (
    ap_by_flag,
    ap_by_height,
    bootstrap_ap,
    match,
    percent,
    subset_ap,
    without_nan,
)

if TYPE_CHECKING:
    from retinaface_tf.annotations.annotations import Annotations


@dataclass(frozen=True)
class Corruption:
    """One kind at one strength.

    Attributes:
        kind: `none`, `rotation` (degrees counter-clockwise, a multiple of 90), `jpeg` (quality 1 to 95), `noise`
            (standard deviation in gray levels of 255) or `scale` (factor on both sides).
        strength: Number.
    """

    kind: str
    strength: float = 0

    num_views = 1

    def __post_init__(self) -> None:
        allowed = {
            "none": self.strength == 0,
            "rotation": self.strength in (90, 180, 270),
            "jpeg": 1 <= self.strength <= 95,
            "noise": self.strength > 0,
            "scale": self.strength > 0,
        }
        if not allowed.get(self.kind, False):
            raise ValueError(f"no corruption {self.kind!r} of strength {self.strength}. Kinds: {list(allowed)}")

    @property
    def name(self) -> str:
        return self.kind if self.kind == "none" else f"{self.kind} {self.strength:g}"

    def views(self, image: np.ndarray) -> list[np.ndarray]:
        """List of the one corrupted image, uint8 `[h, w, 3]`."""
        if self.kind == "rotation":
            return [np.ascontiguousarray(np.rot90(image, int(self.strength) // 90))]
        if self.kind == "jpeg":
            file = io.BytesIO()
            Image.fromarray(image).save(file, "JPEG", quality=int(self.strength))
            return [np.asarray(Image.open(file).convert("RGB"))]
        if self.kind == "noise":
            # Seeded by the photo: the same noise in every run, batch and order.
            rng = np.random.default_rng(zlib.crc32(np.ascontiguousarray(image).data))
            noisy = image + rng.normal(0, self.strength, image.shape)
            return [np.clip(np.round(noisy), 0, 255).astype(np.uint8)]
        if self.kind == "scale":
            height, width = image.shape[:2]
            size = max(1, round(width * self.strength)), max(1, round(height * self.strength))
            return [np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR))]
        return [image]

    def merge(
        self, image_shape: tuple[int, ...], view_shapes: Sequence[tuple[int, ...]], found: Sequence[Any]
    ) -> ImageDetections:
        """Detections in the photo's pixels, scores falling; landmarks keep the names they have on the face."""
        (shape,), (each,) = view_shapes, found
        if self.kind == "rotation":
            each = _turn_back(each, image_shape, int(self.strength) // 90)
        else:
            each = rescale(each, image_shape[1] / shape[1], image_shape[0] / shape[0])
        return by_score(each)


CORRUPTIONS = (
    Corruption("none"),
    *(Corruption("rotation", degrees) for degrees in (90, 180, 270)),
    *(Corruption("jpeg", quality) for quality in (50, 20, 10, 5)),
    *(Corruption("noise", sigma) for sigma in (10, 20, 40)),
    *(Corruption("scale", factor) for factor in (0.75, 0.5, 0.25)),
)


def _turn_back(detections, image_shape, quarters):
    """Undo `np.rot90(image, quarters)`, which turns counter-clockwise: x, y of the view to x, y of the photo."""
    height, width = image_shape[:2]

    def back(points):
        x, y = points[..., 0], points[..., 1]
        if quarters == 1:
            x, y = width - y, x
        elif quarters == 2:
            x, y = width - x, height - y
        elif quarters == 3:
            x, y = y, height - x
        return np.stack([x, y], axis=-1)

    corners = back(np.asarray(detections.boxes, np.float64).reshape(-1, 2, 2))
    boxes = np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)
    points = detections.landmarks
    points = None if points is None else back(np.asarray(points, np.float64))
    return ImageDetections(boxes, np.asarray(detections.scores, np.float64), points)


def corruption_folder(directory: PathLike, corruption: Corruption) -> Path:
    """Where one corruption's detections are: `directory/rotation_90`."""
    return Path(directory) / corruption.name.replace(" ", "_")


def choose_corruptions(kinds: Sequence[str] | None = None) -> list[Corruption]:
    """The corruptions of some kinds, the photo as it is before them; `None` for all."""
    return [one for one in CORRUPTIONS if not kinds or one.kind in ("none", *kinds)]


def photos_with_results(
    annotations: Annotations, directory: PathLike, corruptions: Sequence[Corruption] = CORRUPTIONS
) -> Annotations:
    """The photos that were run: a missing one says nothing about robustness.

    Raises:
        FileNotFoundError: There are none.
    """
    first = corruption_folder(directory, corruptions[0])
    present = [name for name in annotations.names if (first / f"{name}.txt").is_file()]
    if not present:
        raise FileNotFoundError(f"no result files in {first}: name a model and --images to make them")
    return annotations.only(present)


def run_corruptions(
    detect: Callable[[Any], Any],
    photos: Mapping[str, PathLike],
    directory: PathLike,
    *,
    corruptions: Sequence[Corruption] = CORRUPTIONS,
    **options: Any,
) -> None:
    """Run a detector under every corruption, each in a folder of its own, resumably. Options: see `run_detector`."""
    for corruption in corruptions:
        run_detector(detect, photos, corruption_folder(directory, corruption), protocol=corruption, **options)


def report_robustness(
    annotations: Annotations,
    directory: PathLike,
    *,
    corruptions: Sequence[Corruption] = CORRUPTIONS,
    resamples: int = 0,
) -> dict[str, Any]:
    """One table from the folders that `run_corruptions` wrote.

    The first corruption is what the others are compared with; `resamples` are the bootstrap draws for the intervals.

    Returns:
        JSON-ready dict: `corruptions`, a list of `name`, `ap` by subset and `change` of the AP over all faces in
        points of AP; `by_height` and `by_flag` of the first corruption.
    """
    every = np.ones(len(annotations.boxes), bool)
    keeps = {"all": every, **annotations.subsets}
    rows: list[dict[str, Any]] = []
    clean: Any = None
    for corruption in corruptions:
        detections = read_detections(corruption_folder(directory, corruption), annotations.names)
        matching = match(annotations, detections)
        clean = matching if clean is None else clean
        ap = {name: subset_ap(matching, keep) for name, keep in keeps.items()}
        row = {"name": corruption.name, "ap": ap, "change": ap["all"] - (rows[0]["ap"]["all"] if rows else ap["all"])}
        if resamples:
            row["interval_95"] = bootstrap_ap(annotations, matching, keeps["all"], resamples=resamples)
        rows.append(row)
    return without_nan(
        {
            "photos": len(annotations.names),
            "faces": {name: int(keep.sum()) for name, keep in keeps.items()},
            "corruptions": rows,
            "by_height": ap_by_height(annotations, clean),
            "by_flag": ap_by_flag(annotations, clean),
        }
    )


def format_robustness(report: dict[str, Any]) -> str:
    """The report as one aligned table."""
    subsets = list(report["faces"])
    lines = [f"{pluralize(report['photos'], 'photo')}; AP in percent, change of the AP over all faces"]
    lines.append(f"{'photo':<24}" + "".join(f"{name:>9}" for name in subsets) + f"{'change':>9}")
    for row in report["corruptions"]:
        cells = "".join(f"{percent(row['ap'][name]):>9}" for name in subsets)
        interval = row.get("interval_95")
        end = f"   95 % interval {percent(interval[0])}-{percent(interval[1])}" if interval else ""
        change = "-" if row["change"] is None else f"{100 * row['change']:+.2f}"
        lines.append(f"{row['name']:<24}{cells}{change:>9}{end}")
    lines += ["", f"{'faces, photo as it is':<24}{'faces':>9}{'AP':>9}"]
    for label, row in breakdown_rows(report).items():
        lines.append(f"{label:<24}{row['faces']:>9}{percent(row['ap']):>9}")
    return "\n".join(lines)


def breakdown_rows(report: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Label -> row with `faces` and `ap`: by height, then by blur, occlusion and pose."""
    rows = {}
    for row in report["by_height"]:
        label = f"{row['from']:.0f} to {row['to']:.0f} px" if row["to"] else f"{row['from']:.0f} px and more"
        rows[label] = row
    for flag in ("blur", "occlusion", "pose"):
        for value, row in report["by_flag"].get(flag, {}).items():
            rows[f"{flag} {value}"] = row
    return rows
