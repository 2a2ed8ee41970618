"""Augmentation moves pixels and labels together, and nothing else is random than the seed says."""

import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from retinaface_tf.common.types import NOT_LABELED, OCCLUDED, VISIBLE
from retinaface_tf.data.augment import (
    INTERPOLATIONS,
    Augmentation,
    blur,
    distort_colors,
    fill_around,
    mirror,
    mosaic,
    plain,
    resize,
    rotate,
    rotate_quarters,
)
from retinaface_tf.data.crop import (
    CROP_SIDES,
    LARGE_CROP_SIDES,
    crop_faces,
    cut,
    random_square,
    square_for_face,
    whole_square,
)
from retinaface_tf.data.fields import FACE_FIELDS

FILL = (123, 117, 104)
# Colors that stay apart under any resizing: the five landmarks of `marked_photo`.
COLORS = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 0], [255, 0, 255]], np.uint8)
POINTS = np.array([[70, 62], [118, 58], [95, 85], [74, 108], [114, 111]], np.float32)


def marked_photo(height=180, width=260):
    """A black photo with a face box of 90 x 80 pixels and a spot of 9 x 9 pixels painted at each landmark."""
    image = np.zeros((height, width, 3), np.uint8)
    for (x, y), color in zip(POINTS.astype(int), COLORS, strict=True):
        image[y - 4 : y + 5, x - 4 : x + 5] = color
    return {
        "image": tf.constant(image),
        "boxes": tf.constant([[50.0, 45, 140, 125]]),
        "landmarks": tf.constant(POINTS[None] + 0.5),  # the middle of the spot's middle pixel
        "visible": tf.constant([[VISIBLE, OCCLUDED, VISIBLE, VISIBLE, VISIBLE]]),
        "scores": tf.ones([1]),
        "ignored": tf.zeros([1], tf.int32),
    }


def a_crowd(count, height=480, width=640, seed=0):
    random = np.random.default_rng(seed)
    low = random.uniform(0, [width - 12, height - 14], (count, 2))
    boxes = np.concatenate([low, low + random.uniform(3, 12, (count, 2))], axis=-1)
    return {
        "image": tf.constant(random.integers(0, 256, (height, width, 3), dtype=np.uint8)),
        "boxes": tf.constant(boxes, tf.float32),
        "landmarks": tf.constant(low[:, None] + random.uniform(0, 9, (count, 5, 2)), tf.float32),
        "visible": tf.constant(random.choice([NOT_LABELED, OCCLUDED, VISIBLE], (count, 5)), tf.int32),
        "scores": tf.ones([count]),
        "ignored": tf.zeros([count], tf.int32),
    }


def faces_of(example):
    return {key: example[key] for key in ("boxes", *(each.name for each in FACE_FIELDS))}


def middle_of(image, color):
    """Continuous x, y of a painted spot, or None."""
    rows, columns = np.nonzero(np.abs(np.asarray(image).astype(int) - color).sum(-1) < 120)
    return None if not len(rows) else np.array([columns.mean() + 0.5, rows.mean() + 0.5])


def spots_fit(image, faces, face=0, colors=COLORS, tolerance=1.0):
    """How many spots are seen, each at its landmark."""
    seen = 0
    for point, color in zip(faces["landmarks"][face].numpy(), colors, strict=True):
        margin = 5 * image.shape[0] / 60
        if (point > margin).all() and (point < image.shape[0] - margin).all():
            np.testing.assert_allclose(middle_of(image, color), point, atol=tolerance)
            seen += 1
    return seen


@pytest.mark.parametrize("sides", [CROP_SIDES, LARGE_CROP_SIDES])
@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
def test_what_is_painted_at_a_landmark_is_there_afterwards(interpolation, sides):
    augmentation = Augmentation(
        160, crop_sides=sides, interpolations=[interpolation], color_probability=0, fill=(0, 0, 0), rot90=0.3
    )
    photo, seen, mirrored = marked_photo(), 0, 0
    for seed in range(8):
        image, faces = augmentation(photo, [seed, 0])
        assert image.shape == (160, 160, 3) and image.dtype == tf.uint8
        assert faces["boxes"].shape == (1, 4)  # the only face is never lost
        swapped = faces["visible"].numpy()[0, 0] == OCCLUDED
        mirrored += swapped
        # A mirrored face's left eye is the one that was its right: the colors say which.
        seen += spots_fit(image, faces, colors=COLORS[[1, 0, 2, 4, 3]] if swapped else COLORS)
        low, high = faces["boxes"][0, :2].numpy(), faces["boxes"][0, 2:].numpy()
        assert (faces["landmarks"][0].numpy() >= low - 1e-3).all() and (
            faces["landmarks"][0].numpy() <= high + 1e-3
        ).all()
    assert seen >= 30 and 0 < mirrored < 8


