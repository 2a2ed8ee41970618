"""Photos as other packages take them: paths, or BGR arrays as in OpenCV."""

import base64
import binascii
from functools import cache
from typing import Any, Protocol
from urllib.parse import unquote

import numpy as np

from retinaface_tf import load
from retinaface_tf.image import ImageError, load_image

OF_ADDRESSES = str.maketrans("-_", "+/")
DEFAULT_PRESET = "mobilenet025_wider"


class Detector(Protocol):
    """What detects: a `RetinaFace`, or what `retinaface_tf.load` returns."""

    def detect(self, *args: Any, **options: Any) -> Any: ...


@cache
def default_detector() -> Detector:
    """The bundled model, opened once per process."""
    return load(DEFAULT_PRESET)


def rgb(image: Any) -> np.ndarray:
    """Convert a photo to RGB for `detect`.

    Args:
        image: path, a text "data:image/...;base64,...", or array `[H, W, 3]` of uint8, **BGR**, as `cv2.imread` gives;
            BGRA as well.

    Returns:
        uint8 array `[H, W, 3]`, RGB.

    Raises:
        ImageError: if the photo can't be read, or is a web address (photos are not downloaded).
    """
    if isinstance(image, np.ndarray):
        if image.ndim == 3 and image.shape[2] == 4:
            return load_image(image[..., [2, 1, 0, 3]])
        if image.ndim != 3 or image.shape[2] != 3:
            raise ImageError(f"expected an array [H, W, 3], BGR. Received: shape {list(image.shape)}")
        return load_image(image[..., ::-1])
    if isinstance(image, str) and image[:11].lower() == "data:image/":
        text = unquote("".join(image.partition(",")[2].split())).rstrip("=")
        try:  # also of addresses: with - and _, with %2B, and without the padding
            return load_image(base64.b64decode(text.translate(OF_ADDRESSES) + "=" * (-len(text) % 4), validate=True))
        except binascii.Error as error:
            raise ImageError(f"{image[:30]}...: expected base64 after the comma ({error})") from None
    if isinstance(image, str) and image.startswith(("http://", "https://")):
        raise ImageError(f"{image}: photos are not downloaded. Save the photo, and give its path")
    return load_image(image)
