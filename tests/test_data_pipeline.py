"""A batch depends on (seed, step) alone, and no record moves another."""

import numpy as np
import pytest
import tensorflow as tf
import wider_tree

from retinaface_tf.annotations.annotations import annotate_photo, join
from retinaface_tf.common.types import NOT_LABELED, VISIBLE
from retinaface_tf.data.augment import Augmentation
from retinaface_tf.data.cleaning import read_photo
from retinaface_tf.data.example import parse_example, read_shards, to_example
from retinaface_tf.data.inspect import before_and_after, read_photos
from retinaface_tf.data.manifest import open_shards
from retinaface_tf.data.pipeline import raw_steps, shard_errors, training_dataset, validation_dataset
from retinaface_tf.data.shards import ConvertOptions, write_shards

PHOTOS, SHARDS = 11, 3
SMALL = {"image_size": 32, "batch_size": 4, "seed": 5, "shuffle_buffer": 3}

# What is not about colors is tested without: the graph is built faster.
LIGHT = {"color_probability": 0.0, "interpolations": ("bilinear",)}


def faces_of(index):
    """Photo i has i % 4 faces, and only those of the first half landmarks."""
    boxes = np.array([[5, 5 + 9 * i, 25 + i, 13 + 9 * i] for i in range(index % 4)], float).reshape(-1, 4)
    if index > PHOTOS // 2:
        return boxes, None, None
    points = np.tile(boxes[:, None, :2], (1, 5, 1)) + np.arange(10).reshape(5, 2) / 2
    return boxes, points, np.full((len(boxes), 5), VISIBLE)


def write(folder, names, shards, faces=faces_of):
    wider_tree.make_photos(folder / "photos", names)
    records = [annotate_photo(name, *faces(index)) for index, name in enumerate(names)]
    write_shards(join(records), folder / "photos", folder / "shards", ConvertOptions(shards), source={}, workers=1)
    return [str(path) for path in open_shards(folder / "shards")[1]]


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pipeline")
    return write(folder, [f"{i:02d}.{'png' if i == 3 else 'jpg'}" for i in range(PHOTOS)], SHARDS)


@pytest.fixture(scope="module")
def ten_steps(paths):
    return batches(paths, 10)


def batches(paths, count, photos=PHOTOS, **options):
    dataset = training_dataset(paths, photos, **{**SMALL, **options})
    return list(dataset.take(count).as_numpy_iterator())


def same(one, other):
    assert len(one) == len(other)
    for (images, faces), (those, their) in zip(one, other, strict=True):
        np.testing.assert_array_equal(images, those)
        for key, value in faces.items():
            np.testing.assert_array_equal(value, their[key], err_msg=key)


def test_batches_are_what_they_should_be(ten_steps):
    for images, faces in ten_steps:
        most = faces["boxes"].shape[1]
        assert images.shape == (4, 32, 32, 3) and images.dtype == np.uint8
        assert faces["boxes"].shape == (4, most, 4) and faces["boxes"].dtype == np.float32
        assert faces["landmarks"].shape == (4, most, 5, 2) and faces["landmarks"].dtype == np.float32
        assert faces["visible"].shape == (4, most, 5) and faces["visible"].dtype == np.int32
        assert faces["image_weight"].tolist() == [1.0] * 4 and faces["image_weight"].dtype == np.float32
        padding = (faces["boxes"] == 0).all(-1)
        assert (faces["boxes"][~padding][:, 2:] > faces["boxes"][~padding][:, :2]).all()
        assert (faces["visible"][padding] == NOT_LABELED).all() and (faces["landmarks"][padding] == 0).all()
        assert most == 1 or not padding.all(0).any()  # no wider than the fullest photo
    assert any((faces["visible"] == VISIBLE).any() for _, faces in ten_steps)


@pytest.mark.parametrize("start", [1, 5, 8])
def test_a_run_that_starts_late_gives_the_same_batches(start, paths, ten_steps):
    # 11 photos in steps of 4: step 5 is in the second pass, 8 in the third; stretches of 3 photos.
    same(batches(paths, 10 - start, start_step=start), ten_steps[start:])


@pytest.mark.parametrize("calls", [1, 7])
def test_parallelism_and_the_global_seed_change_nothing(calls, paths, ten_steps):
    tf.random.set_seed(calls)
    same(batches(paths, 4, parallel_calls=calls), ten_steps[:4])


