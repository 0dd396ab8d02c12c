"""Images in archives give what the unpacked folder gives."""

import zipfile

import numpy as np
import pytest

from ooc_diffusion.errors import BadInput, DoesNotFit
from ooc_diffusion.features import PixelExtractor
from ooc_diffusion.images import white_image
from ooc_diffusion.stages.extract import extract
from ooc_diffusion.stages.settings import Settings
from ooc_diffusion.store import Store, Strings
from tests.images.test_archives import picture, write_tar, write_zip
from tests.stages.chain import published_bytes

FILES = {f"{i % 3}/{i:03d}.png": picture(i) for i in range(40)} | {"1/broken.png": b"no image", "top.png": picture(99)}
PIXELS = {"model": "pixels", "image_size": 8, "color": "rgb", "max_failures": 0.1}


def unpacked(folder):
    for name, content in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


@pytest.mark.parametrize("write", [write_zip, write_tar])
def test_the_same_descriptors_as_those_of_the_folder(tmp_path, write):
    extract(str(unpacked(tmp_path / "tree")), store=tmp_path / "folder", **PIXELS)
    file = write(tmp_path / "images", FILES)
    record = extract(str(file), store=tmp_path / "archive", settings=Settings(threads=4), **PIXELS)
    assert record["unreadable"] == 1
    ours, theirs = Store(tmp_path / "archive"), Store(tmp_path / "folder")
    assert published_bytes(ours) == published_bytes(theirs)
    assert extract(str(file), store=tmp_path / "archive", **PIXELS)["skipped"]
    write(file, FILES | {"0/new.png": picture(5)})
    with pytest.raises(BadInput, match=r"was finished with other fingerprint; .*--overwrite"):
        extract(str(file), store=tmp_path / "archive", **PIXELS)


def test_added_from_an_archive(tmp_path):
    from ooc_diffusion.stages.listing import reopen

    store = tmp_path / "s"
    extract(str(write_zip(tmp_path / "a.zip", FILES)), store=store, **PIXELS)
    source = reopen(Store(store), "background")
    assert source.name(0) == "top.png"
    assert np.asarray(source.read(0)).shape == (9, 7, 3)


def test_plan_of_an_archive(tmp_path):
    file = write_zip(tmp_path / "a.zip", FILES)
    record = extract(str(file), store=tmp_path / "s", settings=Settings(dry_run=True), **PIXELS)
    assert record["images"] == len(FILES)
    assert not (tmp_path / "s").exists()
    with pytest.raises(DoesNotFit):
        extract(str(file), store=tmp_path / "s", settings=Settings(memory_budget="64MiB"), **PIXELS)


def test_yfcc_with_gaps(tmp_path):
    root = tmp_path / "yfcc"
    (root / "00").mkdir(parents=True)
    there = {3: picture(3, form="JPEG"), 998: picture(998, form="JPEG")}
    write_zip(root / "00" / "000.zip", {f"{i:03d}.jpg": content for i, content in there.items()})
    write_zip(root / "00" / "002.zip", {"001.jpg": picture(7, form="JPEG")})
    options = PIXELS | {"max_failures": 1.0}
    record = extract(str(root), layout="yfcc", store=tmp_path / "s", **options)
    assert (record["images"], record["unreadable"], record["missing"]) == (2002, 1999, 1999)
    store = Store(tmp_path / "s")
    descriptors, failed = store.arrays("background/descriptors", "background/failed_rows")
    extractor = PixelExtractor(8, gray=False)
    white = extractor.describe(extractor.prepare(white_image())[None])[0]
    same = (descriptors == white).all(axis=1)
    assert np.flatnonzero(~same).tolist() == [3, 998, 2001]
    assert failed.tolist() == [row for row in range(2002) if row not in (3, 998, 2001)]
    with zipfile.ZipFile(root / "00" / "002.zip") as z:
        from PIL import Image

        image = Image.open(z.open("001.jpg"))
        np.testing.assert_array_equal(descriptors[2001], extractor.describe(extractor.prepare(image)[None])[0])
    names = Strings.open(store, "background/path")
    assert names[2001] == "00/002.zip/001.jpg"
    assert names.bisect("00/001.zip/123.jpg") == 1123
    assert extract(str(root), layout="yfcc", store=tmp_path / "s", **options)["skipped"]
    told = (
        r"499 of the first 500 images are missing \(499\) or unreadable, more than --max-failures 0.01 of 500 allows "
        r"\(00/000.zip/000.jpg: missing in its archive; .*\); fetch the missing ones, or raise --max-failures to go on with white"
    )
    with pytest.raises(BadInput, match=told):
        extract(str(root), layout="yfcc", number=500, store=tmp_path / "t", **PIXELS | {"max_failures": 0.01})
