"""Read a video or a camera as upright RGB frames and sound packets."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from retinaface_tf.common.files import require_file
from retinaface_tf.common.imports import require
from retinaface_tf.inference.video.colors import (
    BT601,
    BT709,
    BT2020,
    BT2020_CONSTANT,
    UNSPECIFIED,
    ColorConverter,
    describe,
)

ATTACHED_PICTURE = 0x400  # FFmpeg's AV_DISPOSITION_ATTACHED_PIC
GUESSES = ("tty", "bin", "xbin", "adf", "idf", "rawvideo", "image2")  # formats that FFmpeg takes any content for
TIMEOUT = 20.0  # seconds for an address to answer
CAMERAS = {"linux": ("v4l2", "/dev/video{}"), "darwin": ("avfoundation", "{}"), "win32": ("dshow", "video={}")}


@dataclass(frozen=True)
class Frame:
    """One picture of a clip.

    Attributes:
        index: int, counted from 0 over the decoded frames.
        seconds: float, from the start of the clip.
        image: uint8 `[H, W, 3]`, RGB in standard colors, with the rotation of the video applied.
        source: the `av.VideoFrame` that it was: its time stamp and its colors.
        sound: `av.Packet`s that came before it in the file.
    """

    index: int
    seconds: float
    image: np.ndarray
    source: Any
    sound: tuple[Any, ...] = ()


def is_clip(path: str | Path) -> bool:
    """Whether FFmpeg knows the content of a file as a moving picture, whatever its suffix; False without PyAV."""
    try:
        with Clip(path) as clip:
            return clip._container.format.name not in GUESSES
    except (ImportError, OSError, ValueError):
        return False


class Clip:
    """An open clip or camera; iterate over it for its `Frame`s, once.

    Args:
        source: path of a file that FFmpeg reads, or an address such as rtsp://camera/stream.
        camera: number or device of a camera (on Windows its name), in place of a path.

    Attributes:
        name: str, for messages.
        frames: int, the number in the file; `None` for a camera or if the file has no number.
        rate: `Fraction`, frames per second.
        time_base: `Fraction`, the second of `Frame.source.pts`.
        sound: the `av` stream of the sound, or `None`.
        colors: str, how its colors were converted or what was assumed of them, for a line; or empty.
        tags: the color primaries and transfer characteristics of `Frame.image`, as numbers of ISO/IEC 23091-4.
        damaged: int, frames and packets so far that could not be decoded, or not wholly.
        missing: float, seconds at the end that the file says it has and has not; known after the last frame.
        rest_of_sound: after the last frame, the packets that came after it.

    Raises:
        ImportError: if PyAV is missing; the message names the extra.
        OSError, ValueError: one line, for a file or device that can't be opened or contains no video.
    """

    def __init__(self, source: str | Path | None = None, *, camera: str | int | None = None) -> None:
        av = require("av", "video", "reading videos")
        self.name = f"camera {camera}" if source is None else str(source)
        kind = None
        if source is None:
            kind, pattern = CAMERAS[sys.platform]
            source = str(camera) if "/" in str(camera) else pattern.format(camera)
        elif "://" not in str(source):
            if not Path(source).exists():
                raise FileNotFoundError(f"{source}: no such file")
            require_file(source)
        try:
            # Without the prefix a file named like an address would be one.
            place = str(source) if kind or "://" in str(source) else f"file:{source}"
            self._container = av.open(place, format=kind, timeout=TIMEOUT if "://" in str(source) else None)
        except (av.error.FFmpegError, OSError, ValueError) as error:  # most of FFmpeg's are OSErrors or ValueErrors too
            raise ValueError(f"{self.name}: can't be opened as a video ({_reason(error)})") from None
        # A file of music or a film may hold its cover picture as a video stream of one frame.
        films = [s for s in self._container.streams.video if not s.disposition & ATTACHED_PICTURE]
        if not films:
            self._container.close()
            raise ValueError(f"{self.name}: contains no video")
        best = self._container.streams.best("video")
        self._stream = best if best in films else films[0]
        self._stream.thread_type = "AUTO"
        self._errors = (av.error.FFmpegError,)
        streams = self._container.streams.audio
        self.sound = streams[0] if streams and streams[0].codec_context is not None else None
        self.frames = self._stream.frames or None
        self.rate = Fraction(self._stream.average_rate or self._stream.guessed_rate or 25)
        self.time_base = self._stream.time_base
        *tags, self.colors = describe(self._stream.codec_context)
        self._convert = ColorConverter(av, *tags) if "converted" in self.colors else None
        self.tags = (BT709, BT709) if self._convert else tuple(tags)
        self.damaged, self.missing, self._reached = 0, 0.0, 0.0
        self.rest_of_sound: tuple[Any, ...] = ()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._container.close()

    def __iter__(self) -> Iterator[Frame]:
        index, sound, start, last = 0, [], None, None
        for item in self._decoded():
            if not hasattr(item, "to_ndarray"):
                sound.append(item)
                continue
            if item.pts is None or (last is not None and item.pts <= last):  # some cameras and old files count nothing
                item.pts = 0 if last is None else last + max(1, round(1 / (self.rate * self.time_base)))
            last = item.pts
            start = item.pts if start is None else start
            seconds = float((item.pts - start) * self.time_base)
            yield Frame(index, seconds, self._upright(item), item, tuple(sound))
            index, sound = index + 1, []
        self.rest_of_sound = tuple(sound)
        if self._container.duration:
            # Matroska counts the duration from 0, the others from the first frame.
            start_time = 0 if "matroska" in self._container.format.name else self._container.start_time or 0
            end = (self._container.duration + start_time) / 1e6
            missing = end - self._reached
            self.missing = missing if missing > 2 / self.rate + 0.2 else 0.0

    def _upright(self, item: Any) -> np.ndarray:
        if int(item.colorspace) == UNSPECIFIED:  # FFmpeg would take BT.601; players decide by the height
            item.colorspace = BT2020 if self._convert else BT709 if item.height >= 720 else BT601
        elif int(item.colorspace) == BT2020_CONSTANT:  # which FFmpeg can't convert
            item.colorspace = BT2020
        try:
            colors = self._convert(item) if self._convert else item
            pixels = colors.to_ndarray(format="rgb24", **self._square(item))
        except self._errors as error:
            matrix = f"pixels {item.format.name}, matrix {int(item.colorspace)}"
            raise ValueError(f"{self.name}: FFmpeg can't convert its colors ({matrix}: {_reason(error)})") from None
        return np.ascontiguousarray(np.rot90(pixels, item.rotation // 90 % 4))

    def _square(self, item: Any) -> dict[str, int]:
        """The width and height at which the pixels of a frame are square; anamorphic clips store others."""
        ratio = self._stream.sample_aspect_ratio
        if not ratio or ratio == 1:
            return {}
        return {"width": max(1, round(item.width * ratio)), "height": item.height}

    def _decoded(self) -> Iterator[Any]:
        """Packets of sound and frames, as they come; what is damaged is counted and passed over."""
        packets = self._container.demux([stream for stream in (self._stream, self.sound) if stream is not None])
        while True:
            try:
                packet = next(packets)
            except StopIteration:
                return
            except self._errors:  # the file ends in the middle
                self.damaged += 1
                return
            if packet.pts is not None:
                end = float((packet.pts + (packet.duration or 0)) * packet.time_base)
                self._reached = max(self._reached, end)
            if packet.stream.type == "audio":
                if packet.dts is not None:
                    yield packet
                continue
            try:
                frames = packet.decode()
            except self._errors:
                self.damaged += 1
                continue
            self.damaged += sum(frame.is_corrupt for frame in frames)
            yield from frames


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
