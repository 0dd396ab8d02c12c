"""Folders of results that appear whole, and take the place of those of an earlier run."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import xxhash

from ..errors import BadInput
from ..images import printable
from ..store import Store
from ..store.files import os_errors, sync_folder


def check_output_folder(
    output: str | Path, *, overwrite: bool, option: str, what: str, other: Callable[[Path], str] | None = None
) -> None:
    """Refuse, before any work, a folder that cannot be made or that holds something, unless ``what`` may be replaced in it.

    Parameters
    ----------
    output : str or Path
        The folder.
    overwrite : bool
        Whether it may be replaced.
    option, what : str
        The option that names the folder, and what is written to it, for messages.
    other : callable, optional
        Given the folder, returns the name of something in it that is not as it will be written; empty where all is, and
        the folder passes. Default: anything counts as other.
    """
    folder = Path(output).absolute()
    if not folder.parent.is_dir():
        raise BadInput(f"{folder.parent} is no folder; make it, or give another --{option}")
    if folder.exists() and not folder.is_dir():
        raise BadInput(f"{output} is a file; give a folder as --{option}")
    if overwrite or not folder.exists() or not any(folder.iterdir()):
        return
    name = other(folder) if other else None
    if name != "":
        told = f" ({printable(name)} is not of this run)" if name else ""
        raise BadInput(f"{output} is not empty; give another --{option}, or --overwrite to replace the {what} in it{told}")


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
