import threading
import time

import numpy as np
import pytest
from PIL import Image

from ooc_diffusion.errors import BadInput
from ooc_diffusion.features import (
    PixelExtractor,
    check_descriptors,
    describe_images,
    make_extractor,
    pixel_settings,
    preparation_bytes,
)
from ooc_diffusion.images import DigitsSource, UnreadableImage, collect, white_image


class SmallBatches(PixelExtractor):
    batch_images = 16


def described(source, extractor, **options):
    blocks = list(describe_images(source, extractor, **options))
    return np.concatenate([block.descriptors for block in blocks]), [f for block in blocks for f in block.failures]


@pytest.fixture
def folder(tmp_path):
    random = np.random.default_rng(0)
    for i in range(50):
        Image.fromarray(random.integers(0, 256, (9, 7, 3), np.uint8)).save(tmp_path / f"{i:02d}.png")
    return tmp_path


def test_digits_equal_scikit_learn():
    from sklearn.datasets import load_digits

    source = DigitsSource()
    extractor = make_extractor("pixels", source)
    assert extractor.identity["color"] == "gray"
    descriptors, failures = described(source, extractor)
    assert descriptors.dtype == np.float32
    assert not failures
    np.testing.assert_allclose(descriptors, load_digits().data * (15 / 255), rtol=1e-6)


def test_unreadable_images_leave_the_other_rows_alone(folder):
    extractor = SmallBatches(5, gray=False)
    before, _ = described(collect(folder), extractor)
    (folder / "00.png").write_bytes(b"")
    (folder / "17.png").write_bytes(b"text")
    (folder / "49.png").write_bytes((folder / "49.png").read_bytes()[:80])
    for threads in (1, 3):
        after, failures = described(collect(folder), extractor, threads=threads)
        bad = [row for row, _ in failures]
        assert bad == [0, 17, 49]
        assert failures[0][1] == "empty file"
        good = np.setdiff1d(np.arange(50), bad)
        assert after[good].tobytes() == before[good].tobytes()
        white = extractor.describe(extractor.prepare(white_image((99, 3)))[None])
        np.testing.assert_array_equal(after[bad], np.repeat(white, 3, axis=0))
    np.testing.assert_array_equal(white, 1)


def test_resuming_and_threads_give_the_same_bytes(folder):
    source, extractor = collect(folder), SmallBatches(5, gray=True)
    whole, _ = described(source, extractor)
    assert whole.shape == (50, 25)
    for start in (0, 16, 32, 48):
        for threads in (1, 2, 7):
            blocks = list(describe_images(source, extractor, start=start, threads=threads))
            assert [block.first_row for block in blocks] == list(range(start, 50, 16))
            rest = np.concatenate([block.descriptors for block in blocks])
            assert rest.tobytes() == whole[start:].tobytes()
    assert list(describe_images(source, extractor, start=64)) == []
    with pytest.raises(BadInput, match="multiple of 16"):
        next(describe_images(source, extractor, start=8))


class Gate:
    """A source that counts what was read and can be told to fail."""

    def __init__(self, n, failing=None, error=None, seconds=0.0):
        self.n, self.failing, self.error, self.seconds = n, failing, error, seconds
        self.read_rows = []

    def __len__(self):
        return self.n

    def read(self, i):
        self.read_rows.append(i)
        time.sleep(self.seconds)
        if i == self.failing:
            raise self.error
        return white_image()


@pytest.mark.parametrize("threads", [1, 4])
@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("a bug")])
def test_interruption_ends_the_threads(threads, error):
    source = Gate(1000, 20, error, seconds=0.005)
    with pytest.raises(type(error)):
        list(describe_images(source, SmallBatches(4, gray=True), threads=threads))
    assert len(source.read_rows) <= 40  # of 64 that were ahead
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("decode")]


def test_failures_are_in_the_order_of_rows():
    class SlowStart(Gate):
        def read(self, i):
            time.sleep(0.1 if i == 0 else 0)
            raise UnreadableImage(f"row {i}")

    (block,) = describe_images(SlowStart(16), SmallBatches(4, gray=True), threads=4)
    assert block.failures == [(row, f"row {row}") for row in range(16)]


def test_decoding_runs_two_batches_ahead_at_most():
    source = Gate(1000)
    blocks = describe_images(source, SmallBatches(4, gray=True), threads=4)
    next(blocks)
    blocks.close()
    assert max(source.read_rows) < 3 * 16
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("decode")]


def test_preparation_bytes():
    assert preparation_bytes(SmallBatches(5, gray=False)) == 16 * (3 * 75 + 4 * 75)


def test_resampling_only_where_needed():
    pixels = np.random.default_rng(0).integers(0, 256, (6, 6, 3), np.uint8)
    extractor = PixelExtractor(6, gray=False)
    np.testing.assert_array_equal(extractor.prepare(Image.fromarray(pixels)), pixels.reshape(-1))
    halved = PixelExtractor(2, gray=True).prepare(
        Image.fromarray(np.kron([[0, 90], [30, 200]], np.ones((8, 8))).astype(np.uint8))
    )
    assert halved[0] < halved[2] < halved[1] < halved[3]
    white = PixelExtractor(7, gray=False).prepare(Image.new("RGBA", (3, 500), (0, 0, 0, 0)))
    np.testing.assert_array_equal(white, 255)


def test_pixel_settings(tmp_path):
    Image.new("L", (12, 9)).save(tmp_path / "b.png")
    Image.new("I;16", (50, 50)).save(tmp_path / "c.png")
    (tmp_path / "a.png").write_bytes(b"broken")
    assert pixel_settings(collect(tmp_path)) == (9, True)
    assert pixel_settings(collect(tmp_path), size=5) == (5, True)
    assert pixel_settings(collect(tmp_path), color="rgb") == (9, False)
    Image.new("RGB", (3, 3)).save(tmp_path / "d.png")
    assert pixel_settings(collect(tmp_path)) == (9, False)
    (tmp_path / "b.png").unlink()
    assert pixel_settings(collect(tmp_path)) == (32, False)
    with pytest.raises(BadInput, match="none of auto, gray, rgb"):
        pixel_settings(collect(tmp_path), color="grey")
    broken = Gate(3, 0, UnreadableImage("empty file"))
    assert pixel_settings(broken, size=4, color="gray") == (4, True)
    assert broken.read_rows == []
    for name in ("c.png", "d.png"):
        (tmp_path / name).unlink()
    with pytest.raises(BadInput, match="none of the 1 images"):
        pixel_settings(collect(tmp_path))
    with pytest.raises(BadInput, match="not positive"):
        PixelExtractor(0, gray=True)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_check_descriptors_names_the_first_bad_row(bad):
    block = np.zeros((5, 3), np.float32)
    check_descriptors(block, 100, "few.npy")
    block[4, 0] = block[2, 1] = bad
    with pytest.raises(BadInput, match=rf"few.npy: row 102 holds {bad} at column 1"):
        check_descriptors(block, 100, "few.npy")
    with pytest.raises(BadInput, match=r"shape \(5,\)"):
        check_descriptors(block[:, 0], 0, "few.npy")
    with pytest.raises(BadInput, match="int64"):
        check_descriptors(np.zeros((2, 2), np.int64), 0, "few.npy")


def test_descriptors_that_are_not_finite_are_refused():
    class Broken(SmallBatches):
        def describe(self, batch):
            return super().describe(batch) * np.float32(np.nan)

    with pytest.raises(BadInput, match="row 16 holds nan"):
        next(describe_images(Gate(100), Broken(4, gray=True), start=16))
