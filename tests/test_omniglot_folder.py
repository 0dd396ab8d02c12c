"""The tool that unpacks Omniglot."""

import subprocess
import sys
import zipfile
from io import BytesIO
from pathlib import Path

from PIL import Image

TOOL = Path(__file__).parent.parent / "tools" / "write_omniglot_folder.py"


def png(value):
    file = BytesIO()
    Image.new("1", (6, 6), value).save(file, "png")
    return file.getvalue()


def unpack(*words):
    return subprocess.run([sys.executable, TOOL, *map(str, words)], capture_output=True, text=True, check=False)


def test_archives_become_one_folder(tmp_path):
    for number, other in ((1, "Latin/character02/1.png"), (2, "Futurama/character01/1.png")):
        with zipfile.ZipFile(tmp_path / f"{number}.zip", "w") as archive:
            for name in ("Greek/character01/1.png", other, "../../evil.png", "readme.txt"):
                archive.writestr(f"images_background_small{number}/{name}", png(1))
    zips = [tmp_path / "1.zip", tmp_path / "2.zip"]
    ran = unpack(*zips, "--output", tmp_path / "out")
    assert ran.returncode == 0, ran.stderr
    assert "3 images of 3 characters, 3 alphabets" in ran.stderr
    files = sorted(str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*.png"))
    assert files == ["Futurama/character01/1.png", "Greek/character01/1.png", "Latin/character02/1.png"]
    unpack(*zips, "--output", tmp_path / "inverted", "--invert")
    with Image.open(tmp_path / "inverted" / files[0]) as image:
        assert image.convert("L").getextrema() == (0, 0)
    with zipfile.ZipFile(tmp_path / "3.zip", "w") as archive:
        archive.writestr("x/Greek/character01/1.png", png(0))
    ran = unpack(*zips, tmp_path / "3.zip", "--output", tmp_path / "other")
    assert ran.returncode == 1
    assert "Greek/character01/1.png differs between the archives" in ran.stderr
    (tmp_path / "4.zip").write_bytes(b"no zip")
    assert "cannot be unpacked" in unpack(tmp_path / "4.zip", "--output", tmp_path / "other").stderr


def test_halves_are_folders_of_their_own(tmp_path):
    with zipfile.ZipFile(tmp_path / "1.zip", "w") as archive:
        for place in (3, 1, 2, 5, 4):
            archive.writestr(f"x/Greek/character01/0001_{place:02}.png", png(1))
        archive.writestr("x/Latin/character01/0002_01.png", png(1))
        archive.writestr("x/Latin/character01/0002_02.png", png(1))
    assert unpack(tmp_path / "1.zip", "--output", tmp_path / "out", "--halves").returncode == 0
    files = sorted(str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*.png"))
    greek = [f"Greek/character01/0001_{place:02}.png" for place in range(1, 6)]
    assert files == [
        *(f"tests/{name}" for name in [*greek[2:], "Latin/character01/0002_02.png"]),
        *(f"train/{name}" for name in [*greek[:2], "Latin/character01/0002_01.png"]),
    ]
