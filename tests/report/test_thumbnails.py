import base64
import io

import numpy as np
import pytest
from PIL import Image

from ooc_diffusion.report.thumbnails import thumbnail_uri

from .samples import picture


def read(uri):
    head, data = uri.split(",")
    assert head == "data:image/png;base64"
    return Image.open(io.BytesIO(base64.b64decode(data)))


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((8, 8), (72, 72)),
        ((28, 28), (56, 56)),
        ((1, 5), (14, 70)),
        ((31, 2), (62, 4)),
        ((32, 32), (32, 32)),
        ((72, 10), (72, 10)),
        ((640, 480), (72, 54)),
        ((10_000, 1), (72, 1)),
    ],
)
def test_size(size, expected):
    assert read(thumbnail_uri(Image.new("RGB", size, "teal"))).size == expected


def test_tiny_pixels_stay_sharp():
    image = Image.fromarray(np.array([[0, 255], [128, 7]], dtype=np.uint8))
    values = np.asarray(read(thumbnail_uri(image)))
    np.testing.assert_array_equal(values, np.kron([[0, 255], [128, 7]], np.ones((36, 36), dtype=int)))


def test_large_images_keep_their_colors():
    values = np.asarray(read(thumbnail_uri(Image.new("RGB", (500, 500), (200, 30, 60)))).convert("RGB"))
    assert np.abs(values.astype(int) - (200, 30, 60)).max() <= 1


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "HSV", "I", "F", "I;16"])
def test_every_mode(mode):
    base = picture(0, (100, 80))
    image = Image.new(mode, (100, 80)) if mode in ("I;16", "LAB", "PA") else base.convert(mode)
    assert read(thumbnail_uri(image)).size == (72, 58)


def test_wide_ranges_are_stretched():
    image = Image.fromarray(np.array([[1000, 3000], [2000, 1000]], dtype=np.uint16))
    values = np.asarray(read(thumbnail_uri(image)))
    assert values[[0, 0, -1], [0, -1, 0]].tolist() == [0, 255, 128]


def test_not_a_number_does_not_spoil_the_picture():
    image = Image.fromarray(np.array([[np.nan, 1], [0.5, 0]], dtype=np.float32))
    assert np.asarray(read(thumbnail_uri(image)))[[0, 0], [0, -1]].tolist() == [0, 255]


def test_transparent_parts_are_white():
    assert read(thumbnail_uri(Image.new("RGBA", (50, 50), (0, 0, 0, 0)))).convert("RGB").getpixel((5, 5)) == (255, 255, 255)


def test_no_pixels():
    assert thumbnail_uri(None) is None
    assert thumbnail_uri(Image.new("RGB", (0, 5))) is None


def test_a_picture_that_breaks_while_decoding_has_no_thumbnail(caplog):
    buffer = io.BytesIO()
    picture(0, (300, 300)).save(buffer, "PNG")
    broken = Image.open(io.BytesIO(buffer.getvalue()[:5000]))
    assert thumbnail_uri(broken) is None
    assert "a thumbnail could not be made" in caplog.text


def test_the_color_profile_is_left_out_and_the_image_unchanged():
    image = picture(0, (50, 50))
    image.info["icc_profile"] = b"x" * 100_000
    assert len(thumbnail_uri(image)) < 20_000
    assert "icc_profile" in image.info
