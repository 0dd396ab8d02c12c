"""The command group and what happens to errors."""

# ruff: noqa: D301 - \b must reach click as the character that it is

from __future__ import annotations

import logging
import signal
import sys
import traceback
from importlib import import_module

import click

from .. import __version__
from ..errors import OocDiffusionError

# In the order of the help; the modules are loaded when their command is called, so that --help answers at once.
COMMANDS = {
    "label": "whole_way",
    "demo": "whole_way",
    "extract": "descriptors",
    "import": "descriptors",
    "train": "training",
    "reduce": "descriptors",
    "neighbors": "graphs",
    "graph": "graphs",
    "cluster": "graphs",
    "diffuse": "labels",
    "classify": "labels",
    "evaluate": "labels",
    "split": "upkeep",
    "study": "study",
    "paths": "paths",
    "plan": "upkeep",
    "status": "upkeep",
    "verify": "upkeep",
    "doctor": "upkeep",
    "clean": "upkeep",
}


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        return getattr(import_module(f".{COMMANDS[cmd_name]}", __package__), f"{cmd_name}_command")


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="ooc-diffusion")
def cli() -> None:
    """Labels for huge image collections from a handful of examples, in the memory you state.

    \b
    The whole way:   ooc-diffusion label photos/ --labels few.csv --output out.csv --memory-budget 4GiB
    A first look:    ooc-diffusion demo
    """


def main() -> None:
    """Run the command line; errors become one line and an exit code."""
    signal.signal(signal.SIGTERM, _interrupt)
    signal.signal(signal.SIGHUP, _interrupt)
    sys.exit(_run(sys.argv[1:]))


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def _run(arguments: list[str]) -> int:
    try:
        cli.main(arguments, prog_name="ooc-diffusion", standalone_mode=False)
        sys.stdout.flush()
        return 0
    except click.exceptions.Exit as error:
        return error.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        click.echo("interrupted; the same command goes on where it stopped", err=True)
        return 130
    except OocDiffusionError as error:
        return _report(error, error.exit_code)
    except (BrokenPipeError, SystemExit):
        # whoever read our output has gone (click turns that into SystemExit); nothing more can be said there
        sys.stdout = None  # type: ignore[assignment]
        return 8
    except MemoryError as error:
        return _report(error, 7)
    except OSError as error:
        return _report(error, 8)
    except Exception as error:
        return _report(error, 1)


def _report(error: BaseException, code: int) -> int:
    message = " ".join(str(error).split()) or type(error).__name__
    if not isinstance(error, OocDiffusionError):
        message = f"{type(error).__name__}: {message} (run again with -v for the whole story)"
    click.echo(f"error: {message}", err=True)
    if logging.getLogger("ooc_diffusion").getEffectiveLevel() <= logging.INFO:
        traceback.print_exception(error)
    return code
