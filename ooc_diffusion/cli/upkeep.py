"""Commands around a run: plan, status, verify, doctor, clean, split."""

# ruff: noqa: D301 - \b must reach click as the character that it is

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import click

from .options import STORE, Number, output_options, print_record, read_budget, refuse_unread


@click.command("plan")
@click.argument("n_images", type=click.IntRange(min=2), metavar="N")
@click.option("--d", type=click.IntRange(min=1), default=2048, show_default=True, help="Values of a descriptor.")
@click.option("--dim", type=click.IntRange(min=1), default=256, show_default=True, help="Dimensions after PCA.")
@click.option("--k", type=click.IntRange(min=1), default=30, show_default=True, help="Neighbors per image.")
@click.option("--classes", type=click.IntRange(min=1), default=100, show_default=True, help="Number of classes.")
@click.option("--n-iter", type=click.IntRange(min=1), default=5, show_default=True, help="Number of iterations.")
@click.option(
    "--index",
    type=click.Choice(["auto", "Flat", "IVFFlat", "list-major"]),
    default="auto",
    show_default=True,
    help="Index of the neighbors.",
)
@click.option("--memory-budget", default="auto", show_default=True, metavar="SIZE", help="Most memory to use, such as 8GiB.")
@output_options
def plan_command(n_images: int, d: int, dim: int, k: int, classes: int, n_iter: int, index: str, memory_budget: str) -> Any:
    """Say what labelling N images would cost in memory, disk and work, stage by stage.

    Of neighbors and graph also what they would read from disk and write to it, were nothing kept in memory by the system, and
    how long they would take, as random vectors show that are measured for a second or two. Neighbors are searched where `label`
    would search them here; of a search on a GPU no time is foretold.

    \b
    Example:
      ooc-diffusion plan 1000000 --classes 500 --memory-budget 8GiB
    """
    from ..stages.forecast import plan_seconds
    from ..stages.search_options import where_searched
    from ..stages.settings import Settings
    from ..stages.whole_plan import plan_all

    budget = read_budget(memory_budget)
    chosen, device = where_searched(n_images, dim, index, Settings())
    sizes: dict[str, Any] = {"dim": dim, "k": k, "index": chosen, "budget": budget}
    plans = plan_all(n_images, d=d, n_classes=classes, n_iter=n_iter, device=device, **sizes)
    seconds = plan_seconds(plans, n_images, on_gpu=device != "cpu", **sizes)
    about = {"memory_budget_bytes": budget.total, "seconds_by_stage": seconds}
    return {"stage": "plan", **about, "plans": [asdict(plan) for plan in plans]}


@click.command("status")
@STORE
@output_options
def status_command(store: str) -> dict[str, Any]:
    """Show the stages and arrays of a store, and what was interrupted.

    \b
    Example:
      ooc-diffusion status --store s
    """
    from ..store import Store, status

    return {"stage": "status", **status(Store(store))}


@click.command("verify")
@STORE
@click.option("--data", is_flag=True, help="Also read all data and compare its checksums.")
@click.option("--max-seconds", type=Number(min=0), help="With --data: stop after this time.")
@output_options
def verify_command(store: str, data: bool, max_seconds: float | None) -> dict[str, Any] | None:
    """Compare the files of a store with its manifest; exit code 4 where something is wrong.

    \b
    Example:
      ooc-diffusion verify --store s --data
    """
    from ..errors import CorruptStore
    from ..store import Store, verify

    refuse_unread(data, "max_seconds", "--data")
    opened = Store(store)
    problems, bytes_read = verify(opened, data=data, seconds=max_seconds)
    record = {"stage": "verify", "arrays": len(opened.manifest.arrays), "bytes_read": bytes_read}
    record["problems"] = [asdict(problem) for problem in problems]
    if problems:
        print_record(record, as_json=click.get_current_context().params["as_json"])
        first = problems[0]
        remedy = f"; run stage {first.stage} again with --overwrite" if first.stage else ""
        raise CorruptStore(f"{len(problems)} of the arrays are damaged, first {first.array} ({first.file}): {first.what}{remedy}")
    return record


@click.command("doctor")
@output_options
def doctor_command() -> dict[str, Any]:
    """Show what this machine has: memory, cores, disk, GPUs, versions.

    \b
    Example:
      ooc-diffusion doctor
    """
    from ..stages.doctor import doctor

    return doctor()


@click.command("clean")
@STORE
@click.option("--unfinished", is_flag=True, help="Also remove the work of interrupted stages.")
@click.option("--dry-run", is_flag=True, help="Only say what would be removed.")
@output_options
def clean_command(store: str, unfinished: bool, dry_run: bool) -> dict[str, Any]:
    """Remove earlier generations and files that nothing names.

    \b
    Example:
      ooc-diffusion clean --store s --dry-run
    """
    from ..store import Store, clean

    report = clean(Store(store), unfinished=unfinished, dry_run=dry_run)
    return {"stage": "clean", "removed": report.files, "bytes": report.bytes, "dry_run": dry_run}


@click.command("split")
@click.argument("images")
@click.option("--output", required=True, type=click.Path(), help="JSON file to write.")
@click.option("--root", metavar="DIR", help="For data sets: where their files are or are downloaded to.")
@click.option("--seed", type=click.IntRange(0, 2**31 - 2), default=0, show_default=True, help="Seed of the split.")
@click.option("--overwrite", is_flag=True, help="Replace the file where there is one.")
@output_options
def split_command(images: str, **options: Any) -> dict[str, Any]:
    """Split the classes of IMAGES into two groups of base and novel ones, for `evaluate --protocol paper`.

    IMAGES is a data set, or a folder with a folder for each class.

    \b
    Examples:
      ooc-diffusion split fashion-mnist --output split.json --seed 1
      ooc-diffusion split characters/ --output split.json
    """
    from ..stages.split import split

    return split(images, **options)
