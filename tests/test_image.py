"""Every kind of photo gives the pixels that a person sees, or one clear line."""

import contextlib
import io
import struct
import zlib
from importlib.util import find_spec

import numpy as np
import pytest
from PIL import Image

from retinaface_tf.common.types import PhotoWarning
from retinaface_tf.image.letterbox import letterbox
from retinaface_tf.image.loading import MAX_PIXELS, ImageError, load_image, load_reduced

# Left half red, right half blue, 6 x 4 pixels: orientation and channel order show at once.
TWO_HALVES = np.zeros((4, 6, 3), np.uint8)
TWO_HALVES[:, :3] = (200, 0, 0)
TWO_HALVES[:, 3:] = (0, 0, 200)


def encoded(picture, format="PNG", **options):
    buffer = io.BytesIO()
    picture.save(buffer, format=format, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["path", "str", "bytes", "bytearray", "file", "pil", "array", "tensor-like"])
def test_every_kind_of_source_gives_the_same_pixels(kind, tmp_path):
    picture = Image.fromarray(TWO_HALVES)
    picture.save(tmp_path / "photo.png")
    content = (tmp_path / "photo.png").read_bytes()

    class TensorLike:
        def __array__(self, dtype=None, copy=None):
            return TWO_HALVES

    source = {
        "path": tmp_path / "photo.png",
        "str": str(tmp_path / "photo.png"),
        "bytes": content,
        "bytearray": bytearray(content),
        "file": io.BytesIO(content),
        "pil": picture,
        "array": TWO_HALVES,
        "tensor-like": TensorLike(),
    }[kind]
    np.testing.assert_array_equal(load_image(source), TWO_HALVES)


# What EXIF says was done to the photo, and so where red has to be for a person.
@pytest.mark.parametrize(
    ("orientation", "shape", "red"),
    [
        (1, (4, 6), np.s_[:, 0]),
        (2, (4, 6), np.s_[:, -1]),
        (3, (4, 6), np.s_[:, -1]),
        (4, (4, 6), np.s_[:, 0]),
        (5, (6, 4), np.s_[0]),
        (6, (6, 4), np.s_[0]),
        (7, (6, 4), np.s_[-1]),
        (8, (6, 4), np.s_[-1]),
    ],
)
def test_exif_orientation(orientation, shape, red):
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = load_image(encoded(Image.fromarray(TWO_HALVES), "PNG", exif=exif))
    assert image.shape == (*shape, 3)
    assert (image[red] == (200, 0, 0)).all()


def test_damaged_exif_does_not_cost_the_photo():
    content = encoded(Image.fromarray(TWO_HALVES), "JPEG", exif=b"Exif\x00\x00II*\x00\xff\xff\xff\x7f", quality=100)
    assert load_image(content).shape == (4, 6, 3)


@pytest.mark.parametrize(
    ("mode", "color", "expected"),
    [
        ("L", 77, (77, 77, 77)),
        ("1", 1, (255, 255, 255)),
        ("LA", (0, 0), (255, 255, 255)),  # transparent black is the white page behind
        ("LA", (90, 255), (90, 90, 90)),
        ("RGBA", (10, 20, 30, 255), (10, 20, 30)),
        ("RGBA", (10, 20, 30, 0), (255, 255, 255)),
        ("I;16", 0x4D12, (0x4D, 0x4D, 0x4D)),
        ("RGB", (1, 2, 3), (1, 2, 3)),
    ],
)
def test_modes_as_png(mode, color, expected):
    image = load_image(encoded(Image.new(mode, (3, 2), color)))
    assert image.shape == (2, 3, 3)
    assert image.dtype == np.uint8
    assert (image == expected).all()


def test_palette_with_a_transparent_color():
    picture = Image.new("P", (2, 1))
    picture.putpalette([255, 0, 0, 0, 255, 0])
    picture.putpixel((1, 0), 1)
    image = load_image(encoded(picture, transparency=0))
    assert image.tolist() == [[[255, 255, 255], [0, 255, 0]]]


