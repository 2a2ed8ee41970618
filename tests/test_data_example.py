"""What the writer puts into an example is what the parser takes out."""

import numpy as np
import pytest
import tensorflow as tf
import wider_tree
from PIL import Image

from retinaface_tf.annotations.annotations import FLAGS, annotate_photo
from retinaface_tf.common.types import NOT_LABELED, OCCLUDED, VISIBLE
from retinaface_tf.data.cleaning import PhotoError, read_photo
from retinaface_tf.data.example import check_decodes, decode_photo, parse_example, to_example


@pytest.fixture
def photo(tmp_path):
    wider_tree.make_photos(tmp_path, ["a.jpg"])
    return read_photo(tmp_path / "a.jpg")


def a_record(count):
    random = np.random.default_rng(count)
    low = random.uniform(0, 60, (count, 2))
    return annotate_photo(
        "0--Parade/ä.jpg",
        np.concatenate([low, low + random.uniform(1, 40, (count, 2))], axis=-1),
        random.uniform(-3, 110, (count, 5, 2)),
        random.choice([NOT_LABELED, OCCLUDED, VISIBLE], (count, 5)),
        random.integers(-1, 3, (count, len(FLAGS))),
        random.uniform(0, 1, count),
    )


@pytest.mark.parametrize("traced", [False, True])
@pytest.mark.parametrize("count", [0, 1, 7, 1000])
def test_parse_of_write_is_the_same(count, traced, photo):
    record = a_record(count)
    serialized = to_example(record, photo)
    if traced:
        parsed = next(iter(tf.data.Dataset.from_tensors(serialized).map(parse_example)))
    else:
        parsed = parse_example(serialized)
    parsed = {key: value.numpy() for key, value in parsed.items()}
    np.testing.assert_allclose(parsed["boxes"], record.boxes, atol=1e-4)
    np.testing.assert_allclose(parsed["landmarks"], record.landmarks, atol=1e-4)
    np.testing.assert_array_equal(parsed["visible"], record.visible)
    np.testing.assert_allclose(parsed["blur_score"], record.blur_score, rtol=1e-6)
    for index, flag in enumerate(FLAGS):
        np.testing.assert_array_equal(parsed[flag], record.flags[:, index], err_msg=flag)
    assert parsed["boxes"].shape == (count, 4) and parsed["landmarks"].shape == (count, 5, 2)
    assert parsed["encoded"] == photo.encoded and parsed["filename"].decode() == record.files[0]
    assert (parsed["width"], parsed["height"], parsed["orientation"]) == (120, 100, 1)
    assert (parsed["format"], parsed["sha256"].decode()) == (b"jpeg", photo.sha256)


def test_field_names_are_the_standard_ones(photo):
    message = tf.train.Example.FromString(to_example(a_record(2), photo))
    features = message.features.feature
    standard = ["filename", "source_id", "encoded", "format", "height", "width", "key/sha256"]
    standard += [f"object/bbox/{side}" for side in ("xmin", "xmax", "ymin", "ymax")]
    standard += ["object/class/label", "object/class/text"]
    assert {f"image/{name}" for name in standard} <= set(features)
    assert features["image/object/class/label"].int64_list.value == [1, 1]
    corners = [features[f"image/object/bbox/{side}"].float_list.value[0] for side in ("xmin", "ymin", "xmax", "ymax")]
    np.testing.assert_allclose(corners, a_record(2).boxes[0] / [120, 100, 120, 100], rtol=1e-6)


def test_equal_input_gives_equal_bytes(photo):
    assert to_example(a_record(3), photo) == to_example(a_record(3), photo)


def test_a_foreign_example_is_refused():
    with pytest.raises(tf.errors.InvalidArgumentError):
        parse_example(b"not an example")
    with pytest.raises(tf.errors.InvalidArgumentError, match="image/encoded"):
        parse_example(tf.train.Example().SerializeToString())


@pytest.mark.parametrize("suffix", ["jpg", "png", "bmp", "gif", "webp"])
def test_photos_of_every_accepted_format_decode(suffix, tmp_path):
    wider_tree.make_photos(tmp_path, [f"a.{suffix}"])
    photo = read_photo(tmp_path / f"a.{suffix}")
    image = decode_photo(photo.encoded)
    assert image.dtype == tf.uint8 and image.shape == (100, 120, 3)
    expected = np.asarray(Image.open(tmp_path / f"a.{suffix}").convert("RGB")).astype(int)
    assert np.abs(image.numpy() - expected).mean() < 2


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "I;16", "CMYK"])
def test_photos_of_every_mode_decode_to_three_channels(mode, tmp_path):
    path = tmp_path / ("a.jpg" if mode == "CMYK" else "a.png")
    gray = np.arange(120 * 100).reshape(100, 120) % 256
    image = Image.fromarray(gray.astype(np.uint16 if mode == "I;16" else np.uint8))
    (image if mode == "I;16" else image.convert(mode)).save(path)
    assert decode_photo(read_photo(path).encoded).shape == (100, 120, 3)


def test_boxes_fit_the_decoded_pixels_of_a_turned_photo(tmp_path):
    """tf.io.decode_image ignores EXIF, and so do the labels."""
    pixels = np.zeros((100, 120, 3), np.uint8)
    pixels[20:50, 10:70] = 255
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    photo = read_photo(tmp_path / "a.png")
    parsed = parse_example(to_example(annotate_photo("a.png", [[10, 20, 70, 50]]), photo))
    assert parsed["orientation"] == 6
    left, top, right, bottom = np.rint(parsed["boxes"][0]).astype(int)
    image = decode_photo(parsed["encoded"]).numpy()
    assert image[top:bottom, left:right].min() == 255 and image.astype(int).sum() == 255 * 3 * 30 * 60


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
def test_damaged_photos_are_found_exactly_where_training_would_fail(suffix, tmp_path):
    """Cut anywhere, or with wrong bytes in the middle: the check at an eighth of the size agrees with the decoder."""
    path = tmp_path / f"a.{suffix}"
    noise = np.random.default_rng(0).integers(0, 256, (96, 120, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    whole = path.read_bytes()
    damaged = [whole] + [whole[:end] for end in range(len(whole) // 2, len(whole), len(whole) // 30)]
    for start in range(700, len(whole) - 40, len(whole) // 60):
        damaged.append(whole[:start] + b"\xff\x00\xff\xd9\x12\x34\xff\xff" + whole[start + 8 :])
    refused = 0
    for content in damaged:
        path.write_bytes(content)
        try:
            photo = read_photo(path)
        except PhotoError:
            refused += 1
            continue
        try:
            decode_photo(content)
            decodes = True
        except tf.errors.OpError:
            decodes = False
        if decodes:
            check_decodes(photo)
        else:
            refused += 1
            with pytest.raises(PhotoError, match="can't be decoded") as caught:
                check_decodes(photo)
            assert caught.value.kind == "corrupt_photo" and "\n" not in str(caught.value)
    assert 10 < refused < len(damaged)