@pytest.mark.parametrize("degrees", [-40.0, 15.0, 90.0])
def test_rotation_moves_pixels_and_landmarks_alike(degrees):
    photo = marked_photo(180, 180)
    image, faces = rotate(
        photo["image"], faces_of(photo), FACE_FIELDS, tf.constant(degrees), tf.constant([9, 8, 7], tf.uint8)
    )
    assert spots_fit(image, faces, tolerance=0.6) == 5
    if degrees == 90.0:  # clockwise: what was on top is on the right
        turned, exact = rotate_quarters(photo["image"], faces_of(photo), FACE_FIELDS, tf.constant(3))
        np.testing.assert_allclose(faces["boxes"], exact["boxes"], atol=1e-3)
        np.testing.assert_allclose(faces["landmarks"], exact["landmarks"], atol=1e-3)
        assert np.abs(image.numpy().astype(int) - turned.numpy()).mean() < 1
    else:
        assert image.numpy()[0, 0].tolist() == [9, 8, 7]
        # The inscribed ellipse's box: not larger than the turned corners', not smaller than the face's short side.
        sides = (faces["boxes"][0, 2:] - faces["boxes"][0, :2]).numpy()
        assert (sides >= 79.9).all() and (sides <= 90.1).all()


@pytest.mark.parametrize("quarters", range(4))
def test_quarter_turns_are_exact(quarters):
    photo = marked_photo(180, 180)
    image, faces = rotate_quarters(photo["image"], faces_of(photo), FACE_FIELDS, tf.constant(quarters))
    assert spots_fit(image, faces, tolerance=1e-3) == 5
    image, faces = rotate_quarters(image, faces, FACE_FIELDS, tf.constant((4 - quarters) % 4))
    np.testing.assert_array_equal(image, photo["image"])
    np.testing.assert_allclose(faces["boxes"], photo["boxes"])


def test_mirror_swaps_left_and_right_and_twice_is_nothing():
    photo = marked_photo()
    image, faces = mirror(photo["image"], faces_of(photo), FACE_FIELDS)
    np.testing.assert_allclose(faces["boxes"], [[120, 45, 210, 125]])
    assert faces["visible"].numpy().tolist() == [[OCCLUDED, VISIBLE, VISIBLE, VISIBLE, VISIBLE]]
    left_eye, right_eye, nose, left_mouth, right_mouth = faces["landmarks"][0].numpy()
    assert left_eye[0] < right_eye[0] and left_mouth[0] < right_mouth[0]
    np.testing.assert_allclose(nose, [260 - 95.5, 85.5])
    np.testing.assert_array_equal(image[62, 259 - 70], COLORS[0])
    image, faces = mirror(image, faces, FACE_FIELDS)
    np.testing.assert_array_equal(image, photo["image"])
    for key, value in faces.items():
        np.testing.assert_array_equal(value, photo[key], err_msg=key)


def test_inputs_are_not_changed():
    crowd = a_crowd(20)
    before = {key: value.numpy().copy() for key, value in crowd.items()}
    Augmentation(64, rot90=1.0, rotation=10.0, mirror=1.0, color_probability=1.0)(crowd, [1, 2])
    assert set(crowd) == set(before)
    for key, value in crowd.items():
        np.testing.assert_array_equal(value, before[key], err_msg=key)


