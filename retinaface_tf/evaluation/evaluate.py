"""`retinaface_tf.evaluate`: average precision on labeled photos."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from retinaface_tf.annotations.annotations import Annotations
from retinaface_tf.annotations.coco import image_numbers
from retinaface_tf.annotations.read import find_photos, read_annotations
from retinaface_tf.common.json_files import read_json
from retinaface_tf.common.types import PathLike
from retinaface_tf.evaluation.coco import from_coco_detections
from retinaface_tf.evaluation.detection_files import read_detections
from retinaface_tf.evaluation.runner import detect_photos
from retinaface_tf.evaluation.widerface import ap_by_height, bootstrap_ap, match, subset_ap, without_nan

if TYPE_CHECKING:
    import numpy as np

    from retinaface_tf.evaluation.widerface import Matching


class Scored(NamedTuple):
    """What `score` returns.

    Attributes:
        report: JSON-ready dict: `photos`, `photos_with_a_file`, `faces`, `detections`, `ap`, `interval_95` if asked
            for, `by_height`.
        matching: Each detection with its face.
        keep: Bool `[F]`: the faces that count.
    """

    report: dict[str, Any]
    matching: Matching
    keep: np.ndarray


def evaluate(
    annotations: Annotations | PathLike,
    detections: Mapping[str, Any] | PathLike | Callable[[Any], Any],
    *,
    images: PathLike | None = None,
    subset: str = "all",
    protocol: Any = "original",
    batch_size: int = 1,
    only_present: bool = False,
    resamples: int = 0,
) -> dict[str, Any]:
    """Average precision of detections on labeled photos, at IoU 0.5.

    Args:
        annotations: `Annotations`, or the path of labels in a format that `retinaface-tf convert` reads.
        detections: One of these: a dict of photo name to an object with `boxes` `[N, 4]` (`xyxy`) and `scores` `[N]`;
            the path of a folder of result files or of a COCO result list; or a function such as `model.detect`, which
            takes a uint8 RGB image and returns such an object (with `batch_size` above 1, it takes and returns lists).
            AP needs low-scoring detections too, so use a low threshold and the size of the protocol, for example
            `partial(model.detect, score_threshold=0.02, resize=None, close_ups=False)`.
        images: Folder of the photos, needed for a function.
        subset: Faces to evaluate: `all`, or a subset of the annotations such as `hard`.
        protocol: Size of the photos for a function: a name in `PROTOCOLS`, or a `Protocol`.
        batch_size: Number of images per call of the function.
        only_present: Leave out photos without a result. Otherwise their faces count as missed. Photos that are missing
            in `images` are always left out.
        resamples: Bootstrap samples for a 95 % interval of the AP; 0: no interval.

    Returns:
        JSON-ready dict: `photos`, `photos_with_a_file`, `faces`, `detections`, `ap` in [0, 1] (None without faces),
        `interval_95` if `resamples` is above 0, and `by_height`.

    Raises:
        ValueError: If annotations or detections are invalid.
        OSError: If a file can't be read.
    """
    if not isinstance(annotations, Annotations):
        labels: PathLike | None = annotations
        annotations = read_annotations(annotations, images)
    else:
        labels = None
    if callable(detections):
        if images is None:
            raise ValueError("`images` is needed if `detections` is a function: the folder of the photos")
        photos = find_photos(images, annotations)
        annotations = annotations.only(photos)
        found: Mapping[str, Any] = dict(detect_photos(detections, photos, protocol=protocol, batch_size=batch_size))
    elif isinstance(detections, Mapping):
        found = detections
    else:
        found = load_detections(detections, annotations, labels)
    if only_present:
        annotations = annotations.only(found)
    return score(annotations, found, subset=subset, resamples=resamples).report


def score(
    annotations: Annotations, detections: Mapping[str, Any], *, subset: str = "all", resamples: int = 0
) -> Scored:
    """Match detections to faces and report the average precision; see `evaluate`."""
    keep = annotations.subset(subset)
    matching = match(annotations, detections, plus_one=False, skip_empty_photos=False)
    report: dict[str, Any] = {
        "photos": len(annotations),
        "photos_with_a_file": len(detections),
        "faces": int(keep.sum()),
        "detections": len(matching.face),
        "ap": subset_ap(matching, keep),
    }
    if resamples:
        report["interval_95"] = bootstrap_ap(annotations, matching, keep, resamples=resamples)
    report["by_height"] = ap_by_height(annotations, matching, keep)
    return Scored(without_nan(report), matching, keep)


def load_detections(path: PathLike, annotations: Annotations, labels: PathLike | None = None) -> Mapping[str, Any]:
    """Detections from a folder of result files or from a COCO result list.

    `labels` is the path of the annotations, if they have one: a COCO file numbers its photos itself.
    """
    if Path(path).suffix.lower() != ".json":
        return read_detections(path, annotations.names)
    numbers = image_numbers(None if labels is None else Path(labels), annotations)
    try:
        return from_coco_detections(read_json(path), numbers)
    except ValueError as error:
        raise ValueError(str(error) if str(error).startswith(str(path)) else f"{path}: {error}") from None
