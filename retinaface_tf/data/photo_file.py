"""Read a photo file: its unchanged bytes, and its format, size and orientation. No TensorFlow."""

from __future__ import annotations

import errno
import hashlib
import io
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from retinaface_tf.common.files import read_bytes

# What tf.io.decode_image reads; everything else would stop a training run.
DECODABLE = {"JPEG": "jpeg", "MPO": "jpeg", "PNG": "png", "GIF": "gif", "BMP": "bmp", "WEBP": "webp"}
ORIENTATION_TAG = 0x0112
SIDEWAYS = (5, 6, 7, 8)  # EXIF orientations that exchange width and height


class PhotoError(ValueError):
    """A photo that can't be trained on. `kind` is one of the problems in `cleaning.py`."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


@dataclass(frozen=True)
class PhotoFile:
    """A readable photo.

    Attributes:
        encoded: the file's bytes.
        format: "jpeg", "png", "gif", "bmp" or "webp".
        width, height: of the stored pixels, before EXIF orientation.
        orientation: EXIF orientation, 1 to 8; 1 is upright.
        sha256: hex digest of `encoded`.
    """

    encoded: bytes
    format: str
    width: int
    height: int
    orientation: int
    sha256: str


def read_photo(path: Path) -> PhotoFile:
    """Read a photo's bytes and its header; the pixels are not looked at (`example.check_decodes` does that).

    Raises:
        PhotoError: missing, unreadable, no image, or in a format that training can't decode.
    """
    try:
        encoded = read_bytes(path)
    except FileNotFoundError:
        raise PhotoError("missing_photo", "no such file") from None
    except ValueError:  # a NUL character
        raise PhotoError("missing_photo", "no file can have this name") from None
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise PhotoError("missing_photo", "no file can have this name") from None
        raise PhotoError("corrupt_photo", f"can't be read ({error.strerror})") from None
    try:
        with Image.open(io.BytesIO(encoded)) as image:
            name, (width, height) = image.format, image.size
            orientation = _orientation(image)
    except Exception as error:  # decoders of damaged files raise nearly anything
        reason = "not an image" if "cannot identify" in str(error) else " ".join(str(error).split()) or "damaged"
        raise PhotoError("corrupt_photo", f"can't be decoded ({reason}, {len(encoded)} bytes)") from None
    if name not in DECODABLE:
        raise PhotoError("unsupported_format", f"{name}: training decodes {', '.join(sorted(set(DECODABLE.values())))}")
    return PhotoFile(encoded, DECODABLE[name], width, height, orientation, hashlib.sha256(encoded).hexdigest())


def _orientation(image):
    try:
        value = image.getexif().get(ORIENTATION_TAG, 1)
    except Exception:  # damaged EXIF is no reason to lose the photo
        return 1
    return value if value in range(1, 9) else 1