def rows_are(part, whole, rows):
    """The rows of the whole batches that a worker should get; the padding of faces may differ."""
    for (images, faces), (those, their) in zip(part, whole, strict=True):
        np.testing.assert_array_equal(images, those[rows])
        fewest = min(faces["boxes"].shape[1], their["boxes"].shape[1])
        for key, value in faces.items():
            short = value[:, :fewest] if value.ndim > 1 else value
            other = their[key][rows]
            np.testing.assert_array_equal(short, other[:, :fewest] if value.ndim > 1 else other, err_msg=key)
        assert not faces["boxes"][:, fewest:].any() and not their["boxes"][rows][:, fewest:].any()


@pytest.mark.parametrize("worker", [0, 1])
def test_workers_share_out_the_rows(worker, paths, ten_steps):
    part = batches(paths, 3, worker=worker, num_workers=2)
    rows_are(part, ten_steps[:3], slice(2 * worker, 2 * worker + 2))


@pytest.mark.slow
def test_workers_share_out_mosaics(paths):
    options = {"mosaic": 0.5, **LIGHT}
    part = batches(paths, 3, worker=1, num_workers=2, **options)
    rows_are(part, batches(paths, 3, **options), slice(2, 4))


def names_of(paths, steps, **options):
    dataset = raw_steps(paths, PHOTOS, **{"batch_size": 1, "seed": 5, "shuffle_buffer": 3, **options})
    found = [(int(step), parse_example(records[0])["filename"].numpy()) for step, records in dataset.take(steps)]
    assert [step for step, _ in found] == list(range(steps))
    return [name for _, name in found]


def test_each_pass_has_each_photo_once_in_another_order(paths):
    names = names_of(paths, 3 * PHOTOS)
    passes = [names[i * PHOTOS : (i + 1) * PHOTOS] for i in range(3)]
    assert all(len(set(one)) == PHOTOS for one in passes)
    assert passes[0] != passes[1] != passes[2] != passes[0]
    assert names_of(paths, PHOTOS, seed=6) != passes[0]
    # One shard at a time and no shuffling within: the order of the shards differs all the same.
    names = names_of(paths, 8 * PHOTOS, shuffle_buffer=1, cycle_length=1)
    assert len({tuple(names[i * PHOTOS : (i + 1) * PHOTOS]) for i in range(8)}) > 1


def test_a_photo_is_augmented_differently_in_each_pass(tmp_path):
    paths = write(tmp_path, ["a.jpg"], 1, faces=lambda index: faces_of(2))
    (images, faces), (later, _) = batches(paths, 2, photos=1)
    assert images.shape == (4, 32, 32, 3)
    assert len({image.tobytes() for image in np.concatenate([images, later])}) == 8
    assert ((faces["boxes"] != 0).any(-1).sum(-1) >= 1).all()
    same(batches(paths, 1, photos=1, start_step=1), [(later, _)])


def test_without_augmentation_it_is_the_whole_photo(paths):
    images, faces = batches(paths, 1, augment=False, image_size=60, batch_size=PHOTOS, fill=(9, 8, 7))[0]
    assert (images[:, 52:] == [9, 8, 7]).all() and (images[:, :50] != [9, 8, 7]).any()
    counts = (faces["boxes"] != 0).any(-1).sum(-1)
    assert sorted(counts) == sorted(index % 4 for index in range(PHOTOS))
    full = faces["boxes"][counts == 3][0]
    np.testing.assert_allclose(full, faces_of(3)[0] / 2, atol=1e-4)
    again = batches(paths, 1, augment=False, image_size=60, batch_size=PHOTOS, fill=(9, 8, 7), seed=1)[0][0]
    assert sorted(one.tobytes() for one in again) == sorted(one.tobytes() for one in images)


def test_max_faces_keeps_the_largest(paths):
    options = {"augment": False, "batch_size": PHOTOS, "image_size": 120}
    images, faces = batches(paths, 1, max_faces=2, **options)[0]
    assert faces["boxes"].shape == (PHOTOS, 2, 4) and faces["visible"].shape == (PHOTOS, 2, 5)
    every = batches(paths, 1, max_faces=9, **options)[0]
    assert every[1]["boxes"].shape == (PHOTOS, 9, 4)
    np.testing.assert_array_equal(images, every[0])
    for few, all_of_it in zip(faces["boxes"], every[1]["boxes"], strict=True):
        if all_of_it[2].any():  # three faces, the first the smallest
            np.testing.assert_array_equal(few, all_of_it[1:3])
        else:
            np.testing.assert_array_equal(few, all_of_it[:2])


