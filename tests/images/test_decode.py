import io
import os

import numpy as np
import pytest
from PIL import Image

from ooc_diffusion.images import UnreadableImage, plain_image, read_image, white_image

RAMP = np.arange(48, dtype=np.uint8).reshape(6, 8) * 5


def saved(path, image, **options):
    image.save(path, **options)
    return read_image(path)


def test_gray_and_color_come_back_as_they_are(tmp_path):
    gray = saved(tmp_path / "g.png", Image.fromarray(RAMP))
    assert gray.mode == "L"
    np.testing.assert_array_equal(gray, RAMP)
    color = np.stack([RAMP, RAMP[::-1], RAMP[:, ::-1]], axis=2)
    for name in ("c.png", "c.bmp", "c.tif", "c.ppm"):
        image = saved(tmp_path / name, Image.fromarray(color))
        assert image.mode == "RGB"
        np.testing.assert_array_equal(image, color)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(tmp_path, orientation):
    upright = {
        1: RAMP,
        2: RAMP[:, ::-1],
        3: RAMP[::-1, ::-1],
        4: RAMP[::-1],
        5: RAMP.T,
        6: np.rot90(RAMP, -1),
        7: RAMP[::-1, ::-1].T,
        8: np.rot90(RAMP),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    np.testing.assert_array_equal(saved(tmp_path / "e.png", Image.fromarray(RAMP), exif=exif), upright)


def test_sixteen_bits_are_scaled(tmp_path):
    deep = RAMP.astype(np.uint16) * 257
    for name in ("d.png", "d.tif", "d.pgm"):
        image = saved(tmp_path / name, Image.fromarray(deep))
        assert image.mode == "L"
        np.testing.assert_array_equal(image, RAMP)
    wide = Image.fromarray(deep.astype(np.int32))
    assert wide.mode == "I"
    np.testing.assert_array_equal(plain_image(wide), RAMP)


def test_floats():
    np.testing.assert_array_equal(plain_image(Image.fromarray(RAMP.astype(np.float32))), RAMP)
    np.testing.assert_array_equal(plain_image(Image.fromarray(RAMP.astype(np.float32) / 255)), RAMP)
    assert np.asarray(plain_image(Image.fromarray(np.full((1, 1), np.nan, np.float32))))[0, 0] == 0


def test_one_bit_and_palette(tmp_path):
    bits = saved(tmp_path / "b.png", Image.fromarray(RAMP > 100))
    assert bits.mode == "L"
    np.testing.assert_array_equal(bits, (RAMP > 100) * 255)
    palette = Image.fromarray((RAMP % 3).astype(np.uint8)).convert("L")
    palette.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    table = np.eye(3, dtype=np.uint8) * 255
    np.testing.assert_array_equal(saved(tmp_path / "p.png", palette), table[RAMP % 3])
    table[1] = 255
    np.testing.assert_array_equal(saved(tmp_path / "t.png", palette, transparency=1), table[RAMP % 3])


def test_alpha_lies_over_white(tmp_path):
    pixels = np.array([[[10, 20, 30, 255], [10, 20, 30, 0], [0, 0, 0, 51]]], np.uint8)
    expected = [[[10, 20, 30], [255, 255, 255], [204, 204, 204]]]
    np.testing.assert_array_equal(saved(tmp_path / "a.png", Image.fromarray(pixels)), expected)
    gray = saved(tmp_path / "la.png", Image.fromarray(pixels[:, :, 2:]))
    assert gray.mode == "L"
    np.testing.assert_array_equal(gray, [[30, 255, 204]])
    keyed = saved(tmp_path / "k.png", Image.fromarray(RAMP), transparency=int(RAMP[2, 3]))
    np.testing.assert_array_equal(keyed, np.where(RAMP[2, 3] == RAMP, 255, RAMP))


def test_cmyk(tmp_path):
    ink = np.zeros((16, 16, 4), np.uint8)
    ink[:, :, 0] = 255  # cyan only
    image = saved(tmp_path / "c.tif", Image.fromarray(ink, "CMYK"))
    np.testing.assert_array_equal(image, np.broadcast_to([0, 255, 255], (16, 16, 3)))
    jpeg = saved(tmp_path / "c.jpg", Image.fromarray(ink, "CMYK"), quality=100)
    assert jpeg.mode == "RGB"
    assert np.abs(np.asarray(jpeg).astype(int) - [0, 255, 255]).max() <= 2


def test_smallest_and_animated(tmp_path):
    assert np.asarray(saved(tmp_path / "1.png", Image.new("RGB", (1, 1), (1, 2, 3)))).tolist() == [[[1, 2, 3]]]
    frames = [Image.new("RGB", (4, 4), color) for color in ("red", "blue")]
    first = saved(tmp_path / "a.gif", frames[0], save_all=True, append_images=frames[1:])
    np.testing.assert_array_equal(first, np.asarray(frames[0]))


def jpeg_bytes():
    data = io.BytesIO()
    Image.effect_noise((64, 64), 50).save(data, "JPEG")
    return data.getvalue()


def png_bytes():
    data = io.BytesIO()
    Image.effect_noise((64, 64), 50).save(data, "PNG")
    return data.getvalue()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty file"),
        (b"this is text\n", "no image format"),
        (jpeg_bytes()[:-500], "truncated"),
        (png_bytes()[:-500], "truncated"),
        (png_bytes()[:40], "."),
        (png_bytes()[:1000] + b"\0\0\0\0" + png_bytes()[1004:], "."),
    ],
)
def test_unreadable(tmp_path, content, reason):
    path = tmp_path / "bad.jpg"
    path.write_bytes(content)
    with pytest.raises(UnreadableImage, match=reason) as caught:
        read_image(path)
    assert "\n" not in str(caught.value)
    assert str(tmp_path) not in str(caught.value)


def test_unreadable_places(tmp_path):
    with pytest.raises(UnreadableImage, match="No such file"):
        read_image(tmp_path / "missing.png")
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(UnreadableImage, match="not a regular file"):
        read_image(tmp_path / "pipe.jpg")
    with pytest.raises(UnreadableImage, match="not a regular file"):
        read_image(tmp_path)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("pixels", [99, 51, 25])
def test_bombs_are_refused_whatever_the_warning_filter(tmp_path, monkeypatch, pixels):
    Image.new("L", (10, 10)).save(tmp_path / "bomb.png")
    read_image(tmp_path / "bomb.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", pixels)
    with pytest.raises(UnreadableImage, match=r"pixels"):
        read_image(tmp_path / "bomb.png")


def test_white():
    assert (np.asarray(white_image((3, 2))) == 255).all()
    assert np.asarray(white_image((3, 2), "L")).shape == (2, 3)