def test_cmyk_jpeg():
    image = load_image(encoded(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG", quality=100))
    assert np.abs(image.astype(int) - (255, 0, 0)).max() <= 3


def test_progressive_jpeg_equals_baseline():
    picture = Image.fromarray(np.arange(32 * 32 * 3, dtype=np.uint8).reshape(32, 32, 3))
    baseline, progressive = (encoded(picture, "JPEG", progressive=p) for p in (False, True))
    assert baseline != progressive
    np.testing.assert_array_equal(load_image(progressive), load_image(baseline))


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (np.full((2, 3), 9, np.uint8), 9),
        (np.full((2, 3, 1), 9, np.uint8), 9),
        (np.full((2, 3, 3), 9, np.uint8), 9),
        (np.full((2, 3, 4), 255, np.uint8), 255),
        (np.full((2, 3), 0x0900, np.uint16), 9),
        (np.full((2, 3, 3), 0x09FF, np.uint16), 9),
        (np.dstack([np.full((2, 3), 9, np.uint8), np.full((2, 3), 255, np.uint8)]), 9),
    ],
)
def test_arrays(array, expected):
    image = load_image(array)
    assert image.shape == (2, 3, 3)
    assert (image == expected).all()


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        (np.zeros((2, 3, 3), np.float32), "float32"),
        (np.zeros((3, 20, 30), np.uint8), r"shape \[3, 20, 30\]"),
        (np.zeros((0, 3, 3), np.uint8), r"shape \[0, 3, 3\]"),
        (np.zeros(7, np.uint8), r"shape \[7\]"),
        (b"", "0 bytes: not an image"),
        (b"hello, I am a text", "18 bytes: not an image"),
        (None, "NoneType"),
        (3.5, "float"),
        ("missing.jpg", "missing.jpg: no such file"),
    ],
)
def test_what_is_no_photo_is_refused_in_one_line(source, complaint):
    with pytest.raises(ImageError, match=complaint) as caught:
        load_image(source)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("keep", [0.02, 0.3, 0.9])
def test_truncated_jpeg_is_refused_in_one_line(keep, sample_photo):
    content = sample_photo.read_bytes()
    with pytest.raises(ImageError, match=r"can't be decoded|not an image") as caught:
        load_image(content[: int(keep * len(content))])
    assert "\n" not in str(caught.value)


def test_folder_is_refused(tmp_path):
    with pytest.raises(ImageError, match="Is a directory"):
        load_image(tmp_path)