def test_ignore_regions_and_scores_come_with_the_faces(tmp_path):
    """Two faces, one of them of a teacher, and a region: in the shard, in the batch, and in a mosaic of four."""
    names = [f"{number}.jpg" for number in range(4)]
    wider_tree.make_photos(tmp_path / "photos", names)
    boxes = [[5, 5, 25, 13], [5, 14, 26, 22], [2, 3, 8, 9]]
    labels = join(annotate_photo(n, boxes, scores=[1, 0.5, 1], ignore=[False, False, True]) for n in names)
    manifest = write_shards(
        labels, tmp_path / "photos", tmp_path / "shards", ConvertOptions(1), source={"kind": "test"}, workers=1
    )
    assert manifest["counts"]["faces"] == 8
    back, photos = read_shards([tmp_path / "shards"])
    first = back.only(["0"])
    np.testing.assert_allclose(first.boxes, boxes, atol=1e-4)
    assert first.scores.tolist() == [1, 0.5, 1] and first.subsets["all"].tolist() == [True, True, False]
    assert photos["0"] == (tmp_path / "photos/0.jpg").read_bytes()
    shards = open_shards(tmp_path / "shards")[1]
    _, batch = next(iter(validation_dataset(shards, image_size=64, batch_size=4)))
    assert batch["ignored"].numpy().tolist() == [[0, 0, 1]] * 4
    np.testing.assert_allclose(batch["scores"], [[1, 0.5, 0]] * 4)
    np.testing.assert_allclose(batch["boxes"][0, 2] / batch["boxes"][0, 0], [2 / 5, 3 / 5, 8 / 25, 9 / 13], rtol=1e-5)
    assert (batch["visible"].numpy()[:, 2] == NOT_LABELED).all()
    options = {"image_size": 64, "batch_size": 4, "seed": 0, "mosaic": 1.0, "crop_sides": None}
    _, mosaic = next(iter(training_dataset(shards, 4, **options)))
    assert (mosaic["ignored"].numpy().sum(axis=1) == 4).all()


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf, 1e38])
def test_a_box_that_is_not_finite_counts_its_photo_as_skipped(tmp_path, wrong):
    """A shard from elsewhere may hold any number: trained on, such a face would be background."""
    wider_tree.make_photos(tmp_path, ["a.jpg"])
    photo = read_photo(tmp_path / "a.jpg")
    good = to_example(annotate_photo("a.jpg", [[10, 10, 60, 60]]), photo)
    bad = tf.train.Example.FromString(good)
    bad.features.feature["image/object/bbox/xmax"].float_list.value[0] = wrong
    with tf.io.TFRecordWriter(str(tmp_path / "x.tfrecord")) as writer:
        writer.write(good)
        writer.write(bad.SerializeToString())
    _, faces = next(iter(validation_dataset([tmp_path / "x.tfrecord"], image_size=64, batch_size=2)))
    assert faces["image_weight"].numpy().tolist() == [1, 0]
    assert (faces["boxes"][1].numpy() == 0).all()


def test_batches_without_faces_have_room_for_one(tmp_path):
    paths = write(tmp_path, ["a.jpg"], 1, faces=lambda index: faces_of(0))
    _, faces = batches(paths, 1, photos=1)[0]
    assert faces["boxes"].shape == (4, 1, 4) and not faces["boxes"].any()
    assert (faces["visible"] == NOT_LABELED).all() and faces["image_weight"].tolist() == [1.0] * 4


