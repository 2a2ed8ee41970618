"""Photometric distortion: the same photo in other light."""

import tensorflow as tf


def distort_colours(
    image: tf.Tensor,
    seed: tf.Tensor,
    *,
    brightness: float = 32.0,
    contrast: tuple[float, float] = (0.5, 1.5),
    saturation: tuple[float, float] = (0.5, 1.5),
    hue: float = 0.1,
    probability: float = 0.5,
) -> tf.Tensor:
    """Brightness, contrast, saturation and hue, each changed or not by lot.

    As SSD (arXiv 1512.02325) and Pytorch_Retinaface do it: contrast comes before or after saturation and hue, by lot;
    its factor multiplies the pixels themselves, not their distance from the mean.

    Args:
        image: uint8 `[H, W, 3]`, RGB.
        seed: int `[2]`.
        brightness: most that is added or taken away, in levels of 255.
        contrast, saturation: ranges of the factor.
        hue: most that is added or taken away, in turns of the colour circle.
        probability: of each of the four.

    Returns:
        uint8 `[H, W, 3]`.
    """
    draws = tf.random.stateless_uniform([9], seed)
    wanted, contrast_first, parts = draws[:4] < probability, draws[4] < 0.5, draws[5:]

    def between(low, high, part):
        return low + (high - low) * part

    def brighter(x):
        return _levels(x + between(-brightness, brightness, parts[0]))

    def contrasted(x):
        return _levels(x * between(*contrast, parts[1]))

    def saturated(x):
        return tf.image.adjust_saturation(x, between(*saturation, parts[2]))

    def turned(x):
        return tf.image.adjust_hue(x, between(-hue, hue, parts[3]))

    steps = [
        (wanted[0], brighter),
        (wanted[1] & contrast_first, contrasted),
        (wanted[2], saturated),
        (wanted[3], turned),
        (wanted[1] & ~contrast_first, contrasted),
    ]

    def distorted():
        x = tf.cast(image, tf.float32)
        for condition, change in steps:
            x = tf.cond(condition, lambda x=x, change=change: change(x), lambda x=x: x)
        return tf.saturate_cast(tf.round(x), tf.uint8)

    return tf.ensure_shape(tf.cond(tf.reduce_any(wanted), distorted, lambda: image), image.shape)


def _levels(x):
    return tf.clip_by_value(x, 0.0, 255.0)
