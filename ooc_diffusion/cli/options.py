"""Options that commands share, and how they become the settings of a stage."""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import math
import re
import shlex
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource

from ..errors import BadInput, BadOption, DoesNotFit

if TYPE_CHECKING:
    from ..memory import MemoryBudget
    from ..stages.settings import Settings

Command = TypeVar("Command", bound=Callable[..., Any])


class Number(click.FloatRange):
    """A finite number in a range: click's own lets NaN pass, which no comparison finds outside of any."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the number, or fail with a line that names what was given."""
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number.", param, ctx)
        return number


STORE = click.option("--store", required=True, metavar="DIR", help="Folder of the arrays.")


def common_options(command: Command) -> Command:
    """Add the options of every stage; the command gets them as one argument ``settings``."""
    return _with_settings(command, _COMMON)


def cpu_options(command: Command) -> Command:
    """Add what `common_options` adds but ``--device``: for commands that compute on the CPU alone."""
    return _with_settings(command, [option for option in _COMMON if option is not _DEVICE])


def _with_settings(command: Command, options: list[Any]) -> Command:
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
        device: str = "cpu",
        **arguments: Any,
    ) -> None:
        start_logging(verbose, quiet)
        settings = make_settings(memory_budget, threads, device, seed, overwrite, dry_run, quiet)
        with naming_options():
            record = command(settings=settings, **arguments)
        print_record(record, as_json=as_json)

    for option in reversed(options):
        wrapped = option(wrapped)
    return wrapped  # type: ignore[return-value]


def output_options(command: Command) -> Command:
    """Add ``--json``, ``-v`` and ``-q`` to a command that returns a record."""

    @functools.wraps(command)
    def wrapped(as_json: bool, verbose: int, quiet: bool, **arguments: Any) -> None:
        start_logging(verbose, quiet)
        with naming_options():
            record = command(**arguments)
        print_record(record, as_json=as_json)

    for option in reversed(_OUTPUT):
        wrapped = option(wrapped)
    return wrapped  # type: ignore[return-value]


_OUTPUT = [
    click.option("--json", "as_json", is_flag=True, help="Print the record of the run as JSON."),
    click.option("-v", "--verbose", count=True, help="Say more; twice: debugging messages. Errors come with a traceback."),
    click.option("-q", "--quiet", is_flag=True, help="No progress and no warnings."),
]
_DEVICE = click.option("--device", default="auto", show_default=True, metavar="auto|cpu|cuda", help="Where to compute.")
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
    _DEVICE,
    click.option(
        "--seed", type=click.IntRange(0, 2**31 - 2), default=0, show_default=True, help="Seed of everything that is drawn."
    ),
    click.option("--overwrite", is_flag=True, help="Do again what differs from an earlier run, in its place."),
    click.option("--dry-run", is_flag=True, help="Only print what it would cost."),
    *_OUTPUT,
]


def make_settings(
    memory_budget: str, threads: int | None, device: str, seed: int, overwrite: bool, dry_run: bool, quiet: bool
) -> Settings:
    """Read the common options, and say which budget is in force."""
    from ..memory import format_size
    from ..stages.settings import Settings
    from .progress import make_progress

    if re.fullmatch(r"auto|cpu|cuda(:\d+)?", device) is None:
        raise BadOption(f"--device {device!r} is not one of auto, cpu, cuda")
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
        raise BadOption(f"--memory-budget: {error}") from None


def numbers(text: str, option: str) -> list[int]:
    """Read an option that is a list of numbers of 1 or more, such as ``1,2,5``."""
    try:
        found = [int(n) for n in text.split(",")]
    except ValueError:
        raise BadOption(f"{option} {text!r} is no list of numbers such as 1,2,5") from None
    if min(found) < 1:
        raise BadOption(f"{option} {text!r} has {min(found)} in it; give numbers of 1 or more")
    return found


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


@contextlib.contextmanager
def naming_options() -> Iterator[None]:
    """Put the options of the command into messages of errors, in the place of parameters of Python."""
    try:
        yield
    except (BadInput, DoesNotFit) as error:
        error.args = (with_options(str(error), click.get_current_context().command),)
        raise


def with_options(message: str, command: click.Command) -> str:
    """Return a message with the options of a command instead of parameters of Python: ``--dim`` for `dim`."""
    options = {each.name: max(each.opts, key=len) for each in command.params if isinstance(each, click.Option)}
    return re.sub(r"`(\w+)`", lambda found: options.get(found[1], found[0]), message)


class _Formatter(logging.Formatter):
    def __init__(self, command: click.Command) -> None:
        super().__init__("%(message)s")
        self._command = command

    def format(self, record: logging.LogRecord) -> str:
        return with_options(super().format(record), self._command)


def start_logging(verbose: int, quiet: bool) -> None:
    """Send messages to the error stream."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Formatter(click.get_current_context().command))
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
