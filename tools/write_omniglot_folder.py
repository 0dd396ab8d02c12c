"""Unpack Omniglot as a folder of images: DIR/Alphabet/characterNN/NNNN_NN.png.

ZIP are archives of its authors, such as images_background_small1.zip and images_background_small2.zip; they become one folder,
and what several of them hold is written once. With --invert strokes are white on black. With --halves the earlier half of the
drawings of each character goes to DIR/train and the later to DIR/tests, so that a network can be trained without the tests.
"""

from __future__ import annotations

import io
import re
import zipfile
from pathlib import Path

import click

# The last three parts of a path: alphabet, character, drawing.
_NAME = re.compile(r"(?:.*/)?([^/]+)/(character\d+)/([^/]+\.png)")


@click.command(help=__doc__, context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("zips", nargs=-1, required=True, metavar="ZIP...", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--output", required=True, metavar="DIR", type=click.Path(file_okay=False, path_type=Path), help="Folder to write.")
@click.option("--invert", is_flag=True, help="White strokes on black.")
@click.option("--halves", is_flag=True, help="Training images and tests in folders of their own.")
def main(zips: tuple[Path, ...], output: Path, invert: bool, halves: bool) -> None:
    """Write the folder."""
    written: dict[str, bytes] = {}
    for path in zips:
        try:
            with zipfile.ZipFile(path) as archive:
                for name in sorted(archive.namelist()):
                    found = _NAME.fullmatch(name)
                    if found:
                        _take("/".join(found.groups()), archive.read(name), written)
        except (zipfile.BadZipFile, OSError) as error:
            raise click.ClickException(f"{path} cannot be unpacked: {error}") from error
    if not written:
        raise click.ClickException("no image Alphabet/characterNN/*.png in the archives; give those of Omniglot")
    drawings: dict[str, list[str]] = {}
    for name in sorted(written):
        drawings.setdefault(name.rpartition("/")[0], []).append(name)
    for names in drawings.values():
        for place, name in enumerate(names):
            part = ("tests" if place >= len(names) // 2 else "train") if halves else ""
            _write(output / part / name, written[name], invert)
    characters = set(drawings)
    alphabets = {name.partition("/")[0] for name in written}
    click.echo(f"{len(written)} images of {len(characters)} characters, {len(alphabets)} alphabets in {output}", err=True)


def _take(name: str, data: bytes, written: dict[str, bytes]) -> None:
    if written.setdefault(name, data) != data:
        raise click.ClickException(f"{name} differs between the archives; unpack them into folders of their own")


def _write(path: Path, data: bytes, invert: bool) -> None:
    from PIL import Image, ImageOps

    path.parent.mkdir(parents=True, exist_ok=True)
    if invert:
        ImageOps.invert(Image.open(io.BytesIO(data)).convert("L")).save(path)
    else:
        path.write_bytes(data)


if __name__ == "__main__":
    main()