def test_decompression_bomb_is_refused_before_it_is_decoded(monkeypatch):
    content = encoded(Image.new("1", (100, 100)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 4999)
    with pytest.raises(ImageError, match="decompression bomb"):
        load_image(content)


def test_letterbox_changes_nothing_where_nothing_is_asked():
    box = letterbox(TWO_HALVES, fill=(9, 9, 9))
    assert box.canvas is TWO_HALVES
    assert box.window.tolist() == [0, 0, 6, 4]


@pytest.mark.parametrize(
    ("size", "resize", "expected"),
    [
        ((100, 200), (50, 1000), (50, 100)),  # the short side decides
        ((100, 200), (50, 60), (30, 60)),  # the long side would be over its limit
        ((1, 900), (10, 90), (1, 90)),  # no side vanishes: 0.1 pixels are 1
        ((100, 200), "auto", (320, 640)),  # a small photo is enlarged
        ((480, 640), "auto", (480, 640)),
        ((30, 900), "auto", (30, 900)),  # a large one is not touched
    ],
)
def test_resize(size, resize, expected):
    box = letterbox(np.zeros((*size, 3), np.uint8), (0, 0, 0), resize)
    assert box.canvas.shape == (*expected, 3)


@pytest.mark.parametrize("resize", [None, (37, 90), (211, 400)])
@pytest.mark.parametrize("margin", [0.0, 0.25])
def test_restore_is_the_inverse_of_letterbox(resize, margin):
    image = np.zeros((120, 80, 3), np.uint8)
    image[60:66, 20:26] = 255  # center at x 23, y 63
    box = letterbox(image, (0, 0, 0), resize, margin)
    rows, columns = np.nonzero(box.canvas[..., 0] > 127)
    center = np.array([columns.mean() + 0.5, rows.mean() + 0.5])
    np.testing.assert_allclose(box.restore(center), [23, 63], atol=1)
    corners = np.array([[0, 0], [80, 120]])
    np.testing.assert_allclose(box.restore(box.window.reshape(2, 2)), corners, atol=1e-4)


def test_what_is_known_of_faces_is_restored_in_its_own_way():
    photo = np.zeros((50, 100, 3), np.uint8)
    box = letterbox(photo, (0, 0, 0), resize=(100, 200), margin=0.1)  # twice as large, 20 pixels left and 10 above
    faces = {
        "boxes": np.array([[20, 10, 220, 110.0]]),
        "scores": np.array([0.5]),
        "landmarks": np.full((1, 5, 2), 40.0),
        "vertices": np.array([[[40, 40, -8.0]]]),
    }
    restored = box.restore_faces(faces)
    np.testing.assert_allclose(restored["boxes"], [[0, 0, 100, 50]])
    np.testing.assert_allclose(restored["landmarks"][0, 0], [10, 15])
    np.testing.assert_allclose(restored["vertices"], [[[10, 15, -4]]])
    assert set(restored) == {"boxes", "landmarks", "vertices"}


@pytest.mark.parametrize(
    ("bits", "dtype"), [(8, np.int32), (10, np.uint16), (12, np.uint16), (12, np.int32), (16, np.uint16)]
)
def test_gray_pixels_of_any_depth_are_brought_to_eight_bits(bits, dtype):
    gray = np.arange(256, dtype=np.int64).reshape(16, 16)
    deep = (gray << (bits - 8)).astype(dtype)
    forms = [Image.fromarray(deep)] + ([deep] if dtype == np.uint16 else [])
    for form in forms:
        if bits == 16:
            image = load_image(form)
        else:
            with pytest.warns(PhotoWarning, match=f"values up to {deep.max()} are taken to have {bits} bits"):
                image = load_image(form)
        np.testing.assert_array_equal(image[..., 0], gray)


@pytest.mark.parametrize(("least", "largest"), [(30000, 30255), (30000, 31000), (4000, 4095)])
def test_a_narrow_range_of_gray_is_stretched_and_said(least, largest):
    deep = np.linspace(least, largest, 256).astype(np.uint16).reshape(16, 16)
    for form in (deep, Image.fromarray(deep), Image.fromarray(deep.astype(np.int32))):
        with pytest.warns(PhotoWarning, match=f"values from {least} to {largest} are stretched to 0 to 255"):
            image = load_image(form)
        np.testing.assert_allclose(image[..., 0], np.arange(256).reshape(16, 16), atol=3)


@pytest.mark.parametrize("least", [-100, -255])
def test_values_below_0_are_stretched_and_said(least):
    gray = np.arange(least, least + 256, dtype=np.int32).reshape(16, 16)
    with pytest.warns(PhotoWarning, match=f"values from {least} to {least + 255} are stretched to 0 to 255"):
        image = load_image(encoded(Image.fromarray(gray), "TIFF"))
    np.testing.assert_array_equal(image[..., 0], np.arange(256).reshape(16, 16))


def png_of_16_bits(pixels):
    """A PNG of uint16 pixels [h, w, 1 to 4], which Pillow does not write."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width, channels = pixels.shape
    header = struct.pack(">IIBBBBB", width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_color_pixels_of_any_depth_are_brought_to_eight_bits(bits, channels, tmp_path):
    colors = np.random.default_rng(0).integers(0, 256, (16, 16, 3)).astype(np.uint16)
    colors[0, 0] = 255
    deep = np.dstack([colors << (bits - 8), np.full((16, 16, channels - 3), 65535, np.uint16)])
    content = png_of_16_bits(deep)
    (tmp_path / "a.png").write_bytes(content)
    for form in (tmp_path / "a.png", content, io.BytesIO(content), deep):
        with pytest.warns(PhotoWarning, match=f"have {bits} bits") if bits != 16 else contextlib.nullcontext():
            np.testing.assert_array_equal(load_image(form), colors)


def test_gray_of_12_bits_with_alpha_is_brought_to_eight_bits():
    gray = np.arange(256, dtype=np.uint16).reshape(16, 16)
    content = png_of_16_bits(np.dstack([gray << 4, np.full((16, 16), 65535, np.uint16)]))
    with pytest.warns(PhotoWarning, match="have 12 bits"):  # Pillow gives the upper 4
        np.testing.assert_allclose(load_image(content)[..., 0], gray, atol=15)


def test_tiff_of_16_bits_whose_0_is_white_and_of_32_bits_without_sign():
    gray = np.arange(256, dtype=np.uint16).reshape(16, 16)
    content = bytearray(encoded(Image.fromarray(gray * 257), "TIFF"))
    at = content.index(struct.pack("<HHI", 262, 3, 1))
    content[at + 8] = 0
    np.testing.assert_array_equal(load_image(bytes(content))[..., 0], 255 - gray)
    content = bytearray(encoded(Image.fromarray((gray.astype(np.uint32) * 16843009).view(np.int32)), "TIFF"))
    at = content.index(struct.pack("<HHI", 339, 3, 1))
    content[at + 8] = 1
    with pytest.warns(PhotoWarning, match="32 bits"):
        np.testing.assert_array_equal(load_image(bytes(content))[..., 0], gray)


@pytest.mark.parametrize("form", ["GIF", "TIFF", "WEBP", "PNG"])
def test_several_pictures_in_a_file_are_said(form):
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "blue")]
    content = encoded(frames[0], form, save_all=True, append_images=frames[1:])
    with pytest.warns(PhotoWarning, match="holds several pictures; only the first is used"):
        assert (load_image(content)[..., 0] > 200).all()


@pytest.mark.parametrize("alpha", [0, 12, 30, "one pixel"])
def test_a_photo_whose_alpha_hides_everything_keeps_its_colors(alpha):
    pixels = np.dstack([np.random.default_rng(0).integers(0, 255, (40, 5, 3), np.uint8), np.full((40, 5), 0, np.uint8)])
    if alpha == "one pixel":
        pixels[0, 0, 3] = 255
    else:
        pixels[..., 3] = alpha
    with pytest.warns(PhotoWarning, match="every pixel is transparent"):
        np.testing.assert_array_equal(load_image(pixels), pixels[..., :3])
    pixels[..., 3] = 0
    pixels[0, :, 3] = 255
    assert (load_image(pixels)[1:] == 255).all()  # transparent pixels of others are the page behind


def test_one_limit_of_pixels_names_what_to_do():
    content = encoded(Image.new("L", (30, 20)))
    assert load_image(content, max_pixels=600).shape == (20, 30, 3)
    with pytest.raises(
        ImageError, match=r"30x20 are 0 megapixels, more than the limit of 0\.0005\. Shrink it, or raise"
    ):
        load_image(content, max_pixels=500)
    assert load_image(np.zeros((20, 30), np.uint8), max_pixels=500).shape == (20, 30, 3)  # in memory already
    assert MAX_PIXELS == 50_000_000


def test_a_jpeg_that_will_be_shrunk_is_decoded_small():
    exif = Image.Exif()
    exif[0x0112] = 6
    content = encoded(Image.new("RGB", (800, 600)), "JPEG", exif=exif)
    small = load_reduced(content, long_side=150)
    assert (small.pixels.shape, small.height, small.width) == ((200, 150, 3), 800, 600)
    assert load_reduced(content, long_side=None).shape == (800, 600, 3)
    assert load_reduced(content, long_side=790).shape == (800, 600, 3)
    assert load_reduced(content, 150, max_pixels=30_000).width == 600  # the pixels that are decoded count
    assert load_reduced(encoded(Image.new("RGB", (800, 600))), long_side=150).shape == (600, 800, 3)  # a PNG


def test_damaged_pil_images_and_addresses_are_one_line(tmp_path):
    content = encoded(Image.effect_noise((90, 90), 50).convert("RGB"), "JPEG")
    with pytest.raises(ImageError, match="the PIL image: can't be decoded"):
        load_image(Image.open(io.BytesIO(content[: len(content) // 2])))
    closed = Image.open(io.BytesIO(content))
    closed.close()
    with pytest.raises(ImageError, match="the PIL image: can't be decoded"):
        load_image(closed)
    with pytest.raises(ImageError, match="photos are not fetched from the web"):
        load_image("https://example.com/photo.jpg")
    (tmp_path / "a.heic").write_bytes(b"\0\0\0\x18ftypheic")
    with pytest.raises(ImageError, match="HEIF needs pillow-heif" if not find_spec("pillow_heif") else "not an image"):
        load_image(tmp_path / "a.heic")


@pytest.mark.filterwarnings("ignore")
def test_damaged_tiff_files_print_nothing(capfd):
    whole = encoded(Image.effect_noise((64, 64), 90), "TIFF", compression="tiff_lzw")
    random, refused = np.random.default_rng(1), 0
    for _ in range(40):
        content = bytearray(whole)
        for place in random.integers(len(content) - 200, len(content), 6):
            content[place] = random.integers(256)
        try:
            load_image(bytes(content))
        except ImageError:
            refused += 1
    assert refused > 10
    assert capfd.readouterr().err == ""


def test_a_file_that_is_a_program_is_never_run(monkeypatch, tmp_path):
    content = encoded(Image.fromarray(TWO_HALVES), "EPS")
    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", lambda *_, **__: pytest.fail("Ghostscript was called"))
    (tmp_path / "photo.jpg").write_bytes(content)
    for source in (content, tmp_path / "photo.jpg", Image.open(io.BytesIO(content))):
        with pytest.raises(ImageError, match="not an image that Pillow can read"):
            load_image(source)


def test_a_photo_as_it_is_stored():
    exif = Image.Exif()
    exif[0x0112] = 6
    content = encoded(Image.fromarray(TWO_HALVES), exif=exif.tobytes())
    assert load_image(content).shape == (6, 4, 3)
    np.testing.assert_array_equal(load_image(content, upright=False), TWO_HALVES)


@pytest.mark.parametrize("dtype", ["U3", "V4", "O", "c8", "M8[s]"])
def test_arrays_of_no_numbers(dtype):
    with pytest.raises(ImageError, match="expected an array"):
        load_image(np.zeros((4, 4, 3), dtype))


@pytest.mark.parametrize("white", [1, 255])
def test_gray_floats_are_taken_for_parts_of_white(white):
    values = np.linspace(0, white, 24, dtype=np.float32).reshape(4, 6)
    with pytest.warns(PhotoWarning, match=f"values up to {white} are read on a scale of 0 to {white}"):
        pixels = load_image(encoded(Image.fromarray(values), "TIFF"))
    np.testing.assert_allclose(pixels[..., 0], np.linspace(0, 255, 24).reshape(4, 6), atol=0.5)
    for beyond in (-0.02 * white, 1.02 * white):  # as of a photo that was resized
        values[0, 0] = beyond
        with pytest.warns(PhotoWarning, match=f"on a scale of 0 to {white}"):
            assert load_image(Image.fromarray(values))[0, 0, 0] == (0 if beyond < 0 else 255)
    for bad in (np.nan, -1, 1e9):
        with pytest.raises(ImageError, match="floating-point pixels from"):
            load_image(Image.fromarray(np.full((4, 6), bad, np.float32)))
