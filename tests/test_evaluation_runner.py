"""Does an interrupted run go on where it stopped, with the same result, and never mix two models?"""

import numpy as np
import pytest
from evaluation_data import detect_bright, found
from PIL import Image

from retinaface_tf.common.types import PhotoWarning
from retinaface_tf.evaluation.detection_files import read_detections, write_detection_file
from retinaface_tf.evaluation.runner import read_image, run_detector


@pytest.fixture
def photos(tmp_path):
    """Seven photos `e/p0` ... with one bright square each, at a place that differs."""
    paths = {}
    for index in range(7):
        image = np.zeros((60, 80 + index, 3), np.uint8)
        image[10:30, 5 + 5 * index : 25 + 5 * index] = 255
        path = tmp_path / "photos" / "e" / f"p{index}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path, quality=95)
        paths[f"e/p{index}"] = path
    return paths


def test_an_interrupted_run_goes_on_where_it_stopped(photos, tmp_path):
    calls = []

    def fails_at_the_fourth(image):
        if len(calls) == 3:
            raise KeyboardInterrupt
        calls.append(image.shape)
        return detect_bright(image)

    with pytest.raises(KeyboardInterrupt):
        run_detector(fails_at_the_fourth, photos, tmp_path / "out", progress=False)
    assert len(read_detections(tmp_path / "out", photos)) == 3
    summary = run_detector(detect_bright, photos, tmp_path / "out", progress=False)
    assert (summary.detected, summary.already_there) == (4, 3)
    run_detector(detect_bright, photos, tmp_path / "whole", progress=False)
    resumed, whole = read_detections(tmp_path / "out", photos), read_detections(tmp_path / "whole", photos)
    for name in photos:
        np.testing.assert_array_equal(resumed[name].boxes, whole[name].boxes)


@pytest.mark.parametrize("protocol", ["original", "multiscale"])
@pytest.mark.parametrize("batch_size", [2, 64])
def test_batches_give_what_single_images_give(photos, tmp_path, protocol, batch_size):
    sizes = []

    def detect_list(images):
        sizes.append(len(images))
        return [detect_bright(image) for image in images]

    few = dict(list(photos.items())[:3])
    run_detector(detect_bright, few, tmp_path / "one", protocol=protocol, progress=False)
    run_detector(detect_list, few, tmp_path / "many", protocol=protocol, batch_size=batch_size, progress=False)
    one, many = read_detections(tmp_path / "one", few), read_detections(tmp_path / "many", few)
    assert max(sizes) <= batch_size
    for name in few:
        np.testing.assert_array_equal(one[name].boxes, many[name].boxes)


def test_going_on_with_another_protocol_or_model_is_refused(photos, tmp_path):
    run_detector(detect_bright, photos, tmp_path / "out", settings={"model": "a"}, progress=False)
    with pytest.raises(ValueError, match="model was 'a', now 'b'"):
        run_detector(detect_bright, photos, tmp_path / "out", settings={"model": "b"}, progress=False)
    with pytest.raises(ValueError, match="protocol was 'original', now 'vga'"):
        run_detector(detect_bright, photos, tmp_path / "out", protocol="vga", settings={"model": "a"}, progress=False)


def test_files_of_an_unknown_run_are_not_taken_for_ours(photos, tmp_path):
    write_detection_file(tmp_path / "theirs" / "e" / "p3.txt", found([[0, 0, 1, 1]], [1]))
    with pytest.raises(ValueError, match=r"but not run\.json"):
        run_detector(detect_bright, photos, tmp_path / "theirs", progress=False)
    (tmp_path / "theirs" / "run.json").write_text("3")
    with pytest.raises(ValueError, match=r"run\.json: the content must be an object"):
        run_detector(detect_bright, photos, tmp_path / "theirs", progress=False)


def test_a_bad_call_says_what_was_expected(photos, tmp_path):
    with pytest.raises(ValueError, match="multiscale"):
        run_detector(detect_bright, photos, tmp_path / "out", protocol="huge", progress=False)
    with pytest.raises(ValueError, match="one result per image: 2 images, 1 results"):
        run_detector(lambda images: images[:1], photos, tmp_path / "out", batch_size=2, progress=False)
    with pytest.raises(ValueError, match="batch_size"):
        run_detector(detect_bright, photos, tmp_path / "out", batch_size=0, progress=False)


def test_a_broken_photo_is_named(tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8 no image")
    with pytest.raises(ValueError, match=r"broken\.jpg: not an image"):
        read_image(tmp_path / "broken.jpg")
    with pytest.raises(FileNotFoundError):
        read_image(tmp_path / "none.jpg")


def test_the_progress_bar_is_on_stderr(photos, tmp_path, capsys):
    run_detector(detect_bright, photos, tmp_path / "out")
    output = capsys.readouterr()
    assert output.out == ""
    assert "image/s" in output.err


def test_the_file_of_a_model_and_its_runtime_are_kept(photos, tmp_path):
    first = {"model": "m.tflite", "files": "sha256 a", "runtime": "litert"}
    run_detector(detect_bright, photos, tmp_path / "out", settings=first, progress=False)
    for change, line in (({"files": "sha256 b"}, "files was 'sha256 a'"), ({"runtime": "keras"}, "now 'keras'")):
        with pytest.raises(ValueError, match=line):
            run_detector(detect_bright, photos, tmp_path / "out", settings={**first, **change}, progress=False)
    run_detector(detect_bright, photos, tmp_path / "old", settings={"model": "m.tflite"}, progress=False)
    run_detector(detect_bright, photos, tmp_path / "old", settings=first, progress=False)  # version 0.2 kept neither


def test_gray_photos_of_12_bits_in_16_are_seen_as_detect_sees_them(tmp_path):
    Image.fromarray(np.full((4, 6), 4000, np.uint16)).save(tmp_path / "gray.png")
    Image.fromarray(np.arange(24, dtype=np.uint16).reshape(4, 6) * 174).save(tmp_path / "steps.png")
    with pytest.warns(PhotoWarning, match="12 bits"):
        assert read_image(tmp_path / "steps.png")[3, 5].tolist() == [250] * 3
