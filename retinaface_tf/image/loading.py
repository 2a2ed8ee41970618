"""Load a photo: path, bytes, PIL image or array in, upright RGB pixels out. No TensorFlow."""

from __future__ import annotations

import io
import os

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from retinaface_tf.common.files import require_file
from retinaface_tf.common.types import ImageSource

SUPPORTED_CHANNELS = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}


class ImageError(ValueError):
    """A photo that can't be used; the message is one line for its user."""


def load_image(source: ImageSource) -> np.ndarray:
    """A photo as a person sees it.

    Args:
        source: path, bytes, binary file object, PIL image, or array `[H, W]`, `[H, W, C]` of uint8 or uint16 with
            C = 1 gray, 2 gray and alpha, 3 RGB, 4 RGBA.

    Returns:
        uint8 array `[H, W, 3]`, RGB: EXIF orientation applied, transparency laid over white, 16 bits brought to 8.

    Raises:
        ImageError: naming what came, for what is no image, is damaged, empty, or a decompression bomb.
    """
    if isinstance(source, Image.Image):
        return _from_pil(source, "the PIL image")
    if isinstance(source, (str, os.PathLike)):
        return _open(source, os.fspath(source))
    if isinstance(source, (bytes, bytearray, memoryview)):
        return _open(io.BytesIO(source), f"{len(source)} bytes")
    if hasattr(source, "read"):
        return _open(source, "the file object")
    if hasattr(source, "__array__"):
        return _from_array(np.asarray(source))
    raise ImageError(f"expected a path, bytes, a PIL image or an array. Received: {type(source).__name__}")


def _open(file, name):
    try:
        if isinstance(file, (str, os.PathLike)):
            require_file(file)  # a named pipe would be waited for
        with Image.open(file) as image:
            return _from_pil(image, name)
    except ImageError:
        raise
    except FileNotFoundError:
        raise ImageError(f"{name}: no such file") from None
    except UnidentifiedImageError:
        raise ImageError(f"{name}: not an image that Pillow can read") from None
    except Image.DecompressionBombError as error:
        raise ImageError(
            f"{name}: refused as a decompression bomb ({error}). If you trust it, raise PIL.Image.MAX_IMAGE_PIXELS"
        ) from None
    except Exception as error:  # decoders of damaged files raise nearly anything
        if isinstance(error, OSError) and error.filename:  # a pipe, a folder, a file without permission
            raise ImageError(f"{name}: {error.strerror}") from None
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ImageError(f"{name}: can't be decoded ({reason})") from None


def _from_pil(image, name):
    if image.width == 0 or image.height == 0:
        raise ImageError(f"{name}: an image without pixels, {image.width}x{image.height}")
    try:
        image = ImageOps.exif_transpose(image)
    except Exception:  # damaged EXIF is no reason to lose the photo
        image.load()
    if image.mode.startswith("I"):  # 16 bits in 16 or 32
        gray = np.clip(np.asarray(image).astype(np.int64), 0, 65535) >> 8
        return np.repeat(gray.astype(np.uint8)[..., None], 3, axis=-1)
    if image.mode == "F":
        raise ImageError(f"{name}: floating-point pixels, whose range is unknown. Convert it to 8 bits")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return np.asarray(image.convert("RGB"))


def _from_array(array):
    expected = "an array [H, W] or [H, W, 1 to 4] of uint8 or uint16"
    channels = array.shape[2] if array.ndim == 3 else 1
    if array.ndim not in (2, 3) or channels not in SUPPORTED_CHANNELS:
        raise ImageError(f"expected {expected}. Received: shape {list(array.shape)}, {array.dtype}")
    if 0 in array.shape:
        raise ImageError(f"expected {expected} with pixels. Received: shape {list(array.shape)}")
    if array.dtype == np.uint16:
        array = (array >> 8).astype(np.uint8)
    if array.dtype != np.uint8:
        raise ImageError(
            f"expected {expected}. Received: {array.dtype}, values from {array.min()} to {array.max()}. "
            "Bring them to 0 to 255 and cast: image.astype('uint8')"
        )
    if channels == 3:
        return np.ascontiguousarray(array)
    array = array.reshape(*array.shape[:2], channels) if channels > 1 else array.reshape(array.shape[:2])
    return _from_pil(Image.fromarray(np.ascontiguousarray(array), SUPPORTED_CHANNELS[channels]), "the array")
