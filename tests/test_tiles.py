"""Large photos in tiles: the same faces as at once, in the memory of a tile."""

import numpy as np
import pytest
from PIL import Image

from retinaface_tf import load
from retinaface_tf.image.loading import load_image
from retinaface_tf.inference import predictor, tiles


@pytest.mark.parametrize(("height", "width"), [(4000, 6000), (9000, 12000), (3100, 4100), (300, 60000), (60000, 500)])
def test_tiles_cover_the_image_and_overlap_by_a_face(height, width):
    plan = tiles.plan_tiles(height, width, largest_anchor=512)
    assert len(plan) > 1
    owned = 0
    for top, bottom, left, right, (x1, y1, x2, y2) in plan:
        assert 0 <= top < bottom <= height and 0 <= left < right <= width
        assert top % 32 == left % 32 == 0
        assert (bottom - top) * (right - left) <= 1.05 * tiles.TILE_PIXELS
        x1, y1, x2, y2 = max(x1, 0), max(y1, 0), min(x2, width), min(y2, height)
        owned += (x2 - x1) * (y2 - y1)
        for own, edge, end in ((x1, left, 0), (y1, top, 0), (right, x2, width), (bottom, y2, height)):
            assert own == edge == end or own - edge >= 704 / 2  # a face of 704 pixels around the own part's edge fits
    assert owned == height * width


def test_faces_at_the_seams_are_found_once(monkeypatch, sample_photo):
    detector = load("mobilenet025_wider")
    face = Image.fromarray(load_image(sample_photo)).crop((130, 10, 330, 210))
    canvas = Image.new("RGB", (1900, 1700), (123, 117, 104))
    for x in range(0, 1700, 230):
        for y in range(0, 1500, 230):
            canvas.paste(face, (x, y))
    photo = np.asarray(canvas)
    whole = detector.detect(photo, close_ups=False)
    assert len(whole) == 8 * 7
    monkeypatch.setattr(predictor, "WHOLE_PIXELS", 1_000_000)
    monkeypatch.setattr(tiles, "TILE_PIXELS", 1_500_000)
    assert len(tiles.plan_tiles(1700, 1900, 512)) >= 4
    tiled = detector.detect(photo, close_ups=False)
    assert len(tiled) == len(whole)
    nearest = np.abs(tiled.boxes[:, None] - whole.boxes[None]).max(axis=2)
    assert sorted(nearest.argmin(axis=1)) == list(range(len(whole)))
    assert nearest.min(axis=1).max() < 2
    assert len(detector.detect(photo, max_detections=5)) == 5
