"""What a user relies on: the same faces however a photo comes, whatever its size, alone or in a list."""

import io

import numpy as np
import pytest
from PIL import Image

from retinaface_tf.image.loading import ImageError, load_image

EYE_LEFT, EYE_RIGHT, NOSE, MOUTH_LEFT, MOUTH_RIGHT = range(5)


@pytest.fixture(scope="module")
def photo(sample_photo):
    return load_image(sample_photo)


def close(found, expected, pixels=1.5, score=0.02):
    assert len(found) == len(expected)
    np.testing.assert_allclose(found.boxes, expected.boxes, atol=pixels)
    np.testing.assert_allclose(found.scores, expected.scores, atol=score)
    np.testing.assert_allclose(found.landmarks, expected.landmarks, atol=pixels)


def test_the_face_of_the_bundled_photo(bundled_model, sample_photo):
    faces = bundled_model.detect(sample_photo)
    assert (faces.width, faces.height, len(faces)) == (512, 512, 1)
    # Marked by hand in an image viewer: hair line to chin, ear to ear; pupils; tip of the nose; corners of the mouth.
    np.testing.assert_allclose(faces.boxes[0], [178, 60, 273, 178], atol=10)
    np.testing.assert_allclose(faces.landmarks[0], [[204, 103], [247, 105], [225, 128], [203, 141], [245, 142]], atol=7)
    assert faces.scores[0] > 0.99
    assert faces.boxes.dtype == faces.scores.dtype == faces.landmarks.dtype == np.float32


def test_every_form_of_a_photo_gives_the_same_faces(bundled_model, sample_photo, photo):
    expected = bundled_model.detect(sample_photo)
    for form in (str(sample_photo), sample_photo.read_bytes(), Image.fromarray(photo), photo):
        close(bundled_model.detect(form), expected, pixels=1e-3, score=1e-6)
    for listed in ([photo], (photo,), photo[None]):
        (found,) = bundled_model.detect(listed)
        close(found, expected, pixels=1e-3, score=1e-6)
    assert bundled_model.detect([]) == []


def test_a_turned_photo_with_exif_gives_boxes_as_a_person_sees_it(bundled_model, photo):
    expected = bundled_model.detect(photo)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned; show it turned back
    buffer = io.BytesIO()
    Image.fromarray(np.rot90(photo)).save(buffer, "PNG", exif=exif)
    close(bundled_model.detect(buffer.getvalue()), expected, pixels=1e-3, score=1e-6)


def test_left_and_right_are_those_of_the_picture(bundled_model, photo):
    for image in (photo, photo[:, ::-1]):
        (points,) = bundled_model.detect(image).landmarks
        assert points[EYE_LEFT, 0] < points[NOSE, 0] < points[EYE_RIGHT, 0]
        assert points[MOUTH_LEFT, 0] < points[MOUTH_RIGHT, 0]
        assert points[EYE_LEFT, 1] < points[NOSE, 1] < points[MOUTH_LEFT, 1]


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "CMYK", "P"])
def test_color_modes_keep_the_face(bundled_model, photo, mode):
    close(bundled_model.detect(Image.fromarray(photo).convert(mode)), bundled_model.detect(photo), pixels=5, score=0.1)


def test_sixteen_bits_keep_the_face(bundled_model, photo):
    gray = np.asarray(Image.fromarray(photo).convert("L"))
    close(bundled_model.detect(gray.astype(np.uint16) * 257), bundled_model.detect(gray), pixels=1e-3, score=1e-6)


def test_swapped_channels_are_not_the_same(bundled_model, photo):
    """A guard for the tests above: were the order lost somewhere, the score would be this one."""
    assert abs(bundled_model.detect(photo[..., ::-1]).scores[0] - bundled_model.detect(photo).scores[0]) > 1e-5


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (300, 1), (2, 2), (33, 31), (64, 48)])
def test_tiny_photos_give_empty_arrays_of_the_right_shape(bundled_model, size):
    faces = bundled_model.detect(np.full((*size, 3), 90, np.uint8))
    assert (faces.boxes.shape, faces.scores.shape, faces.landmarks.shape) == ((0, 4), (0,), (0, 5, 2))
    assert faces.boxes.dtype == faces.scores.dtype == faces.landmarks.dtype == np.float32
    assert (faces.height, faces.width) == size


def test_a_photo_in_tiles(bundled_model, photo, monkeypatch):
    """As of more than 12 megapixels, with limits at which four tiles are small."""
    monkeypatch.setattr("retinaface_tf.inference.predictor.WHOLE_PIXELS", 1_300_000)
    monkeypatch.setattr("retinaface_tf.inference.tiles.TILE_PIXELS", 1_300_000)
    canvas = np.zeros((1216, 1600, 3), np.uint8)
    canvas[672:1184, 1056:1568] = photo  # on the grid of stride 32, so the same cells see it
    faces = bundled_model.detect(canvas)
    assert len(faces) == 1
    np.testing.assert_allclose(faces.boxes[0] - [1056, 672, 1056, 672], bundled_model.detect(photo).boxes[0], atol=2)