def damaged(record, kind):
    example = tf.train.Example.FromString(record)
    feature = example.features.feature
    if kind == "not an example":
        return b"\x00\xff not an example"
    if kind == "no photo":
        del feature["image/encoded"]
    elif kind == "cut photo":
        content = feature["image/encoded"].bytes_list.value[0]
        feature["image/encoded"].bytes_list.value[0] = content[: len(content) // 2]
    elif kind == "wrong size":
        feature["image/height"].int64_list.value[0] = 5000
    elif kind == "landmarks missing":
        for side, value in (("xmin", 0.2), ("ymin", 0.2), ("xmax", 0.8), ("ymax", 0.8)):
            feature[f"image/object/bbox/{side}"].float_list.value.append(value)
    return example.SerializeToString()


def test_broken_records_are_empty_images_and_move_nothing(paths, tmp_path):
    kinds = ["not an example", "no photo", "cut photo", "wrong size", "landmarks missing"]
    bad, broken = {}, []
    for path in paths:
        broken.append(str(tmp_path / path.rsplit("/")[-1]))
        with tf.io.TFRecordWriter(broken[-1]) as writer:
            for number, record in enumerate(tf.data.TFRecordDataset(path)):
                if number % 2 and kinds:
                    bad[parse_example(record)["filename"].numpy()] = kinds.pop()
                    record = damaged(record.numpy(), list(bad.values())[-1])
                writer.write(record if isinstance(record, bytes) else record.numpy())
    assert not kinds
    assert len(read_photos(broken, PHOTOS, PHOTOS)) == PHOTOS - 3  # two of the five have a sound photo
    names = names_of(paths, 40)
    options = {"fill": (3, 2, 1), "crop_sides": (1.0,), **LIGHT}
    found, sound = batches(broken, 10, **options), batches(paths, 10, **options)
    for step, ((images, faces), (those, their)) in enumerate(zip(found, sound, strict=True)):
        for row in range(4):
            name = names[4 * step + row]
            assert faces["image_weight"][row] == (name not in bad), bad.get(name)
            if name in bad:
                assert (images[row] == [3, 2, 1]).all() and not faces["boxes"][row].any()
            else:
                np.testing.assert_array_equal(images[row], those[row])
                mine, theirs = (one["boxes"][row] for one in (faces, their))
                np.testing.assert_array_equal(mine[mine.any(-1)], theirs[theirs.any(-1)])


def test_an_error_of_ours_is_not_taken_for_a_broken_record(paths, monkeypatch):
    def fails(*_, **__):
        with tf.control_dependencies([tf.debugging.Assert(tf.constant(False), ["ours"])]):
            return tf.constant([0, 0, 10])

    monkeypatch.setattr(Augmentation, "choose", fails)
    with pytest.raises(tf.errors.InvalidArgumentError, match="ours"):
        batches(paths, 1, **LIGHT)


def test_a_damaged_shard_is_one_clear_line(paths, tmp_path):
    content = bytearray(tf.io.gfile.GFile(paths[1], "rb").read())
    content[len(content) // 2] ^= 255
    (tmp_path / "faces.tfrecord").write_bytes(content)
    those = [paths[0], str(tmp_path / "faces.tfrecord"), paths[2]]
    with pytest.raises(ValueError, match=r"faces\.tfrecord: a damaged shard") as caught, shard_errors(those):
        batches(those, 10, **LIGHT)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("claimed", [PHOTOS - 1, PHOTOS + 1])
def test_a_wrong_number_of_photos_is_noticed(claimed, paths):
    with pytest.raises(ValueError, match="as many photos as their manifest says") as caught, shard_errors(paths):
        batches(paths, 10, photos=claimed, **LIGHT)
    assert "\n" not in str(caught.value)


def test_mosaic_has_the_faces_of_four(paths):
    _, faces = batches(paths, 1, augment=False, batch_size=PHOTOS, mosaic=1.0)[0]
    counts = (faces["boxes"] != 0).any(-1).sum(-1)
    assert counts.sum() == 4 * sum(index % 4 for index in range(PHOTOS))


def test_validation_has_each_photo_once_in_order(paths):
    dataset = validation_dataset(paths, image_size=60, batch_size=4)
    found = list(dataset.as_numpy_iterator())
    assert [len(images) for images, _ in found] == [4, 4, 3]
    records = [parse_example(record) for record in tf.data.TFRecordDataset(paths)]
    counts = np.concatenate([(faces["boxes"] != 0).any(-1).sum(-1) for _, faces in found])
    assert counts.tolist() == [len(record["boxes"]) for record in records]
    same(found, list(dataset.as_numpy_iterator()))


def test_the_contact_sheet_shows_what_training_sees(paths):
    photos = read_photos(paths, 3, PHOTOS)
    pairs = before_and_after(photos, Augmentation(48), seed=2)
    assert len(pairs) == 6 and pairs[0] is photos[0] and pairs[1]["image"].shape == (48, 48, 3)
    image, faces = Augmentation(48)(photos[1], [2, 1])
    np.testing.assert_array_equal(pairs[3]["image"], image)
    np.testing.assert_array_equal(pairs[3]["boxes"], faces["boxes"])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"worker": 2, "num_workers": 2}, "`worker` must be"),
        ({"num_workers": 3}, "`batch_size` must be a positive multiple"),
        ({"max_faces": 0}, "`max_faces` must be"),
        ({"start_step": -1}, "`start_step` must be"),
        ({"shuffle_buffer": 0}, "`shuffle_buffer` must be"),
        ({"mosaic": 2.0}, "`mosaic` must be"),
        ({"mosaic": 0.5, "image_size": 33}, "`image_size` must be even"),
        ({"mirrow": 0.5}, "`mirrow` is not an option of `Augmentation`. Expected one of .*'mirror'"),
        ({"augment": False, "mirror": 0.5}, "`mirror` is not an option of `plain`"),
    ],
)
def test_wrong_options_are_one_clear_line(wrong, message, paths):
    with pytest.raises(ValueError, match=message) as caught:
        training_dataset(paths, PHOTOS, **{**SMALL, **wrong})
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="at least one shard"):
        training_dataset([], PHOTOS, **SMALL)
