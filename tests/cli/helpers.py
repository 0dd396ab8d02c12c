"""Running the command line as a person does, and small collections to run it on."""

from __future__ import annotations

import contextlib
import csv
import io
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

COMMAND = [sys.executable, "-m", "ooc_diffusion"]


@dataclass(frozen=True)
class Ran:
    """What a command left: exit code and both streams."""

    code: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The one line on the error stream."""
        lines = self.err.splitlines()
        assert len(lines) == 1, self.err
        assert lines[0].startswith("error: ")
        return lines[0]


def run(*arguments: object, quiet: bool = True) -> Ran:
    """Run a command in this process, without progress."""
    from ooc_diffusion.cli.main import _run

    words = [str(word) for word in arguments] + (["-q"] if quiet else [])
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        code = _run(words)
    return Ran(code, out.getvalue(), err.getvalue())


def done(*arguments: object) -> str:
    """Run a command that must succeed; return what it printed."""
    ran = run(*arguments)
    assert (ran.code, ran.err) == (0, "")
    return ran.out


def spawn(*arguments: object, cwd: Path | None = None, timeout: float = 120, **environment: str) -> Ran:
    """Run a command in a process of its own."""
    words = COMMAND + [str(word) for word in arguments]
    ran = subprocess.run(
        words, cwd=cwd, env={**os.environ, **environment}, capture_output=True, text=True, timeout=timeout, check=False
    )
    return Ran(ran.returncode, ran.stdout, ran.stderr)


def digit_images(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the first n digits, 16×16 pixels, and their classes."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    small = (digits.images[:n] * 15).astype(np.uint8)
    return small.repeat(2, axis=1).repeat(2, axis=2), digits.target[:n]


def write_images(root: Path, images: np.ndarray, names: list[bytes]) -> None:
    """Write gray PNG files of the given names (bytes: they need not be UTF-8)."""
    from PIL import Image

    for name, image in zip(names, images, strict=True):
        path = root / os.fsdecode(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path, "png")


def write_csv(path: Path, rows: list[tuple[str, str]], header: tuple[str, ...] = ("path", "label")) -> Path:
    """Write a CSV; names that are not UTF-8 as the bytes that they are."""
    with path.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        lines = csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_ALL)  # a lone \r ends a line
        lines.writerow(header)
        lines.writerows(rows)
    return path


def read_csv(path: Path) -> list[dict[str, str]]:
    """Read a CSV into one dictionary per row."""
    with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        return list(csv.DictReader(file))


def files_below(folder: Path) -> dict[str, bytes]:
    """Return all files below a folder with their bytes."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