def test_boxes_stay_inside_the_photo(bundled_model, photo):
    faces = bundled_model.detect(photo[80:160, 190:260])
    assert len(faces) == 1
    assert faces.boxes.min() >= 0
    assert (faces.boxes[:, 2:] <= [70, 80]).all()


def test_a_list_gives_the_same_as_one_by_one(bundled_model, photo):
    picture = Image.fromarray(photo)
    images = [np.asarray(picture.resize(size)) for size in ((512, 512), (300, 200), (512, 512), (97, 131), (300, 200))]
    images += [np.zeros((300, 200, 3), np.uint8), np.asarray(picture.crop((178, 57, 273, 177)).resize((760, 960)))]
    alone = [bundled_model.detect(image) for image in images]
    for batch_size in (1, 2, 8):
        for found, expected in zip(bundled_model.detect(images, batch_size=batch_size), alone, strict=True):
            close(found, expected, pixels=1e-3, score=1e-5)
            assert (found.width, found.height) == (expected.width, expected.height)


def test_batches_are_bounded_in_pixels_and_so_is_what_waits(monkeypatch):
    from retinaface_tf.inference import predictor as detect_module

    monkeypatch.setattr(detect_module, "MAX_PIXELS", 1000)
    batches = []

    def run(images, windows, **thresholds):
        batches.append(images.shape[:3])
        empty = {"boxes": (4,), "scores": (), "landmarks": (5, 2)}
        found = {name: np.zeros((len(images), 1, *shape), "float32") for name, shape in empty.items()}
        return {**found, "count": np.zeros(len(images), "int32")}

    def sizes(*sides):
        batches.clear()
        photos = [np.zeros((*side, 3), np.uint8) for side in sides]
        options = {"score_threshold": 0.5, "nms_threshold": 0.4, "max_detections": 9, "resize": None}
        detect_module.detect(run, photos, fill=(0, 0, 0), largest_anchor=512, batch_size=8, close_ups=False, **options)
        return list(batches)

    assert sizes(*[(20, 20)] * 5) == [(2, 20, 20), (2, 20, 20), (1, 20, 20)]
    assert sizes((50, 50), (50, 50)) == [(1, 50, 50), (1, 50, 50)]
    # Photos of different sizes wait until over 4,000 pixels are together (25 x (5 + ... + 18) = 4,025): the first goes.
    assert sizes(*[(25, width) for width in range(5, 21)])[0] == (1, 25, 5)


def test_resize_gives_boxes_in_pixels_of_the_photo(bundled_model, photo):
    expected = bundled_model.detect(photo)
    for resize in ((256, 400), (400, 400), (700, 1000)):
        close(bundled_model.detect(photo, resize=resize), expected, pixels=8, score=0.05)


def test_max_detections_keeps_the_surest(bundled_model, photo):
    pair = np.concatenate([photo, photo[:, ::-1]], axis=1)
    both = bundled_model.detect(pair)
    one = bundled_model.detect(pair, max_detections=1)
    assert (len(both), len(one)) == (2, 1)
    assert one.scores[0] == both.scores[0] >= both.scores[1]


def test_auto_enlarges_small_photos_and_only_those(bundled_model, photo):
    small = Image.fromarray(photo).resize((128, 128))
    auto, enlarged = bundled_model.detect(small), bundled_model.detect(small, resize=(640, 640))
    np.testing.assert_array_equal(auto.boxes, enlarged.boxes)
    assert len(auto) == 1 and auto.boxes.max() <= 128 and (auto.width, auto.height) == (128, 128)
    large = Image.fromarray(photo).resize((700, 640))
    np.testing.assert_array_equal(bundled_model.detect(large).boxes, bundled_model.detect(large, resize=None).boxes)
    with pytest.raises(ValueError, match="`resize` must be None, 'auto' or a pair"):
        bundled_model.detect(small, resize="640")


def test_one_bad_photo_of_a_list_is_named(bundled_model, photo):
    with pytest.raises(ImageError, match=r"photo 1 of 3: missing\.jpg: no such file"):
        bundled_model.detect([photo, "missing.jpg", photo])


def test_any_size_with_one_trace(bundled_model):
    random = np.random.default_rng(0)
    for height, width in random.integers(1, 300, (20, 2)):
        bundled_model.detect(np.zeros((height, width, 3), np.uint8), score_threshold=float(random.uniform(0.1, 0.9)))
    assert bundled_model.inference().traces() == 1
