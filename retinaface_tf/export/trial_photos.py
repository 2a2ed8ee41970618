"""The photos on which an artifact is tried where the user names none: the bundled one, at many sizes."""

from importlib.resources import files

import numpy as np
from PIL import Image

SAMPLE = "samples/astronaut.jpg"


def bundled_photos() -> dict[str, np.ndarray]:
    """Dict name -> uint8 array `[H, W, 3]`: one face, four faces, a face cut by the frame, large, small and none."""
    with files("retinaface_tf").joinpath(SAMPLE).open("rb") as file:
        photo = Image.open(file).convert("RGB")
    whole = photo.resize((320, 320))
    mosaic = Image.new("RGB", (640, 480), (123, 117, 104))
    for number, side in enumerate((320, 224, 160, 256)):
        mosaic.paste(photo.resize((side, side)), (320 * (number % 2), 240 * (number // 2)))
    pictures = {
        "512x512": photo,
        "320x320": whole,
        "mirrored 512x512": photo.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        "odd sides 333x251": photo.crop((90, 0, 423, 251)),
        "cut by the frame 240x320": photo.crop((200, 20, 440, 340)),
        "four faces 640x480": mosaic,
        "large face 700x840": photo.crop((158, 30, 298, 198)).resize((700, 840), Image.Resampling.BICUBIC),
        "small 96x96": photo.resize((96, 96)),
        "no face 200x150": photo.crop((300, 350, 500, 500)),
    }
    return {name: np.asarray(picture) for name, picture in pictures.items()}