@pytest.mark.parametrize("count", [0, 30])
def test_eager_is_the_same_as_tf_data(count):
    crowd = a_crowd(count)
    augmentation = Augmentation(96, rot90=0.5, rotation=10.0)
    seeds = tf.constant([[7, index] for index in range(6)], tf.int64)
    traced = tf.data.Dataset.from_tensor_slices(seeds).map(lambda seed: augmentation(crowd, seed))
    for seed, (image, faces) in zip(seeds, traced, strict=True):
        expected, those = augmentation(crowd, seed)
        assert np.abs(image.numpy().astype(int) - expected.numpy()).max() <= 1
        for key, value in faces.items():
            np.testing.assert_allclose(value, those[key], atol=1e-3, err_msg=key)


def test_the_seed_decides_all():
    crowd, augmentation = a_crowd(30), Augmentation(64)
    seeds = (tf.constant([3, 4], tf.int32), tf.constant([3, 4], tf.int64), [3, 5])
    one, again, other = (augmentation(crowd, seed)[0].numpy() for seed in seeds)
    np.testing.assert_array_equal(one, again)
    assert (one != other).any()


@pytest.mark.parametrize("sides", [CROP_SIDES, LARGE_CROP_SIDES])
def test_the_square_wholly_contains_a_face(sides):
    boxes = np.array([[0, 0, 40, 50], [300, 200, 420, 330], [620, 460, 640, 480]], np.float32)
    found, beyond = [], 0
    for seed in range(100):
        left, top, side = random_square(boxes, 480, 640, [seed, 1], sides=sides, image_size=100).numpy()
        inside = (boxes >= [left, top] * 2).all(-1) & (boxes <= [left + side, top + side] * 2).all(-1)
        assert inside.any()
        found.append(side)
        beyond += left < 0 or top < 0 or left + side > 640 or top + side > 480
    # One part of the short side each, made divisible for the reduced decoding.
    expected = {int(part * 480) // step * step for part in sides for step in (1, 2, 4, 8)}
    assert set(found) <= expected and len(set(found)) >= 4
    assert (beyond > 0) == (sides == LARGE_CROP_SIDES)


def test_a_face_that_no_square_can_hold_gives_the_whole_photo():
    boxes = tf.constant([[10.0, 5, 630, 100]])  # longer than the short side
    square = random_square(boxes, 120, 640, [0, 0], sides=CROP_SIDES, image_size=640)
    assert square.numpy().tolist() == [0, 0, 640]
    small = random_square(
        tf.constant([[10.0, 5, 30, 20]]), 120, 640, [0, 0], sides=CROP_SIDES, image_size=64, min_face=90
    )
    assert small.numpy().tolist() == whole_square(120, 640, image_size=64).numpy().tolist() == [0, 0, 640]


def test_photos_without_faces_give_random_squares():
    none = tf.zeros([0, 4])
    squares = [tuple(random_square(none, 90, 120, [s, 0], sides=CROP_SIDES, image_size=64).numpy()) for s in range(20)]
    assert len(set(squares)) > 10
    assert all(x >= 0 and y >= 0 and x + side <= 120 and y + side <= 90 for x, y, side in squares)
    image, faces = Augmentation(64)(a_crowd(0), [0, 0])
    assert image.shape == (64, 64, 3) and faces["boxes"].shape == (0, 4) and faces["landmarks"].shape == (0, 5, 2)


def test_the_center_decides_which_faces_stay():
    faces = {
        "boxes": tf.constant([[80.0, 82, 118, 122], [80, 82, 122, 122], [210, 210, 240, 250], [180, 180, 230, 230]]),
        "landmarks": tf.reshape(tf.range(40, dtype=tf.float32) * 10, [4, 5, 2]),
        "visible": tf.constant([[1] * 5, [1, 0, 1, -1, 1], [1] * 5, [-1] * 5]),
        "scores": tf.ones([4]),
        "ignored": tf.zeros([4], tf.int32),
    }
    kept = crop_faces(faces, FACE_FIELDS, tf.constant([100, 100, 200]), image_size=400)
    # Centers 99, 101, 225 and 205 across, 102, 102, 230 and 205 down, of a square from 100 to 300.
    np.testing.assert_allclose(kept["boxes"], [[0, 0, 44, 44], [220, 220, 280, 300], [160, 160, 260, 260]])
    assert kept["visible"].numpy().tolist() == [[1, 0, 1, -1, 1], [1] * 5, [-1] * 5]
    # Landmarks 100, 110 and so on: outside they keep their label, without one they are 0.
    np.testing.assert_allclose(kept["landmarks"][0], [[0, 20], [40, 60], [80, 100], [0, 0], [160, 180]])
    assert (kept["landmarks"][2].numpy() == 0).all()
    assert crop_faces(faces, FACE_FIELDS, tf.constant([100, 100, 200]), image_size=400, min_face=50)["boxes"].shape == (
        2,
        4,
    )
    away = crop_faces(faces, FACE_FIELDS, tf.constant([-100, 0, 150]), image_size=400)
    assert away["boxes"].shape == (0, 4)


@pytest.mark.parametrize("count", [1, 1000])
def test_crowds_stay_whole(count):
    crowd = a_crowd(count)
    _, faces = plain(640)(crowd, [0, 0])
    np.testing.assert_allclose(faces["boxes"], crowd["boxes"], atol=1e-3)
    labeled = crowd["visible"].numpy() != NOT_LABELED
    np.testing.assert_allclose(faces["landmarks"].numpy()[labeled], crowd["landmarks"].numpy()[labeled], atol=1e-3)
    _, faces = Augmentation(128)(crowd, [0, 0])
    boxes = faces["boxes"].numpy()
    assert len(boxes) > 0 and (boxes >= 0).all() and (boxes <= 128).all() and (boxes[:, 2:] > boxes[:, :2]).all()


def test_plain_is_the_whole_photo_at_the_top_left():
    photo = marked_photo()
    image, faces = plain(130, fill=(1, 2, 3))(photo, [0, 0])
    again, _ = plain(130, fill=(1, 2, 3))(photo, [5, 5])
    np.testing.assert_array_equal(image, again)
    np.testing.assert_allclose(faces["boxes"], photo["boxes"] / 2)
    assert image.numpy()[100, 50].tolist() == [1, 2, 3] and image.numpy()[80, 5].tolist() == [0, 0, 0]
    assert spots_fit(image, faces, tolerance=0.6) == 5


def encoded(image, kind, **options):
    file = io.BytesIO()
    Image.fromarray(image).save(file, kind, **options)
    return file.getvalue()


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_decoding_the_square_alone_gives_the_same_pixels(kind):
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 256, (12, 15, 3), dtype=np.uint8)).resize((333, 251))
    content = encoded(np.asarray(photo), kind)
    pixels = tf.io.decode_image(content, channels=3, expand_animations=False)
    shared = {"boxes": tf.zeros([0, 4]), "landmarks": tf.zeros([0, 5, 2]), "visible": tf.zeros([0, 5], tf.int32)}
    bytes_only = {"encoded": tf.constant(content), "height": tf.constant(251), "width": tf.constant(333), **shared}
    exact = Augmentation(80, crop_sides=LARGE_CROP_SIDES, reduced_decode=False)
    reduced = Augmentation(80, crop_sides=LARGE_CROP_SIDES, interpolations=["area"])
    for seed in range(6):
        image, _ = exact(bytes_only, [seed, 0])
        other, _ = exact({"image": pixels, **shared}, [seed, 0])
        # A JPEG's colors are interpolated; at the square's edge without the neighbors that it has in the photo.
        difference = np.abs(image.numpy().astype(int) - other.numpy())
        assert difference.max() <= (12 if kind == "JPEG" else 0) and difference.mean() < 0.1
        # At a half or a quarter it is the same picture, only smoother.
        image, _ = reduced(bytes_only, [seed, 0])
        other, _ = reduced({"image": pixels, **shared}, [seed, 0])
        assert np.abs(image.numpy().astype(int) - other.numpy()).mean() < 3


