"""Options that commands share, and how they become the settings of a stage."""

from __future__ import annotations

import functools
import json
import logging
import shlex
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource

from ..errors import BadInput, BadOption

if TYPE_CHECKING:
    from ..memory import MemoryBudget
    from ..stages.settings import Settings

Command = TypeVar("Command", bound=Callable[..., Any])

STORE = click.option("--store", required=True, metavar="DIR", help="Folder of the arrays.")


def common_options(command: Command) -> Command:
    """Add the options of every stage; the command gets them as one argument ``settings``."""

    @functools.wraps(command)
    def wrapped(
        memory_budget: str,
        threads: int | None,
        device: str,
        seed: int,
        overwrite: bool,
        dry_run: bool,
        as_json: bool,
        verbose: int,
        quiet: bool,
        **arguments: Any,
    ) -> None:
        start_logging(verbose, quiet)
        settings = make_settings(memory_budget, threads, device, seed, overwrite, dry_run, quiet)
        print_record(command(settings=settings, **arguments), as_json=as_json)

    for option in reversed(_COMMON):
        wrapped = option(wrapped)
    return wrapped  # type: ignore[return-value]


def cpu_options(command: Command) -> Command:
    """Add what `common_options` adds but ``--device``: for commands that compute on the CPU alone."""

    @functools.wraps(command)
    def wrapped(
        memory_budget: str,
        threads: int | None,
        seed: int,
        overwrite: bool,
        dry_run: bool,
        as_json: bool,
        verbose: int,
        quiet: bool,
        **arguments: Any,
    ) -> None:
        start_logging(verbose, quiet)
        settings = make_settings(memory_budget, threads, "cpu", seed, overwrite, dry_run, quiet)
        print_record(command(settings=settings, **arguments), as_json=as_json)

    for option in reversed(_ON_CPU):
        wrapped = option(wrapped)
    return wrapped  # type: ignore[return-value]


def output_options(command: Command) -> Command:
    """Add ``--json``, ``-v`` and ``-q`` to a command that returns a record."""

    @functools.wraps(command)
    def wrapped(as_json: bool, verbose: int, quiet: bool, **arguments: Any) -> None:
        start_logging(verbose, quiet)
        print_record(command(**arguments), as_json=as_json)

    for option in reversed(_OUTPUT):
        wrapped = option(wrapped)
    return wrapped  # type: ignore[return-value]


_OUTPUT = [
    click.option("--json", "as_json", is_flag=True, help="Print the record of the run as JSON."),
    click.option("-v", "--verbose", count=True, help="Say more; twice: debugging messages. Errors come with a traceback."),
    click.option("-q", "--quiet", is_flag=True, help="No progress and no warnings."),
]
_COMMON = [
    click.option(
        "--memory-budget",
        default="auto",
        show_default=True,
        metavar="SIZE",
        envvar="OOC_DIFFUSION_MEMORY_BUDGET",
        help="Most memory to use: 8GiB, 500MB, 80%, or auto (60% of what is available).",
    ),
    click.option("--threads", type=click.IntRange(min=1), help="Threads to use.  [default: all cores]"),
    click.option("--device", default="auto", show_default=True, metavar="auto|cpu|cuda", help="Where to compute."),
    click.option(
        "--seed", type=click.IntRange(0, 2**31 - 2), default=0, show_default=True, help="Seed of everything that is drawn."
    ),
    click.option("--overwrite", is_flag=True, help="Start anew where an earlier run is there."),
    click.option("--dry-run", is_flag=True, help="Only print what it would cost."),
    *_OUTPUT,
]
_ON_CPU = [option for place, option in enumerate(_COMMON) if place != 2]  # without --device


def make_settings(
    memory_budget: str, threads: int | None, device: str, seed: int, overwrite: bool, dry_run: bool, quiet: bool
) -> Settings:
    """Read the common options, and say which budget is in force."""
    import re

    from ..memory import format_size
    from ..stages.settings import Settings
    from .progress import make_progress

    if re.fullmatch(r"auto|cpu|cuda(:\d+)?", device) is None:
        raise BadOption(f"device {device!r} is not one of auto, cpu, cuda")
    budget = read_budget(memory_budget)
    logging.getLogger("ooc_diffusion").info(
        "memory budget: %s (%d bytes; from %s)", format_size(budget.total), budget.total, memory_budget
    )
    return Settings(budget, threads, device, seed, overwrite, dry_run, make_progress(quiet))


def read_budget(size: str) -> MemoryBudget:
    """Read the option ``--memory-budget``."""
    from ..memory import MemoryBudget

    try:
        return MemoryBudget.parse(size)
    except BadInput as error:
        raise BadOption(str(error)) from None


def typed(name: str) -> bool:
    """Return whether the user gave an option, be it with the value that it has by default."""
    return click.get_current_context().get_parameter_source(name) is ParameterSource.COMMANDLINE


def refuse_unread(read: bool, name: str, what: str) -> None:
    """Refuse an option that was given although nothing reads it.

    Parameters
    ----------
    read : bool
        Whether something reads it.
    name : str
        The parameter.
    what : str
        What the option belongs to.
    """
    if typed(name) and not read:
        option = "--" + name.replace("_", "-")
        raise BadOption(f"{option} belongs to {what}; leave it out, or give that")


def start_logging(verbose: int, quiet: bool) -> None:
    """Send messages to the error stream."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger = logging.getLogger("ooc_diffusion")
    logger.handlers = [handler]
    logger.propagate = False
    logger.setLevel(logging.ERROR if quiet else [logging.WARNING, logging.INFO, logging.DEBUG][min(verbose, 2)])


def command_line() -> str:
    """Return the command as it was typed."""
    return shlex.join(["ooc-diffusion", *sys.argv[1:]])


def print_record(record: dict[str, Any] | None, *, as_json: bool) -> None:
    """Print what a command returns: JSON, or the table that belongs to it."""
    from ..memory import format_size
    from .tables import show

    if record is None:
        return
    if as_json:
        click.echo(json.dumps(record, indent=1, default=str))
    else:
        show(record)
    least = max((plan["least_bytes"] for plan in record.get("plans", ())), default=0)
    if least > record.get("memory_budget_bytes", least):
        from ..errors import DoesNotFit

        budget = format_size(record["memory_budget_bytes"])
        raise DoesNotFit(f"this does not fit the budget of {budget}; give --memory-budget {-(-least // 2**20)}MiB or more")
