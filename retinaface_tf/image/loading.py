"""Load a photo from a path, bytes, PIL image or array as upright RGB pixels. No TensorFlow."""

from __future__ import annotations

import io
import logging
import os
import re
import sys
import warnings
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from PIL.TiffImagePlugin import TiffImageFile

from retinaface_tf.common.files import HEIF_SUFFIXES, require_file
from retinaface_tf.common.imports import install_hint
from retinaface_tf.common.text import first_line, printable
from retinaface_tf.common.types import ImageSource, PathLike, PhotoWarning

MAX_PIXELS = 50_000_000  # of a photo, unless the caller says otherwise
SUPPORTED_CHANNELS = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
logging.getLogger("PIL").addHandler(logging.NullHandler())  # without a handler its errors go to standard error
DEPTHS = (8, 10, 12, 14, 16)  # bits that cameras and scanners give a gray value
VISIBLE, FEW = 64, 0.01  # alpha of 255 below which little can be seen; share of pixels that makes no picture
SIXTEEN_BITS = re.compile(r"(RGB|RGBX|RGBA|LA);16([BLN])")  # Pillow's names of colors of 16 bits
OTHER_ORDER = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}  # gives the lower byte
ONE_OF_MANY = ("GIF", "TIFF", "WEBP", "PNG", "AVIF")  # formats whose files may hold several pictures
PHOTOMETRIC, SAMPLE_FORMAT = 262, 339  # tags of TIFF
PROGRAMS = ("EPS",)  # formats of Pillow whose files are run as programs, by Ghostscript


class ImageError(ValueError):
    """A photo that can't be used; the message is one line for its user."""


@dataclass(frozen=True, eq=False)
class ReducedPhoto:
    """A photo that was decoded at a smaller size, for a `detect` that shrinks it anyway.

    Attributes:
        pixels: uint8 array `[h, w, 3]`, RGB.
        height, width: int, of the photo itself.
    """

    pixels: np.ndarray
    height: int
    width: int

    @property
    def nbytes(self) -> int:
        return self.pixels.nbytes


def load_image(source: ImageSource, max_pixels: int | None = None, *, upright: bool = True) -> np.ndarray:
    """Load a photo as upright RGB pixels.

    Args:
        source: path, bytes, binary file object, PIL image, or array `[H, W]`, `[H, W, C]` of uint8 or uint16 with
            C = 1 gray, 2 gray and alpha, 3 RGB, 4 RGBA. Whatever Pillow opens; HEIC with the extra `heic`.
        max_pixels: int. A file with more is refused before it is decoded; `None` for `MAX_PIXELS`. Pixels that are in
            memory already are not counted.
        upright: bool. Whether EXIF orientation is applied; labels are in pixels of the photo as it is stored.

    Returns:
        uint8 array `[H, W, 3]`, RGB, transparency laid over white. Pixels of more than 8 bits
        are brought to 8, from the smallest of `DEPTHS` that holds the largest value.

    Raises:
        ImageError: naming what came, for what is no image, is damaged, empty, or too large.
    """
    loaded = _load(source, None, max_pixels, upright)
    assert isinstance(loaded, np.ndarray)
    return loaded


def is_photo(path: PathLike) -> bool:
    """Whether Pillow knows the content of a file, by its beginning; the pixels may still be damaged."""
    try:
        with _open_with_plugins(require_file(path)) as image:
            return image.format not in PROGRAMS
    except Exception:  # decoders of damaged files raise nearly anything
        return False


def load_reduced(
    source: ImageSource, long_side: int | None, max_pixels: int | None = None
) -> np.ndarray | ReducedPhoto:
    """A photo that will be shrunk: a JPEG file is decoded at 1/2, 1/4 or 1/8 of its sides where that is enough.

    The decoded photo is at least `long_side` long; `None` for the photo's own size.
    """
    return _load(source, long_side, max_pixels)


