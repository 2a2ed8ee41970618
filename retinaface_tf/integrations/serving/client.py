"""TensorFlow Serving clients: photos to requests, responses to `Detections`, and the REST client."""

import base64
import http.client
import io
import json
import os
import re
import time
import urllib.error
import urllib.request
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from PIL import Image

from retinaface_tf import Detections
from retinaface_tf.common.json_files import DictOf, parse_json
from retinaface_tf.common.text import one_line
from retinaface_tf.common.types import ImageSource
from retinaface_tf.image import ImageError, load_image
from retinaface_tf.image.ahead import decode_ahead
from retinaface_tf.inference.predictor import as_photos, check_options

MAGIC = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n")  # what the server decodes itself, just as `load_image` does
MOST_BYTES = 32_000_000  # of the photos of one request


MAX_TIMEOUT = 1e7  # seconds; threads and sockets take no more
MAX_SIDE = 1 << 20  # pixels
# Output -> its shape after the photos and the rows, and the kind of its numbers.
OUTPUTS: dict[str, tuple[tuple[int, ...] | None, str]] = {
    "boxes": ((4,), "f"),
    "scores": ((), "f"),
    "landmarks": ((5, 2), "f"),
    "count": (None, "i"),
    "size": (None, "i"),
    "error": (None, "b"),
}


class ServingError(OSError):
    """The server answered with an error; the message is one line."""


class Client(ABC):
    """Base class of `GrpcClient` and `RestClient`.

    Args:
        address: str; see the docstring of each client.
        model: str. The model's name in the server's configuration.
        version: int, or `None` for the one that the server serves.
        timeout: float, seconds. Time limit of one call of `detect`, with all its requests.
        batch_size: int. Maximum number of photos per request.
        in_flight: int. Maximum number of requests that wait for a response at the same time.
    """

    SCHEMES: ClassVar[tuple[str, ...]] = ("",)  # what an address begins with
    EXAMPLE: ClassVar[str] = "localhost:8500"

    def __init__(
        self,
        address: str,
        model: str = "retinaface",
        version: int | None = None,
        timeout: float = 30.0,
        batch_size: int = 8,
        in_flight: int = 2,
    ) -> None:
        for name, value in (("timeout", timeout), ("batch_size", batch_size), ("in_flight", in_flight)):
            if not isinstance(value, (int, float)) or not 0 < value < MAX_TIMEOUT:
                raise ValueError(f"`{name}` must be positive and finite. Received: {name}={value!r}")
        if not isinstance(address, str) or not address.startswith(self.SCHEMES) or re.search(r"\s|^$", address):
            raise ValueError(f"`address` must be such as {self.EXAMPLE!r}. Received: address={address!r}")
        self.address = address
        self.model = model
        self.version = version
        self.timeout = timeout
        self.batch_size = batch_size
        self.in_flight = in_flight

    def detect(
        self,
        images: ImageSource | Sequence[ImageSource],
        score_threshold: float | None = None,
        nms_threshold: float | None = None,
        max_detections: int | None = None,
        on_error: str = "raise",
    ) -> Any:
        """Find the faces of a photo, or of each photo of a list, without the close-up pass.

        JPEG and PNG files are sent unchanged. Everything else is decoded here and sent as PNG, without loss.

        Args:
            images: what `RetinaFace.detect` takes.
            score_threshold, nms_threshold, max_detections: as in `RetinaFace.detect`. If all three are `None`, the
                server uses its own. If some are given, the others are 0.5, 0.4 and 750.
            on_error: "raise", or "skip" to return `None` for a photo that can't be used.

        Returns:
            `Detections`, or a list of `Detections` in the same order.

        Raises:
            ImageError: (a ValueError) if a photo can't be used; the message names the first one.
            ValueError: if an option is out of range.
            TimeoutError: if the deadline passes.
            ConnectionError: if the server can't be reached.
            ServingError: if it answers with an error.
        """
        if on_error not in ("raise", "skip"):
            raise ValueError(f'`on_error` must be "raise" or "skip". Received: on_error={on_error!r}')
        sources, single = as_photos(images)
        thresholds = _thresholds(score_threshold, nms_threshold, max_detections)
        results: list[Any] = [None] * len(sources)
        deadline = time.monotonic() + self.timeout
        for numbers, outputs in self._answers(sources, on_error, thresholds, deadline):
            for row, number in enumerate(numbers):
                if not outputs["error"][row]:
                    results[number] = _detections(outputs, row)
                elif on_error == "raise":
                    raise ImageError(f"{_name(sources, number)}: the server could not decode it, or it is too large")
        return results[0] if single else results

    def _answers(self, sources, on_error, thresholds, deadline):
        """Yield (numbers of the photos, outputs) of each request."""
        pool = ThreadPoolExecutor(self.in_flight)
        try:
            waiting: deque[tuple[Any, Any]] = deque()
            for numbers, contents in _requests(sources, self.batch_size, on_error):
                waiting.append((numbers, pool.submit(self._ask, contents, thresholds, deadline)))
                if len(waiting) >= self.in_flight:
                    yield self._wait(waiting.popleft(), deadline, sources)
            while waiting:
                yield self._wait(waiting.popleft(), deadline, sources)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _wait(self, asked, deadline, sources):
        numbers, answer = asked
        try:
            # A server that sends a byte now and then keeps a socket from timing out, but not this.
            return numbers, answer.result(max(0.0, deadline - time.monotonic()))
        except TimeoutError:
            raise self._too_late() from None
        except ServingError as error:
            more = f" and {len(numbers) - 1} more" if len(numbers) > 1 else ""
            raise ServingError(f"{_name(sources, numbers[0])}{more}: {error}") from None

    def _ask(self, contents, thresholds, deadline):
        seconds = deadline - time.monotonic()
        if seconds <= 0:
            raise self._too_late()
        inputs = {"image_bytes": contents}
        inputs |= {name: [value] * len(contents) for name, value in thresholds.items()}
        outputs = self._send("detect_bytes" if thresholds else "serve_bytes", inputs, seconds)
        if missing := sorted(OUTPUTS.keys() - outputs.keys()):
            raise ServingError(
                f"{self.address}: the model {self.model!r} is not an export of this package: "
                f"it has no output {missing[0]!r}"
            )
        try:
            return _check_outputs(outputs, len(contents))
        except ValueError as error:
            raise ServingError(f"{self.address}: the server's response is not a prediction ({error})") from None

    @abstractmethod
    def _send(self, signature, inputs, seconds):
        """One request: dict of arrays. Raises as `detect`."""

    def _too_late(self):
        return TimeoutError(f"{self.address}: no answer within the deadline of {self.timeout:g} s")

    def _unreachable(self, reason):
        return ConnectionError(f"{self.address}: no server to be reached ({one_line(reason)})")


