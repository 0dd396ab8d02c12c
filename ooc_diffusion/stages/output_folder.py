"""Folders of results that appear whole, and take the place of those of an earlier run."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import xxhash

from ..errors import BadInput
from ..store import Store
from ..store.files import os_errors, sync_folder


def check_output_folder(output: str | Path, *, overwrite: bool, option: str, what: str) -> None:
    """Refuse, before any work, a folder that cannot be made or that holds something, unless ``what`` may be replaced in it."""
    folder = Path(output).absolute()
    if not folder.parent.is_dir():
        raise BadInput(f"{folder.parent} is no folder; make it, or give another --{option}")
    if folder.exists() and not folder.is_dir():
        raise BadInput(f"{output} is a file; give a folder as --{option}")
    if folder.exists() and any(folder.iterdir()) and not overwrite:
        raise BadInput(f"{output} is not empty; give another --{option}, or --overwrite to replace the {what} in it")


@contextlib.contextmanager
def drafted(output: str | Path, store: Store, ours: re.Pattern[str]) -> Iterator[Path]:
    """Give a folder to write files of a store to, which then appears as ``output``.

    In a folder that is there, files of before, whose names match ``ours``, are replaced and all else is left alone.
    """
    folder = Path(output).absolute()
    # a name that the next run after a kill finds again
    draft = folder.with_name(f".{folder.name}.{xxhash.xxh3_64_hexdigest(os.fsencode(store.path.absolute()))}.tmp")
    with os_errors(folder, "writing"):
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir()
        try:
            yield draft
            _put_in_place(draft, folder, ours)
        finally:
            shutil.rmtree(draft, ignore_errors=True)


def _put_in_place(draft: Path, folder: Path, ours: re.Pattern[str]) -> None:
    if folder.exists():
        new = {file.name for file in draft.iterdir()}
        for file in folder.iterdir():
            if ours.fullmatch(file.name) and file.name not in new:
                file.unlink()
        for name in sorted(new):
            (draft / name).replace(folder / name)
        sync_folder(folder)
    else:
        sync_folder(draft)
        draft.rename(folder)
    sync_folder(folder.parent)
