"""Type names that many signatures share, and the names and order of the five landmarks."""

import os
from typing import IO, TYPE_CHECKING, Literal, TypeAlias, Union

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image


class PhotoWarning(UserWarning):
    """A warning about the result for a photo. The message is one line that begins with the name of the photo."""


# At which size `detect` shows a photo to the network.
Resize: TypeAlias = tuple[int, int] | Literal["auto"] | None
PathLike: TypeAlias = str | os.PathLike[str]
# What `retinaface_tf.image.load_image` takes for a photo. A Union, since the words of `|` can't be names to come.
ImageSource: TypeAlias = Union[str, os.PathLike[str], bytes, IO[bytes], "Image.Image", "np.ndarray"]


# Left and right are as seen in the image.
LANDMARK_NAMES = ("left_eye", "right_eye", "nose", "left_mouth", "right_mouth")
MIRRORED_LANDMARKS = (1, 0, 2, 4, 3)  # index of each one's partner in a mirrored image

# States of a labeled landmark.
NOT_LABELED, OCCLUDED, VISIBLE = -1, 0, 1