def _check_outputs(outputs, count):
    """The outputs of that many photos as arrays of the right types, or ValueError for the first that is wrong."""
    checked = {}
    for name in [*OUTPUTS, *(["vertices"] if "vertices" in outputs else [])]:
        array = np.asarray(outputs[name])
        tail, kind = OUTPUTS.get(name, (None, "f"))  # vertices are checked below
        if array.dtype.kind not in {"f": "fiu", "i": "iu", "b": "b"}[kind] and array.size:
            raise ValueError(f"{name} of type {array.dtype}")
        if array.ndim == 0 or len(array) != count:
            raise ValueError(f"{name} of shape {list(array.shape)[:9]} for {count} photos")
        if tail is not None and array.size == 0:
            array = np.zeros((count, 0, *tail), np.float32)  # of photos without faces JSON tells no more
        if tail is not None and (array.ndim != 2 + len(tail) or array.shape[2:] != tail):
            raise ValueError(f"{name} of shape {list(array.shape)[:9]}")
        if kind == "f":
            array = array.astype(np.float32)
            if not np.isfinite(array).all():
                raise ValueError(f"{name} that are not finite")
        checked[name] = array
    if "vertices" in checked and (checked["vertices"].ndim != 4 or checked["vertices"].shape[3] != 3):
        raise ValueError("vertices of another shape")
    rows = checked["scores"].shape[1]
    good = ~checked["error"].astype(bool)
    if checked["count"].shape != (count,) or checked["error"].shape != (count,) or checked["size"].shape != (count, 2):
        raise ValueError("count, size or error of another shape")
    if any(checked[name].shape[1] != rows for name in checked.keys() & {"boxes", "landmarks", "vertices"}):
        raise ValueError("boxes, scores and landmarks of unequal lengths")
    if ((checked["count"] < 0) | (checked["count"] > rows)).any():
        raise ValueError(f"a count that is not from 0 to {rows}")
    boxes, used = checked["boxes"], np.arange(rows) < checked["count"][:, None]
    if ((boxes[..., 2:] < boxes[..., :2]) & used[..., None]).any():
        raise ValueError("boxes whose right or lower side comes first")
    if ((checked["size"] < 1) | (checked["size"] > MAX_SIDE))[good].any():
        raise ValueError("a photo of impossible size")
    if ((checked["scores"] < 0) | (checked["scores"] > 1)).any():
        raise ValueError("scores outside [0, 1]")
    return checked


