"""Convert HDR and wide-gamut frames to the colors of standard video (BT.709), with a 3D lookup table."""

from __future__ import annotations

import tempfile
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

# Of ISO/IEC 23091-4: "ColourPrimaries", "TransferCharacteristics" and "MatrixCoefficients".
BT709, UNSPECIFIED, BT601, BT2020, BT2020_CONSTANT, P3, PQ, HLG = 1, 2, 6, 9, 10, 12, 16, 18
NODES = 33  # of the table in each channel, as grading tools have it; the error is below one step of 8 bits
WHITE = 203.0  # candela a square meter of HDR reference white, by ITU-R BT.2408
HLG_PEAK, HLG_GAMMA = 1000.0, 1.2  # the reference display of BT.2100
KNEE = 0.6  # linear light up to which nothing is compressed; above, highlights of any height stay below 1
TO_BT709 = {  # of linear light, from primaries; those of BT.2020 by BT.2087
    BT709: np.eye(3),
    BT2020: np.array([[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]]),
    P3: np.array([[1.2249, -0.2247, 0], [-0.0420, 1.0419, 0], [-0.0197, -0.0786, 1.0979]]),
}
LUMINANCE = np.array([0.2627, 0.6780, 0.0593])  # of BT.2020's primaries


def describe(codec: Any) -> tuple[int, int, str]:
    """The colors of a video stream, as its codec context has them.

    Returns:
        (primaries, transfer, a line's words for what is converted or guessed, or empty). Missing tags are replaced by
        what they most likely are, where the others tell.
    """
    primaries, transfer, matrix = (
        int(getattr(codec, name, None) or UNSPECIFIED) for name in ("color_primaries", "color_trc", "colorspace")
    )
    deep = codec.format is not None and codec.format.components[0].bits > 8
    if primaries == UNSPECIFIED and (matrix in (BT2020, BT2020_CONSTANT) or transfer in (PQ, HLG)):
        primaries = BT2020
    guessed = primaries == BT2020 and transfer == UNSPECIFIED and deep
    transfer = PQ if guessed else transfer
    if transfer in (PQ, HLG):
        kind = f"HDR ({'PQ' if transfer == PQ else 'HLG'}{', which its tags leave open' if guessed else ''})"
        return primaries, transfer, f"{kind}: converted to standard colors (BT.709)"
    if primaries == BT2020:
        return primaries, transfer, "colors of BT.2020: converted to standard colors (BT.709)"
    if deep and primaries == transfer == UNSPECIFIED:
        return BT709, BT709, "no color tags: taken as standard colors (BT.709)"
    return primaries, transfer, ""


class ColorConverter:
    """Convert frames of one clip to BT.709: call it with `av.VideoFrame`s.

    Args:
        av: the module.
        primaries, transfer: int, as `describe` returns them.
    """

    def __init__(self, av: Any, primaries: int, transfer: int) -> None:
        self._av, self._primaries, self._transfer = av, primaries, transfer
        self._graph: Any = None
        self._size = (0, 0)

    def __call__(self, frame: Any) -> Any:
        """The frame as 16-bit planes of RGB, without its time stamp and rotation."""
        planes = frame.reformat(format="gbrp16le")
        if self._size != (frame.width, frame.height):
            self._graph, self._size = self._build(planes), (frame.width, frame.height)
        self._graph.push(planes)
        return self._graph.pull()

    def _build(self, planes):
        graph, second = self._av.filter.Graph(), Fraction(1)
        steps = [graph.add_buffer(width=planes.width, height=planes.height, format=planes.format, time_base=second)]
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "table.cube"
            colors = table(self._primaries, self._transfer).tolist()
            rows = "\n".join(" ".join(f"{value:.5f}" for value in row) for row in colors)
            path.write_text(f"LUT_3D_SIZE {NODES}\n{rows}\n", "utf-8")
            steps += [graph.add("lut3d", file=str(path)), graph.add("buffersink")]
        graph.link_nodes(*steps).configure()
        return graph


def table(primaries: int, transfer: int) -> np.ndarray:
    """BT.709 colors of a grid of signals of other colors: float64 `[NODES ** 3, 3]` in [0, 1], red changing fastest."""
    signal = np.stack(np.meshgrid(*[np.linspace(0, 1, NODES)] * 3, indexing="ij")[::-1], axis=-1).reshape(-1, 3)
    if transfer == PQ:
        light = _pq_light(signal) / WHITE
    elif transfer == HLG:
        light = _hlg_light(signal) / WHITE
    else:
        light = np.where(signal <= 0.04045, signal / 12.92, ((signal + 0.055) / 1.055) ** 2.4)
    light = np.maximum(light @ TO_BT709.get(primaries, TO_BT709[BT2020]).T, 0)
    if transfer in (PQ, HLG):  # all channels by one factor, so that hues stay
        highest = np.maximum(light.max(axis=-1, keepdims=True), 1e-9)
        rolled = KNEE + (1 - KNEE) * -np.expm1(-(highest - KNEE) / (1 - KNEE))
        light = light * np.where(highest > KNEE, rolled / highest, 1)
    light = np.minimum(light, 1)
    return np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)


def _pq_light(signal):
    """The EOTF of SMPTE ST 2084: candela a square meter."""
    root = signal ** (1 / 78.84375)
    return 10000 * (np.maximum(root - 0.8359375, 0) / (18.8515625 - 18.6875 * root)) ** (1 / 0.1593017578125)


def _hlg_light(signal):
    """The inverse OETF and the OOTF of HLG, by BT.2100: candela a square meter."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    scene = np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12)
    return HLG_PEAK * scene * np.maximum(scene @ LUMINANCE, 1e-9)[..., None] ** (HLG_GAMMA - 1)