def test_a_reduced_square_has_the_same_place():
    image = np.zeros((900, 1200, 3), np.uint8)
    image[400:440, 640:720] = 255
    example = {"encoded": tf.constant(encoded(image, "JPEG", quality=95)), "height": 900, "width": 1200}
    patch, place = cut(example, tf.constant([-80, 160, 800]), image_size=100)
    assert place.numpy().tolist() == [10, 0, 100] and patch.shape == (93, 90, 3)  # to 720 and 900, at an eighth
    canvas = fill_around(patch, place, tf.constant(FILL, tf.uint8)).numpy()
    assert (
        canvas.shape == (100, 100, 3) and canvas[50, 5].tolist() == list(FILL) and canvas[96, 50].tolist() == list(FILL)
    )
    white = canvas.min(-1) > 200
    rows, columns = np.nonzero(white)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (30, 34, 90, 99)


def test_five_interpolations_are_drawn():
    photo = marked_photo()
    drawn = set()
    for seed in range(40):
        drawn.add(plain(70)(photo, [seed, 0])[0].numpy().tobytes())
    assert len(drawn) == 1
    options = {"crop_sides": None, "color_probability": 0, "mirror": 0}
    drawn = {Augmentation(70, **options)(photo, [seed, 0])[0].numpy().tobytes() for seed in range(40)}
    assert len(drawn) == 5
    flat = tf.fill([20, 20, 3], tf.constant(200, tf.uint8))
    for index in range(5):
        assert (resize(flat, 33, tf.constant(index)).numpy() == 200).all()