def _load(
    source: Any, long_side: int | None, max_pixels: int | None, upright: bool = True
) -> np.ndarray | ReducedPhoto:
    if isinstance(source, Image.Image):
        with _one_line("the PIL image"):
            _require_picture(source)
            return _from_pil(source, "the PIL image", upright)
    if isinstance(source, (str, os.PathLike)):
        name = os.fspath(source)
        if isinstance(name, str) and name.startswith(("http://", "https://")):
            raise ImageError(f"{name}: photos are not fetched from the web. Save it, and give its path")
        return _open(source, printable(name), long_side, max_pixels, upright)
    if isinstance(source, (bytes, bytearray, memoryview)):
        return _open(io.BytesIO(source), f"{len(source)} bytes", long_side, max_pixels, upright)
    if hasattr(source, "read"):
        return _open(source, "the file object", long_side, max_pixels, upright)
    if hasattr(source, "__array__"):
        return _from_array(np.asarray(source))
    raise ImageError(f"expected a path, bytes, a PIL image or an array. Received: {type(source).__name__}")


class _one_line:  # noqa: N801 - used as a function
    """Turn whatever a decoder raises into an `ImageError`."""

    def __init__(self, name: Any) -> None:
        self.name = name

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if error is None or isinstance(error, (ImageError, MemoryError)) or not isinstance(error, Exception):
            return
        if isinstance(error, FileNotFoundError):
            raise ImageError(f"{self.name}: no such file") from None
        if isinstance(error, UnidentifiedImageError):
            heif = Path(str(self.name)).suffix.lower() in HEIF_SUFFIXES and not _register_heif()
            reason = f"HEIF needs pillow-heif: {install_hint('heic')}" if heif else "not an image that Pillow can read"
            raise ImageError(f"{self.name}: {reason}") from None
        if isinstance(error, Image.DecompressionBombError):
            raise ImageError(f"{self.name}: refused as a decompression bomb, {_TOO_LARGE}") from None
        if isinstance(error, OSError) and error.filename:  # a pipe, a folder, a file without permission
            raise ImageError(f"{self.name}: {error.strerror}") from None
        raise ImageError(f"{self.name}: can't be decoded ({first_line(error)})") from None  # nearly anything is raised


_TOO_LARGE = f"more than the limit of {MAX_PIXELS / 1e6:g} megapixels. Shrink it, or raise max_pixels (--max-pixels)"


def _open(
    file: Any, name: Any, long_side: int | None, max_pixels: int | None, upright: bool
) -> np.ndarray | ReducedPhoto:
    most = MAX_PIXELS if max_pixels is None else max_pixels
    if max_pixels is not None and Image.MAX_IMAGE_PIXELS is not None and max_pixels > Image.MAX_IMAGE_PIXELS:
        Image.MAX_IMAGE_PIXELS = max_pixels  # Pillow has one limit for the process; the caller's is checked below
    with _one_line(name):
        if isinstance(file, (str, os.PathLike)):
            require_file(file)  # a named pipe would be waited for
        with _open_with_plugins(file) as image:
            _require_picture(image)
            width, height = image.size
            if long_side is not None and max(width, height) > long_side:
                scale = long_side / max(width, height)
                image.draft("RGB", (max(1, int(width * scale)), max(1, int(height * scale))))
            if image.width * image.height > most:
                raise ImageError(
                    f"{name}: {width}x{height} are {width * height / 1e6:.0f} megapixels, more than the limit of "
                    f"{most / 1e6:g}. Shrink it, or raise max_pixels (--max-pixels)"
                )
            if image.format == "TIFF":
                _silence_libtiff()
            if image.format in ONE_OF_MANY and getattr(image, "is_animated", False):
                warnings.warn(f"{name}: holds several pictures; only the first is used", PhotoWarning, stacklevel=2)
            is_reduced = image.size != (width, height)
            _deepen(image, name, file)
            pixels = _from_pil(image, name, upright)
    if not is_reduced:
        return pixels
    if (pixels.shape[0] < pixels.shape[1]) != (height < width):  # turned by its EXIF orientation
        width, height = height, width
    return ReducedPhoto(pixels, height, width)


def _open_with_plugins(file: Any) -> Image.Image:
    """`Image.open`, with the HEIF plug-in where it is needed and there."""
    start = file.tell() if hasattr(file, "tell") else 0
    try:
        return Image.open(file)
    except UnidentifiedImageError:
        if not _register_heif():
            raise
        if hasattr(file, "seek"):
            file.seek(start)
        return Image.open(file)


