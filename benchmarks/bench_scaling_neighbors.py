"""How the search of the neighbor table grows with N: seconds per row at one recall, disk traffic and seconds planned beside real.

    python tools/make_collection.py hard 1000000 --dimensions 64 --vectors-only --folder hard64-1m
    python benchmarks/bench_scaling_neighbors.py hard64-1m/vectors.npy --sizes 100000 200000 400000 1000000 --json scaling.json

The background is the first N rows of the file, for each N; `neighbors --index list-major` visits as many lists as the recall
takes on a sample. ``planned`` is what `--dry-run` says before anything is known of the lists, ``foretold`` what the run says once
the probes are known (of runs from 2³⁸ multiply-adds on). The exponent of seconds = a N^x is fitted to the logarithms; the paper's
offline cost is N^1.5. A size whose result is in the JSON file already is not measured again.

Claims: seconds and disk traffic are foretold within 30 %.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from peers import machine

from ooc_diffusion.memory import format_size
from ooc_diffusion.stages.import_descriptors import import_descriptors
from ooc_diffusion.stages.neighbors import neighbors
from ooc_diffusion.stages.reduce import reduce
from ooc_diffusion.stages.settings import Settings

K = 30
SIZES = (100_000, 200_000, 400_000, 1_000_000)


def measure(vectors: np.ndarray, n: int, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Plan and search the first n vectors; return what was planned and what was."""
    settings = {"memory_budget": options.memory_budget, "threads": options.threads}
    np.save(folder / "part.npy", vectors[:n])
    import_descriptors(folder / "part.npy", store=folder / "store", settings=Settings(**settings))
    (folder / "part.npy").unlink()
    reduce(folder / "store", dim=vectors.shape[1], settings=Settings(**settings))
    how = {"k": K, "index": "list-major", "target_recall": options.recall}
    planned = neighbors(folder / "store", settings=Settings(dry_run=True, **settings), **how)["background"]
    record = neighbors(folder / "store", settings=Settings(**settings), **how)["background"]
    plan = record["plan"]
    return {
        "n": n,
        "d": vectors.shape[1],
        "probes": record["probes"],
        "recall": record["recall"]["recall"],
        "seconds": record["seconds"],
        "step_seconds": record["step_seconds"],
        "probes_assumed": planned.get("probes_assumed"),
        "planned_seconds": planned["planned_seconds"],
        "foretold_seconds": record.get("planned_seconds", {}),
        "planned_read_bytes": sum(plan["reads"].values()),
        "expected_read_bytes": sum(record.get("expected_reads", {}).values()),
        "read_bytes": record["read_bytes"],
        "planned_written_bytes": plan["write_bytes"],
        "written_bytes": record["written_bytes"],
        "peak_bytes": record["peak_memory_bytes"],
    }


def show(row: dict[str, Any]) -> None:
    """Print one size: the whole, and its steps."""
    planned, foretold = (sum(row[name].values()) for name in ("planned_seconds", "foretold_seconds"))
    print(
        f"N {row['n']:>10,}  probes {row['probes']:>4}  recall {row['recall']:.3f}  {row['seconds']:8.1f} s  "
        f"{1e6 * row['seconds'] / row['n']:7.1f} µs a row; planned {planned:.1f} s, foretold {foretold:.1f} s; "
        f"read {format_size(row['read_bytes'])} (at most {format_size(row['planned_read_bytes'])}, "
        f"expected {format_size(row['expected_read_bytes'])}), "
        f"written {format_size(row['written_bytes'])} ({format_size(row['planned_written_bytes'])}); "
        f"peak {format_size(row['peak_bytes'])}"
    )
    for step, taken in row["step_seconds"].items():
        before, after = (row[name].get(step) for name in ("planned_seconds", "foretold_seconds"))
        figures = [f"{value:8.2f}" if value is not None else "       -" for value in (before, after, taken)]
        print(f"    {step:14} planned {figures[0]}  foretold {figures[1]}  taken {figures[2]}", flush=True)


def fit(rows: list[dict[str, Any]], seconds: list[float]) -> dict[str, float]:
    """Return a and x of seconds = a N^x, and the largest factor between formula and measurement."""
    factors = np.array([[1.0, np.log(row["n"])] for row in rows])
    found, *_ = np.linalg.lstsq(factors, np.log(seconds), rcond=None)
    off = float(np.exp(np.abs(factors @ found - np.log(seconds)).max()))
    return {"a": float(np.exp(found[0])), "x": float(found[1]), "largest_factor": off}


def main() -> None:
    """Measure, fit, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("vectors", type=Path, help="an .npy of vectors (n, d), float32, of unit length")
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES), help="N; default: 100 000 to 1 million")
    parser.add_argument("--recall", type=float, default=0.95, help="recall@30; default: 0.95")
    parser.add_argument("--memory-budget", default="1GiB", help="default: 1GiB")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="default: all cores")
    parser.add_argument("--json", type=Path, help="file for the results, and of those that are there already")
    options = parser.parse_args()
    vectors = np.load(options.vectors, mmap_mode="r")
    there = json.loads(options.json.read_text())["rows"] if options.json and options.json.exists() else []
    rows = {row["n"]: row for row in there if row["d"] == vectors.shape[1]}
    for n in options.sizes:
        if n > len(vectors):
            raise SystemExit(f"{options.vectors} has only {len(vectors):,} vectors, not {n:,}")
        if n not in rows:
            with tempfile.TemporaryDirectory(dir=options.vectors.parent) as folder:
                rows[n] = measure(vectors, n, Path(folder), options)
        show(rows[n])
        if options.json:
            about = {**machine(), "recall": options.recall, "memory_budget": options.memory_budget, "threads": options.threads}
            options.json.write_text(json.dumps({**about, "rows": list(rows.values())}, indent=1) + "\n")
    measured = [rows[n] for n in sorted(rows)]
    if len(measured) > 1:
        for what, seconds in (
            ("searching", [row["step_seconds"]["searching"] for row in measured]),
            ("everything", [row["seconds"] for row in measured]),
        ):
            found = fit(measured, seconds)
            print(f"{what}: seconds = {found['a']:.3g} N^{found['x']:.2f}, within a factor of {found['largest_factor']:.2f}")


if __name__ == "__main__":
    main()