def colors(image, seed, **options):
    none = {"brightness": 0.0, "contrast": (1, 1), "saturation": (1, 1), "hue": 0.0, "probability": 1.0}
    return distort_colors(image, seed, **{**none, **options}).numpy().astype(int)


def test_each_color_change_does_what_it_says():
    image = tf.constant(np.random.default_rng(0).integers(60, 180, (8, 8, 3), dtype=np.uint8))
    before = image.numpy().astype(int)
    assert (colors(image, [0, 0], probability=0.0, brightness=32) == before).all()
    assert np.abs(colors(image, [0, 0]) - before).max() <= 1  # saturation and hue there and back
    shifts = [colors(image, [s, 0], brightness=32.0) - before for s in range(30)]
    assert all(np.ptp(shift) <= 2 for shift in shifts)
    means = [shift.mean() for shift in shifts]
    assert -32 <= min(means) < -15 and 15 < max(means) <= 32
    factors = [colors(image, [s, 0], contrast=(0.5, 1.5)).mean() / before.mean() for s in range(30)]
    assert 0.49 <= min(factors) < 0.7 and 1.25 < max(factors) <= 1.51
    for changed in (colors(image, [1, 0], saturation=(0.5, 0.5)), colors(image, [1, 0], hue=0.3)):
        assert np.abs(changed.max(-1) - before.max(-1)).max() <= 1  # the value of HSV stays
        assert np.abs(changed - before).mean() > 3
    gray = colors(image, [1, 0], saturation=(0.0, 0.0))
    assert np.ptp(gray, axis=-1).max() <= 1
    third = colors(tf.constant([[[200, 0, 0]]], tf.uint8), [5, 0], hue=1 / 3)
    assert third.max() == 200 and third.min() == 0
    some = {colors(image, [s, 0], probability=0.5, brightness=32.0).tobytes() for s in range(20)}
    assert before.tobytes() in some and len(some) > 5


def test_mosaic_keeps_each_face_in_its_quarter():
    parts = [plain(90, fill=(0, 0, 0))(marked_photo(180, 180), [0, 0]) for _ in range(4)]
    image, faces = mosaic([image for image, _ in parts], [one for _, one in parts], FACE_FIELDS)
    assert image.shape == (180, 180, 3) and faces["boxes"].shape == (4, 4)
    corners = [(0, 0), (90, 0), (0, 90), (90, 90)]
    for face, (x, y) in enumerate(corners):
        quarter = image[y : y + 90, x : x + 90]
        points = faces["landmarks"][face].numpy() - [x, y]
        for point, color in zip(points, COLORS, strict=True):
            np.testing.assert_allclose(middle_of(quarter, color), point, atol=0.6)
        np.testing.assert_allclose(faces["boxes"][face].numpy() - [x, y] * 2, [25, 22.5, 70, 62.5])


@pytest.mark.parametrize(
    "wrong",
    [
        {"mirror": 1.5},
        {"crop_sides": []},
        {"crop_sides": [0.0]},
        {"interpolations": ["cubic"]},
        {"contrast": (1.5, 0.5)},
        {"hue": 0.7},
        {"rotation": -1.0},
        {"blur": 1.5},
        {"face_sizes": (8, 4)},
        {"fill": (1, 2)},
    ],
)
def test_wrong_options_are_one_clear_line(wrong):
    with pytest.raises(ValueError, match=f"`{next(iter(wrong))}` must be") as caught:
        Augmentation(64, **wrong)
    assert "Received" in str(caught.value) and "\n" not in str(caught.value)


