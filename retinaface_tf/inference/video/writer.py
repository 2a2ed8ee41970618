"""Write frames as a video with the sound of the source, under a temporary name until it is complete."""

from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from retinaface_tf.common.files import atomic_path
from retinaface_tf.common.imports import require
from retinaface_tf.inference.video.clip import Clip, Frame
from retinaface_tf.inference.video.colors import BT601, BT709, UNSPECIFIED

# Suffix of what can be written -> the encoder, and its options: quality before size, and not much time.
X264 = ("libx264", {"crf": "20", "preset": "veryfast"})
ENCODERS = {
    ".mp4": X264,
    ".m4v": X264,
    ".mov": X264,
    ".mkv": X264,
    ".webm": ("libvpx-vp9", {"crf": "32", "b": "0", "deadline": "realtime", "cpu-used": "6"}),
}
LIMITED = 1  # FFmpeg's AVCOL_RANGE_MPEG


class _DiscardedError(Exception):
    """What was written is not kept."""


class VideoWriter:
    """Context manager that writes a video. Without an exception, the file is renamed at the end.

    Args:
        path: path of the file, with one of `ENCODERS`' suffixes.
        clip: `Clip` that the frames come from.

    Attributes:
        path: `Path`.
        silent: str, why the clip's sound can't be carried over; or empty.

    Raises:
        ValueError: for another suffix, or where the encoder is missing.
        OSError: if it can't be written.
    """

    def __init__(self, path: str | Path, clip: Clip) -> None:
        av = require("av", "video", "writing videos")
        self._av, self.path, self._clip = av, Path(path), clip
        suffix = self.path.suffix.lower()
        if suffix not in ENCODERS:
            raise ValueError(f"videos are saved as {', '.join(ENCODERS)}. Received: {path}")
        name, options = ENCODERS[suffix]
        self._place = ExitStack()
        beside, _ = self._place.enter_context(atomic_path(self.path, suffix))
        self._container = av.open(str(beside), "w")
        try:
            self._stream = self._container.add_stream(name, rate=clip.rate, options=dict(options))
        except ValueError:
            self._discard()
            raise ValueError(f"{path}: this build of FFmpeg has no encoder {name}") from None
        self._stream.time_base = self._stream.codec_context.time_base = clip.time_base
        self._sound, self.silent = self._add_sound()
        self._started = False

    def _add_sound(self) -> tuple[Any, str]:
        """(the stream that takes the clip's sound as it is, or None; why not, or nothing)."""
        sound = self._clip.sound
        if sound is None:
            return None, ""
        codec = sound.codec_context.name
        if codec not in self._container.supported_codecs:
            return None, f"written without sound: {self.path.suffix} files can't contain {codec}"
        return self._container.add_stream_from_template(sound), ""

    def __enter__(self) -> Self:
        return self

    def write(self, frame: Frame, picture: np.ndarray) -> None:
        """Encode one picture in the place of a frame.

        Args:
            frame: `Frame` of the clip: its time, colors and sound.
            picture: uint8 array `[H, W, 3]`, RGB. An odd side gets one more row or column, since video has even ones.
        """
        if not self._started:
            self._start(frame, picture)
        height, width = picture.shape[:2]
        picture = np.pad(picture, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        stream = self._stream
        coded = self._av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
        coded = coded.reformat(stream.width, stream.height, "yuv420p", dst_colorspace=self._matrix)
        coded.colorspace, coded.color_range = self._matrix, LIMITED
        coded.pts, coded.time_base = frame.source.pts, self._clip.time_base
        self._mux_sound(frame.sound)
        self._container.mux(stream.encode(coded))

    def _start(self, frame: Frame, picture: np.ndarray) -> None:
        height, width = picture.shape[:2]
        stream = self._stream
        stream.width, stream.height, stream.pix_fmt = width + width % 2, height + height % 2, "yuv420p"
        for name, value in zip(("color_primaries", "color_trc"), self._clip.tags, strict=True):
            if value != UNSPECIFIED:
                setattr(stream.codec_context, name, value)
        self._matrix = BT709 if self._clip.colors or int(frame.source.colorspace) == BT709 else BT601
        stream.codec_context.colorspace, stream.codec_context.color_range = self._matrix, LIMITED
        self._started = True

    def _mux_sound(self, packets: tuple[Any, ...]) -> None:
        if self._sound is not None:
            for packet in packets:
                packet.stream = self._sound
                self._container.mux(packet)

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is not None or not self._started:
            self._discard()
            return
        try:
            self._container.mux(self._stream.encode())
            self._mux_sound(self._clip.rest_of_sound)
            self._container.close()
            self._place.close()
        except BaseException:
            self._discard()
            raise

    def _discard(self) -> None:
        try:
            self._container.close()
        except (OSError, ValueError):  # what was begun can't be ended: it goes anyway
            pass
        finally:
            self._place.__exit__(_DiscardedError, _DiscardedError(), None)