@cache
def _register_heif() -> bool:
    """Whether Pillow opens HEIF; the plug-in is loaded with the first file that Pillow alone can't open."""
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        return False
    register_heif_opener()
    return True


@cache
def _silence_libtiff() -> None:
    """Keep Pillow's own copy of libtiff from printing to standard error; what it finds is raised all the same."""
    import ctypes

    import PIL

    home = Path(PIL.__file__).parent
    for folder in (home.parent / "pillow.libs", home / ".dylibs"):
        for library in folder.glob("libtiff*"):
            try:
                loaded = ctypes.CDLL(str(library))
                for name in ("TIFFSetErrorHandler", "TIFFSetWarningHandler"):
                    handler = getattr(loaded, name)
                    handler.argtypes, handler.restype = [ctypes.c_void_p], ctypes.c_void_p
                    handler(None)
            except (OSError, AttributeError):
                continue


def _require_picture(image: Image.Image) -> None:
    """Refuse formats whose decoder runs programs. Pillow decides by the content, not by the suffix."""
    if image.format in PROGRAMS:
        raise UnidentifiedImageError


def _deepen(image: Image.Image, name: Any, file: Any) -> None:
    """Bring colors of 16 bits that use fewer to 8 of their own: Pillow keeps the upper 8, which are nearly black."""
    tiles: list[Any] = list(getattr(image, "tile", ()))
    raw = tiles[0].args if tiles and hasattr(tiles[0], "args") else None
    match = SIXTEEN_BITS.fullmatch(str(raw[0] if isinstance(raw, tuple) and raw else raw))
    if match is None:
        return
    image.load()
    upper = np.asarray(image)
    if int(upper[..., :3].max()) >> (DEPTHS[-2] - 8):  # more than 14 bits
        return
    values = upper[..., :3].astype(np.uint16)
    values <<= 8
    alpha = [upper[..., 3:].copy()] if image.mode == "RGBA" else []
    del upper  # a large photo fills memory with each copy
    if match[1] != "LA":  # of which Pillow gives no lower byte
        with Image.open(file) as again:
            name_of_low = f"{match[1]};16{OTHER_ORDER[match[2]]}"
            again.tile = [
                tile._replace(args=(name_of_low, *tile.args[1:]) if isinstance(tile.args, tuple) else name_of_low)
                for tile in again.tile
            ]
            values |= np.asarray(again)[..., :3]
        del again
    colors = _to_eight_bits(values, name)
    del values
    image.paste(Image.fromarray(np.concatenate([colors, *alpha], axis=-1) if alpha else colors))


def _from_pil(image: Image.Image, name: Any, upright: bool = True) -> np.ndarray:
    if image.width == 0 or image.height == 0:
        raise ImageError(f"{name}: an image without pixels, {image.width}x{image.height}")
    image.load()
    tags = image.tag_v2 if isinstance(image, TiffImageFile) else {}
    inverted = image.mode.startswith("I;16") and tags.get(PHOTOMETRIC) == 0  # which Pillow heeds for 8 bits alone
    unsigned = image.mode == "I" and bool(tags) and tags.get(SAMPLE_FORMAT, (1,))[0] == 1
    with suppress(Exception):  # damaged EXIF is no reason to lose the photo
        if upright and image.getexif().get(ExifTags.Base.Orientation, 1) != 1:
            image = ImageOps.exif_transpose(image)  # which copies a photo that is upright, too
    if image.mode.startswith("I"):  # 16 bits in 16 or 32
        values = np.asarray(image)
        gray = _to_eight_bits(values.view(np.uint32) if unsigned else values, name)
        gray = 255 - gray if inverted else gray
        return np.repeat(gray[..., None], 3, axis=-1)
    if image.mode == "F":
        gray = _from_floats(np.asarray(image), name)
        return np.repeat(gray[..., None], 3, axis=-1)
    if image.has_transparency_data:
        image = image.convert("LA") if image.mode == "La" else image  # the only step that Pillow knows
        image = image.convert("RGBA")
        if _is_hidden(image):
            warnings.warn(f"{name}: every pixel is transparent; the colors below are used", PhotoWarning, stacklevel=2)
        else:
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))  # which copies what is RGB, too