def test_a_square_for_a_face_shows_it_at_a_size_drawn_evenly():
    """Of squares for sizes from 8 to 64 a third each shows the face at 8 to 16, 16 to 32 and 32 to 64 pixels."""
    boxes = tf.constant([[50.0, 45, 140, 125]])
    options = {"face_sizes": (8, 64), "ends": (0.1, 2.0), "image_size": 128}
    square = tf.function(lambda seed: square_for_face(boxes, 600, 800, seed, **options))
    sizes = []
    for index in range(1000):
        left, top, side = square(tf.constant([7, index], tf.int64)).numpy()
        assert left <= 50 and top <= 45 and left + side >= 140 and top + side >= 125
        sizes.append(np.sqrt(90 * 80) * 128 / side)
    # Sides are whole numbers, and multiples of up to 8 where a JPEG is decoded at a part of its size.
    assert min(sizes) > 7.9 and max(sizes) < 66
    np.testing.assert_allclose(np.histogram(sizes, [0, 16, 32, 100])[0] / 1000, 1 / 3, atol=0.05)


def test_squares_for_faces_stay_within_the_ends_of_the_crop_sides():
    augmentation = Augmentation(128, crop_sides=(0.9, 1.0), face_sizes=(8, 64))
    for index in range(20):
        side = augmentation.choose({**marked_photo(600, 800), "height": 600, "width": 800}, np.array([7, index]))[2]
        assert 540 - 8 <= side <= 800


@pytest.mark.parametrize("count", [0, 3])
def test_face_sizes_by_lot_or_not_at_all(count):
    """At a probability of 0, and in photos without faces, the square is one of `crop_sides`."""
    photo = {**a_crowd(count), "height": 480, "width": 640}
    for probability in (0.0, 0.0 if count else 1.0):
        augmentation = Augmentation(64, crop_sides=(0.5,), face_sizes=(8, 9), face_size_probability=probability)
        assert augmentation.choose(photo, np.array([1, 2]))[2] == 240


def test_ignore_regions_go_where_faces_go_and_any_part_counts():
    """A region that the crop cuts stays, with its middle outside; a face does not. No square is made for a region."""
    photo = marked_photo(200, 200)
    photo = {key: tf.repeat(value, 3, axis=0) if key != "image" else value for key, value in photo.items()}
    photo["boxes"] = tf.constant([[10.0, 10, 30, 30], [90, 10, 130, 30], [90, 40, 130, 60]])
    photo |= {"scores": tf.constant([1.0, 0.5, 0.0]), "ignored": tf.constant([0, 0, 1])}
    example = {**photo, "height": 200, "width": 200}
    augmentation = Augmentation(100, crop_sides=(0.5,), color_probability=0, mirror=0)
    piece, square = (example["image"][:100, :100], tf.constant([0, 0, 100])), tf.constant([0, 0, 100])
    _, faces = augmentation.finish(piece, example, square, np.array([0, 0]))
    assert faces["boxes"].numpy().tolist() == [[10, 10, 30, 30], [90, 40, 100, 60]]
    assert faces["ignored"].numpy().tolist() == [0, 1] and faces["scores"].numpy().tolist() == [1, 0]
    alone = {**example, "ignored": tf.constant([1, 1, 0])}
    for index in range(20):
        left, top, side = augmentation.choose(alone, np.array([3, index])).numpy()
        assert left <= 90 and left + side >= 130 and top <= 40 and top + side >= 60


def test_blur_takes_detail_away_and_leaves_size_and_mean():
    noise = tf.constant(np.random.default_rng(0).integers(0, 256, (96, 96, 3), dtype=np.uint8))
    for index in range(5):
        lost = blur(noise, np.array([0, index]), probability=1.0)
        assert lost.shape == noise.shape and lost.dtype == tf.uint8
        values = np.array(lost, float)
        assert values.std() < 0.95 * np.array(noise, float).std()
        assert abs(values.mean() - np.array(noise, float).mean()) < 3
    assert (blur(noise, np.array([0, 0]), probability=0.0) == noise).numpy().all()
