"""Are eyes, nose and mouth where ArcFace expects them?"""

import numpy as np
import pytest
from scipy import ndimage

from retinaface_tf.image.align import ARCFACE_TEMPLATE, align, similarity_transform
from retinaface_tf.image.loading import load_image


def umeyama(source, target):
    """Umeyama (1991), equations 40 to 42, by singular values: an independent computation."""
    source_mean, target_mean = source.mean(0), target.mean(0)
    covariance = (target - target_mean).T @ (source - source_mean) / len(source)
    u, singular, vt = np.linalg.svd(covariance)
    sign = np.array([1.0, np.sign(np.linalg.det(u) * np.linalg.det(vt))])
    rotation = u @ np.diag(sign) @ vt
    scale = (singular * sign).sum() / ((source - source_mean) ** 2).sum(1).mean()
    return np.column_stack([scale * rotation, target_mean - scale * rotation @ source_mean])


def test_equals_umeyama():
    random = np.random.default_rng(0)
    for _ in range(20):
        source, target = random.normal(size=(2, 5, 2)) * 50
        target = source @ [[0.3, 0.4], [-0.4, 0.3]] + 7 + random.normal(size=(5, 2))
        np.testing.assert_allclose(similarity_transform(source, target), umeyama(source, target), atol=1e-9)


def test_landmarks_on_the_template_leave_the_picture_alone():
    image = np.random.default_rng(0).integers(0, 255, (112, 112, 3), np.uint8)
    # Bilinear sampling at whole pixels gives the pixels; the outermost row is the border's business.
    np.testing.assert_array_equal(align(image, ARCFACE_TEMPLATE)[1:-1, 1:-1], image[1:-1, 1:-1])


def test_equals_scipys_affine_transform(sample_photo):
    image = load_image(sample_photo)
    landmarks = np.array([[204.8, 100.6], [247.4, 103.3], [223.5, 129.2], [202.4, 138.0], [244.2, 140.5]])
    back = np.linalg.inv(np.vstack([umeyama(landmarks, ARCFACE_TEMPLATE), [0, 0, 1]]))
    # scipy's axes are row and column, its pixel centers whole numbers.
    matrix, offset = back[:2, :2][::-1, ::-1], back[:2, 2][::-1]
    expected = np.stack(
        [
            ndimage.affine_transform(image[..., c].astype(float), matrix, offset, output_shape=(112, 112), order=1)
            for c in range(3)
        ],
        axis=-1,
    )
    assert np.abs(align(image, landmarks) - expected).max() < 1.5


def test_size_scales_the_template():
    image = np.zeros((300, 300, 3), np.uint8)
    landmarks = ARCFACE_TEMPLATE * 2 + 20
    for x, y in landmarks.round().astype(int):
        image[y - 2 : y + 3, x - 2 : x + 3] = 255
    crop = align(image, landmarks, size=224)
    assert crop.shape == (224, 224, 3)
    for x, y in (ARCFACE_TEMPLATE * 2).round().astype(int):
        assert crop[y, x, 0] > 200


def test_shapes_and_the_empty_case():
    image = np.zeros((50, 50, 3), np.uint8)
    assert align(image, ARCFACE_TEMPLATE[None]).shape == (1, 112, 112, 3)
    assert align(image, np.zeros((0, 5, 2))).shape == (0, 112, 112, 3)


@pytest.mark.parametrize("landmarks", [np.zeros((3, 2)), np.zeros((4, 5, 3)), np.zeros(10)])
def test_other_shapes_are_refused(landmarks):
    with pytest.raises(ValueError, match="`landmarks` must be"):
        align(np.zeros((9, 9, 3), np.uint8), landmarks)


def test_landmarks_that_coincide_are_refused():
    with pytest.raises(ValueError, match="coincide"):
        align(np.zeros((9, 9, 3), np.uint8), np.ones((5, 2)))


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e30])
def test_landmarks_that_are_no_places_are_refused(value):
    landmarks = ARCFACE_TEMPLATE.copy()
    landmarks[2, 1] = value
    with pytest.raises(ValueError, match=r"`landmarks` must be finite numbers of at most 1e\+09 pixels"):
        align(np.zeros((20, 20, 3), np.uint8), landmarks)
    with pytest.raises(ValueError, match="`size` must be an integer from 1 to 8192"):
        align(np.zeros((20, 20, 3), np.uint8), ARCFACE_TEMPLATE, size=10**9)
