"""Photos in, network pixels out, and back again. No TensorFlow."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from retinaface_tf.types import ImageSource

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


@dataclass(frozen=True)
class Letterbox:
    """Where on the canvas a photo went: `canvas = photo * scale + offset`, for x and for y.

    Attributes:
        canvas: uint8 array `[H, W, 3]`.
        window: float32 `[4]`, `xyxy` canvas pixels: the part that is photo.
        scale, offset: float32 `[2]`, x and y.
    """

    canvas: np.ndarray
    window: np.ndarray
    scale: np.ndarray
    offset: np.ndarray

    def restore(self, points: np.ndarray) -> np.ndarray:
        """Canvas pixels `[..., 2]` back to photo pixels, float32."""
        return ((points - self.offset) / self.scale).astype(np.float32)

    def restore_faces(self, faces: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """What is in pixels of what is known of faces: "boxes" `[..., 4]`, "landmarks" and, if there, "vertices"."""
        boxes = faces["boxes"]
        restored = {
            "boxes": self.restore(boxes.reshape(*boxes.shape[:-1], 2, 2)).reshape(boxes.shape),
            "landmarks": self.restore(faces["landmarks"]),
        }
        if "vertices" in faces:
            vertices = faces["vertices"]
            depth = (vertices[..., 2:] / self.scale.mean()).astype(np.float32)
            restored["vertices"] = np.concatenate([self.restore(vertices[..., :2]), depth], axis=-1)
        return restored


def letterbox(
    image: np.ndarray, fill: Sequence[int], resize: tuple[int, int] | None = None, margin: float = 0.0
) -> Letterbox:
    """A photo at the size at which the network shall see it, with a border if wanted.

    Args:
        image: uint8 array `[H, W, 3]`.
        fill: three ints, the colour around the photo; the network's mean pixel disturbs it least.
        resize: `None` to keep the size, or (short, long): the short side becomes `short` pixels, unless the long one
            would then be over `long`, which it becomes instead.
        margin: float. Border on each side, as a part of the resized photo's sides.

    Returns:
        `Letterbox`; its canvas is `image` itself where nothing had to be done.
    """
    height, width = image.shape[:2]
    new_height, new_width = resized_size(height, width, resize)
    if (new_height, new_width) != (height, width):
        picture = Image.fromarray(image).resize((new_width, new_height), Image.Resampling.BILINEAR)
        image = np.asarray(picture)
    top, left = round(new_height * margin), round(new_width * margin)
    canvas_shape = (new_height + 2 * top, new_width + 2 * left, 3)
    if canvas_shape == image.shape:
        canvas = image
    else:
        canvas = np.empty(canvas_shape, np.uint8)
        canvas[:] = np.asarray(fill, np.uint8)
        canvas[top : top + new_height, left : left + new_width] = image
    return Letterbox(
        canvas,
        window=np.array([left, top, left + new_width, top + new_height], np.float32),
        scale=np.array([new_width / width, new_height / height], np.float32),
        offset=np.array([left, top], np.float32),
    )


def fit(image: np.ndarray, size: tuple[int, int], fill: Sequence[int]) -> Letterbox:
    """A photo on a canvas of a given size: shrunk if it is too large, never enlarged, in the upper left corner.

    There the cells of the network's maps lie on the photo as they do without the canvas.

    Args:
        image: uint8 array `[H, W, 3]`.
        size: (height, width) of the canvas, in pixels.
        fill: three ints, the colour beside the photo.

    Returns:
        `Letterbox`; its canvas is `image` itself where nothing had to be done.
    """
    (height, width), (canvas_height, canvas_width) = image.shape[:2], size
    scale = min(1.0, canvas_height / height, canvas_width / width)
    new_height, new_width = max(1, round(height * scale)), max(1, round(width * scale))
    if scale < 1:
        picture = Image.fromarray(image).resize((new_width, new_height), Image.Resampling.BILINEAR)
        image = np.asarray(picture)
    canvas = image
    if (new_height, new_width) != (canvas_height, canvas_width):
        canvas = np.empty((canvas_height, canvas_width, 3), np.uint8)
        canvas[:] = np.asarray(fill, np.uint8)
        canvas[:new_height, :new_width] = image
    return Letterbox(
        canvas,
        window=np.array([0, 0, new_width, new_height], np.float32),
        scale=np.array([new_width / width, new_height / height], np.float32),
        offset=np.zeros(2, np.float32),
    )


def resized_size(height: int, width: int, resize: tuple[int, int] | None) -> tuple[int, int]:
    """(height, width) after `resize`, as `letterbox` takes it; each at least 1."""
    if resize is None:
        return height, width
    short, long = resize
    scale = min(short / min(height, width), long / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))