def _is_hidden(image: Image.Image) -> bool:
    """Whether a picture has colors but is almost fully transparent, as photos with an unused alpha channel are."""
    alpha: Any = image.getchannel("A").getextrema()
    if alpha[0] >= VISIBLE:
        return False
    pixels = np.asarray(image)
    hidden = pixels[..., 3:] < VISIBLE
    if hidden.mean() <= 1 - FEW:
        return False
    colors = pixels[..., :3]  # of one color everywhere it is what it says, nothing
    return bool((colors.min((0, 1), where=hidden, initial=255) < colors.max((0, 1), where=hidden, initial=0)).any())


def _from_floats(values: np.ndarray, name: Any) -> np.ndarray:
    """Gray floats as uint8: up to 1 they are fractions of white, up to 255 gray values. A warning names the scale."""
    low, high = float(values.min()), float(values.max())
    white = 1.0 if high <= 1.5 else 255.0  # what was resized may be a little beyond both ends
    if not -0.1 * white <= low <= high <= 1.1 * 255:  # NaN, too
        raise ImageError(f"{name}: floating-point pixels from {low:g} to {high:g}: bring them to 0 to 1, or 0 to 255")
    warnings.warn(f"{name}: values up to {high:g} are read on a scale of 0 to {white:g}", PhotoWarning, stacklevel=2)
    return np.clip(np.rint(values * (255 / white)), 0, 255).astype(np.uint8)


def _to_eight_bits(values: np.ndarray, name: Any) -> np.ndarray:
    """Integers of an unknown depth as uint8; a depth that is not the container's, or a stretched range, is said."""
    largest, least = int(values.max(initial=0)), int(values.min(initial=0 if values.size == 0 else values.flat[0]))
    spread = largest - least
    # What is below 0; and the values of thermal cameras, of which 8 bits would hold fewer than 16 grays.
    if spread and (least < 0 or (largest > 255 and spread < largest / 16)):
        warnings.warn(f"{name}: values from {least} to {largest} are stretched to 0 to 255", PhotoWarning, stacklevel=2)
        return ((values.astype(np.int64) - least) * 255 // spread).astype(np.uint8)
    bits = next((depth for depth in DEPTHS if largest < 1 << depth), largest.bit_length())
    if spread == 0:
        bits = max(bits, 16)  # one value everywhere tells no depth
    if bits != 16:
        warnings.warn(f"{name}: values up to {largest} are taken to have {bits} bits", PhotoWarning, stacklevel=2)
    return ((values if least >= 0 else np.maximum(values, 0)) >> (bits - 8)).astype(np.uint8)


def _from_array(array: np.ndarray) -> np.ndarray:
    expected = "an array [H, W] or [H, W, 1 to 4] of uint8 or uint16"
    channels = array.shape[2] if array.ndim == 3 else 1
    if array.ndim not in (2, 3) or channels not in SUPPORTED_CHANNELS:
        raise ImageError(f"expected {expected}. Received: shape {list(array.shape)}, {array.dtype}")
    if 0 in array.shape:
        raise ImageError(f"expected {expected} with pixels. Received: shape {list(array.shape)}")
    if array.dtype == np.uint16:
        if channels in (2, 4):  # alpha has a depth of its own
            alpha = array[..., -1:]
            bits = next(depth for depth in DEPTHS if int(alpha.max()) < 1 << depth)
            colors = _to_eight_bits(array[..., :-1], "the array")
            array = np.concatenate([colors, (alpha >> (bits - 8)).astype(np.uint8)], axis=-1)
        else:
            array = _to_eight_bits(array, "the array")
    if array.dtype != np.uint8:
        values = f", values from {array.min()} to {array.max()}" if array.dtype.kind in "biuf" else ""
        raise ImageError(
            f"expected {expected}. Received: {array.dtype}{values}. "
            "Bring them to 0 to 255 and cast: image.astype('uint8')"
        )
    if channels == 3:
        return np.ascontiguousarray(array)
    array = array.reshape(*array.shape[:2], channels) if channels > 1 else array.reshape(array.shape[:2])
    return _from_pil(Image.fromarray(np.ascontiguousarray(array), SUPPORTED_CHANNELS[channels]), "the array")
