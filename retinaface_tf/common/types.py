"""Names for what many signatures take."""

import os
from typing import IO, TYPE_CHECKING, Literal, TypeAlias, Union

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image


class PhotoWarning(UserWarning):
    """What the user of a photo should know about its result; the message is one line that begins with its name."""


# At which size `detect` shows a photo to the network.
Resize: TypeAlias = tuple[int, int] | Literal["auto"] | None
PathLike: TypeAlias = str | os.PathLike[str]
# What `retinaface_tf.image.load_image` takes for a photo. A Union, since the words of `|` can't be names to come.
ImageSource: TypeAlias = Union[str, os.PathLike[str], bytes, IO[bytes], "Image.Image", "np.ndarray"]
