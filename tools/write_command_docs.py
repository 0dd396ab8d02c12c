"""Write docs/commands.md from the help of the commands: ``python tools/write_command_docs.py [--check]``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import click

from ooc_diffusion.cli.main import cli

TARGET = Path(__file__).parent.parent / "docs" / "commands.md"
INTRODUCTION = """# The commands

Written by `tools/write_command_docs.py` from the help of the commands; a test compares the two.

Sizes are a number with a unit (`KB MB GB` are powers of 1000, `KiB MiB GiB` of 1024), a share of the memory (`80%`), or `auto`.
Results go to the standard output, all else to the error stream. Exit codes: 0 done, 1 failure, 2 usage, 3 bad input,
4 corrupt store, 5 store locked, 6 no space, 7 does not fit the memory budget, 8 I/O error, 130 interrupted.
"""


def command_docs() -> str:
    """Return the page."""
    parent = click.Context(
        cli, info_name="ooc-diffusion", help_option_names=["-h", "--help"], max_content_width=100, terminal_width=100
    )
    parts = [INTRODUCTION]
    for name in cli.list_commands(parent):
        command = cli.get_command(parent, name)
        assert command is not None
        context = click.Context(
            command, info_name=name, parent=parent, help_option_names=["-h", "--help"], max_content_width=100, terminal_width=100
        )
        parts.append(f"## {name}\n\n```text\n{command.get_help(context)}\n```\n")
    return "\n".join(parts)


def main() -> None:
    """Write the page, or with ``--check`` only tell whether it is what it should be."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 where the page is not up to date")
    if not parser.parse_args().check:
        TARGET.write_text(command_docs())
    elif TARGET.read_text() != command_docs():
        sys.exit(f"{TARGET} is not up to date; run python tools/write_command_docs.py")


if __name__ == "__main__":
    main()