def _thresholds(*values):
    names, usual = ("score_threshold", "nms_threshold", "max_detections"), (0.5, 0.4, 750)
    if all(value is None for value in values):
        return {}
    chosen: dict[str, Any] = {
        name: u if value is None else value for name, value, u in zip(names, values, usual, strict=True)
    }
    check_options(**chosen, resize=None, batch_size=1)
    return {name: type(u)(chosen[name]) for name, u in zip(names, usual, strict=True)}


def _requests(sources, batch_size, on_error):
    """Yield (numbers of the photos, their bytes), as many at a time as fit into one request."""
    numbers: list[int] = []
    contents: list[bytes] = []
    for photo in decode_ahead(enumerate(sources), _encoded):
        number, content, error = photo.key, photo.image, photo.error
        if isinstance(error, ImageError):
            if on_error == "skip":
                continue
            raise ImageError(f"photo {number} of {len(sources)}: {error}") if len(sources) > 1 else error from None
        if error is not None:
            raise error
        if contents and (len(contents) == batch_size or sum(map(len, contents)) + len(content) > MOST_BYTES):
            yield numbers, contents
            numbers, contents = [], []
        numbers.append(number)
        contents.append(content)
    if contents:
        yield numbers, contents


def _encoded(source):
    """The bytes of a photo, in a form that the server decodes."""
    content = source
    if isinstance(source, (str, os.PathLike)) and Path(source).is_file():
        content = Path(source).read_bytes()
    elif hasattr(source, "read") and not isinstance(source, Image.Image):
        content = source.read()
    if isinstance(content, (bytes, bytearray, memoryview)) and bytes(content[:8]).startswith(MAGIC):
        return bytes(content)
    png = io.BytesIO()
    Image.fromarray(load_image(source if content is source else io.BytesIO(content))).save(png, "PNG", compress_level=1)
    return png.getvalue()


def _name(sources, number):
    source = sources[number]
    kind = os.fspath(source) if isinstance(source, (str, os.PathLike)) else type(source).__name__
    return kind if len(sources) == 1 else f"photo {number} of {len(sources)}: {kind}"


def _detections(outputs, row):
    count = int(outputs["count"][row])
    height, width = (int(side) for side in outputs["size"][row])
    names = [name for name in ("boxes", "scores", "landmarks", "vertices") if name in outputs]
    arrays: dict[str, Any] = {name: np.asarray(outputs[name][row][:count], np.float32) for name in names}
    return Detections(**arrays, width=width, height=height)


MAX_ANSWER = 1 << 26  # bytes; lists of numbers take ten times as many in memory


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Raise `HTTPError` for a redirect: another server would answer."""

    def redirect_request(self, *args: Any) -> None:
        return None


_opener = urllib.request.build_opener(_NoRedirects)


class RestClient(Client):
    """A detector that runs in TensorFlow Serving, over its REST port (usually 8501).

    Args:
        address: str, "http://host:port", with or without a path before `/v1`.
        others: see `Client`.
    """

    SCHEMES = ("http://", "https://")
    EXAMPLE = "http://localhost:8501"

    def _send(self, signature, inputs, seconds):
        version = "" if self.version is None else f"/versions/{self.version}"
        url = f"{self.address.rstrip('/')}/v1/models/{self.model}{version}:predict"
        contents = [{"b64": base64.b64encode(content).decode("ascii")} for content in inputs["image_bytes"]]
        body = {"signature_name": signature, "inputs": {**inputs, "image_bytes": contents}}
        request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
        try:
            with _opener.open(request, timeout=seconds) as response:
                outputs = parse_json(response.read(MAX_ANSWER), {"outputs": DictOf()}, "answer")["outputs"]
        except urllib.error.HTTPError as error:
            raise ServingError(f"{self.address}: HTTP {error.code}: {_reason(error)}") from None
        except TimeoutError:
            raise self._too_late() from None
        except urllib.error.URLError as error:
            if isinstance(error.reason, TimeoutError):
                raise self._too_late() from None
            raise self._unreachable(error.reason) from None
        except (OSError, http.client.HTTPException) as error:
            raise self._unreachable(error) from None
        except ValueError as error:
            raise ServingError(f"{self.address}: the server's response is not a prediction ({error})") from None
        try:
            return {name: np.asarray(value) for name, value in outputs.items()}
        except ValueError:
            raise ServingError(
                f"{self.address}: the server's response is not a prediction (lists of unequal lengths)"
            ) from None


def _reason(error):
    """The error message of the server, in one line."""
    try:
        text = parse_json(error.read(MAX_ANSWER), {"error": str}, "answer")["error"]
    except (ValueError, OSError, http.client.HTTPException):
        text = error.reason
    return one_line(text)
