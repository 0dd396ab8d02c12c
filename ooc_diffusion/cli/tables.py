"""Records of runs as text for people."""

from __future__ import annotations

from typing import Any

import click

from ..memory import format_size
from ..report.wording import counted, time_left


def show(record: dict[str, Any]) -> None:
    """Print the text that belongs to a record."""
    stage = record.get("stage", "")
    if "plans" in record or ("plan" in record and "seconds" not in record):
        _show_plans(record.get("plans") or [record["plan"]], record)
    elif stage in _SHOWN:
        _SHOWN[stage](record)
    elif "output" in record:
        _show_label(record)
    elif all(isinstance(value, dict) for value in record.values()):
        _show_roles(record)
    else:
        _show_stage(record)


def _table(header: list[str], rows: list[list[str]]) -> None:
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    for row in [header, *rows]:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _show_plans(plans: list[dict[str, Any]], record: dict[str, Any]) -> None:
    rows = [
        [
            plan["stage"],
            format_size(plan["memory_bytes"]),
            format_size(plan["least_bytes"]),
            format_size(plan["disk_bytes"]),
            format_size(plan["scratch_bytes"]),
            *((format_size(sum(plan["reads"].values())), format_size(plan["write_bytes"])) if plan["reads"] else ("-", "-")),
            f"{plan['operations']:.2g}" if plan["operations"] else "-",
            plan["work"],
        ]
        for plan in plans
    ]
    _table(["stage", "memory", "smallest budget", "disk", "scratch disk", "reads", "writes", "multiply-adds", "work"], rows)
    for plan in plans:
        if plan["reads"]:
            steps = ", ".join(f"{step} {format_size(size)}" for step, size in plan["reads"].items())
            click.echo(f"{plan['stage']} reads at most: {steps}")
        for more in _more(plan):
            click.echo(f"{plan['stage']} may besides {more}")
    if record.get("expected_reads"):
        click.echo(f"of which searching reads about {format_size(record['expected_reads']['searching'])}, as its lists tell")
    peak, least = (max(plan[key] for plan in plans) for key in ("memory_bytes", "least_bytes"))
    disk = sum(plan["disk_bytes"] for plan in plans) + max(plan["scratch_bytes"] for plan in plans)
    click.echo(
        f"all: memory {format_size(peak)}, smallest budget {format_size(least)}, disk {format_size(disk)}; {_time(record)}"
    )
    _show_seconds(record)
    _show_steps(record)


def _more(plan: dict[str, Any]) -> list[str]:
    """Say what sizes do not tell."""
    recall, identical = plan["recall_bytes"], plan["identical_bytes"]
    measured = f"read up to {format_size(recall)} to measure a recall that is poor"
    written = f"write and read up to {format_size(identical)} of scratch disk where thousands of images are identical"
    return [measured] * (recall > 0) + [written] * (identical > 0)


def _time(record: dict[str, Any]) -> str:
    """Say how long it will take, as far as that is known."""
    if "runs" in record:
        return _runs(record)
    diffusing = sum(step["seconds"] for step in record.get("planned", []))
    if diffusing:
        return f"{diffusing:.1f} s for one diffusion, without choices by cross-validation"
    by_stage = record.get("seconds_by_stage") or {record.get("stage", ""): record.get("planned_seconds", {})}
    known = {stage: sum(seconds.values()) for stage, seconds in by_stage.items() if seconds}
    if not known:
        return "time unknown"
    assumed = f", if {record['probes_assumed']} lists are probed" if "probes_assumed" in record else ""
    return ", ".join(f"{stage} about {seconds:.1f} s" for stage, seconds in known.items()) + assumed


def _runs(record: dict[str, Any]) -> str:
    """Say how many runs of the protocol there are, and how long those take that are left."""
    runs, before, left = (record[key] for key in ("runs", "runs_done_before", "seconds_left"))
    told = counted(runs, "run") + (f", {before:,} of them done before" if before else "")
    if before == runs:
        return told
    if left is None:
        return f"{told}; the time left is shown once some are done"
    others = "the other" if runs == before + 1 else f"the other {runs - before:,}"
    return f"{told}, about {time_left(left)} for {others} at their pace"


def _show_seconds(record: dict[str, Any]) -> None:
    """Print the seconds of steps, those planned beside those taken."""
    by_stage = record.get("seconds_by_stage") or {"": record.get("planned_seconds", {})}
    planned = {f"{stage} {step}".strip(): seconds for stage, of in by_stage.items() for step, seconds in of.items()}
    taken = record.get("step_seconds", {})
    if not planned:
        return
    rows = [[step, *(f"{of[step]:.2f}" if step in of else "-" for of in (planned, taken))] for step in {**planned, **taken}]
    _table(["step", "planned seconds", "seconds"], rows)


def _show_stage(record: dict[str, Any]) -> None:
    skipped = ", done before" if record.get("skipped") else ""
    figures = f"{record['seconds']:.1f} s, peak memory {format_size(record['peak_memory_bytes'])}{_traffic(record)}{skipped}"
    facts = [f"{key} {_number(value)}" for key, value in _facts(record)] + _recalls(record)
    if record.get("in_degree"):
        facts.append("in-degree " + ", ".join(f"{quantile}: {degree:,}" for quantile, degree in record["in_degree"].items()))
    if record.get("steps"):
        facts.append("steps " + " + ".join(f"{number:,} {kind}" for kind, number in record["steps"].items()))
    click.echo(f"{record['stage']}: {', '.join([*facts, figures])}")
    _show_seconds(record)
    _show_steps(record)


def _traffic(record: dict[str, Any]) -> str:
    """Say what was read and written beside what was planned, where that was planned."""
    plan = record.get("plan", {})
    if not plan.get("reads") or "read_bytes" not in record:
        return ""
    identical = plan.get("identical_bytes", 0)  # older plans have none
    read, written = (
        f"{format_size(record[done])} {what} (planned {_at_most(planned, more)})"
        for done, what, planned, more in (
            ("read_bytes", "read from disk", sum(plan["reads"].values()), plan.get("recall_bytes", 0) + identical),
            ("written_bytes", "written", plan["write_bytes"], identical),
        )
    )
    expected = record.get("expected_reads")
    about = f", of which about {format_size(sum(expected.values()))} were expected" if expected else ""
    return f", {read}{about}, {written}"


def _at_most(planned: int, more: int) -> str:
    return f"{format_size(planned)}, at most {format_size(planned + more)}" if more else f"at most {format_size(planned)}"


def _show_steps(record: dict[str, Any]) -> None:
    """Print the steps of a diffusion, those planned beside those taken."""
    planned, done = ({(step["t"], step["kind"]): step for step in record.get(name, [])} for name in ("planned", "iterations"))
    if not planned and not done:
        return
    rows = [
        [
            str(t) if t else "all",
            kind,
            *(f"{step[name]:,}" if step else "-" for name in ("batches", "rows", "edges") for step in (planned.get((t, kind)),)),
            format_size(planned[t, kind]["bytes"]) if (t, kind) in planned else "-",
            f"{planned[t, kind]['seconds']:.2f}" if (t, kind) in planned else "-",
            *(f"{step[name]:,}" if step else "-" for name in ("batches", "rows", "edges") for step in (done.get((t, kind)),)),
            format_size(done[t, kind]["disk_bytes"]) if (t, kind) in done else "-",
            f"{done[t, kind]['seconds']:.2f}" if (t, kind) in done else "-",
        ]
        for t, kind in sorted({*planned, *done})
    ]
    figures = ["batches", "rows", "edges"]
    _table(
        ["L_t", "step", *[f"planned {name}" for name in [*figures, "bytes", "seconds"]], *figures, "from disk", "seconds"], rows
    )


def _facts(record: dict[str, Any]) -> list[tuple[str, Any]]:
    hidden = {"stage", "seconds", "plan", "resumed", "skipped"}
    return [
        (key.replace("_", " "), value)
        for key, value in record.items()
        if key not in hidden and not key.endswith("_bytes") and isinstance(value, str | int | float)
    ]


def _number(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _recalls(record: dict[str, Any]) -> list[str]:
    """Say the recalls that were measured: of a table, or of the seeds in the rows of roles."""
    seeds = record.get("recall_of_seeds", {})
    found = {"recall": record.get("recall"), **{f"recall of seeds among {role}": value for role, value in seeds.items()}}
    return [
        f"{name} {value['recall']:.4f} ± {value['uncertainty']:.4f}"
        + (f" ({value['visited']:.4f} with the vectors in float32)" if "visited" in value else "")
        for name, value in found.items()
        if value
    ]


def _show_roles(record: dict[str, Any]) -> None:
    for value in record.values():
        show(value)


def _show_label(record: dict[str, Any]) -> None:
    click.echo(
        f"{record['images']:,} images, {len(record['classes'])} classes from {record['seeds']:,} labelled images; "
        f"{record['unreached']:,} unreached, {record['unreadable']:,} unreadable; "
        f"peak memory {format_size(record['peak_memory_bytes'])}"
    )
    _show_before(record)
    click.echo(f"labels: {record['output']}\nreport: {record['report']}")


def _show_demo(record: dict[str, Any]) -> None:
    click.echo(record["table"])
    click.echo(f"peak memory {format_size(record['peak_memory_bytes'])}")
    _show_before(record)
    click.echo(f"report: {record['report']}")


def _show_before(record: dict[str, Any]) -> None:
    """Say which stages have measurements of an earlier run."""
    if record["done_before"]:
        click.echo(f"done before, and measured then: {', '.join(record['done_before'])}")


def _show_evaluate(record: dict[str, Any]) -> None:
    from ..report import accuracy_table_text
    from ..stages.page import make_evaluation

    click.echo(accuracy_table_text(make_evaluation(record)))
    _show_stage(record)


def _show_evaluate_paper(record: dict[str, Any]) -> None:
    from ..report import accuracy_table_text
    from ..stages.low_shot_background import neighbors_text
    from ..stages.page import make_paper_evaluation

    for group in record["accuracy"]:
        for novel in (False, True):
            click.echo(f"{group}, tests of {'novel classes alone' if novel else 'all classes'}")
            click.echo(accuracy_table_text(make_paper_evaluation(record, group, novel=novel)) + "\n")
    rows = [
        [
            n,
            "limit" if chosen["n_iter"] is None else str(chosen["n_iter"]),
            *(str(chosen[key]) for key in ("coefficient", "neighbors")),
            *(f"{chosen['logistic'][key]:g}" for key in ("learning_rate", "weight_decay", "batch_size", "n_steps")),
        ]
        for n, chosen in record["chosen"].items()
    ]
    if record["variant"]:
        click.echo(
            "variant: " + ", ".join(f"{key.replace('_', ' ')} {_number(value)}" for key, value in record["variant"].items())
        )
    click.echo(f"chosen on group 1 by {record['by']}")
    logistic = ["learning rate", "weight decay", "batch size", "steps"]
    _table(["n", "iterations", "weight of logistic regression", "neighbors of kNN", *logistic], rows)
    if "draws" in record:
        click.echo(f"labelled images: {record['draws']}")
    if record["neighbors"]:
        click.echo(f"among the images of the background: {neighbors_text(record['neighbors'])}")
    click.echo(f"{record['seconds']:.1f} s, peak memory {format_size(record['peak_memory_bytes'])}")
    _show_before(record)


def _show_split(record: dict[str, Any]) -> None:
    parts = ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in record.items() if "_classes_" in key)
    click.echo(f"{record['classes']} classes: {parts}\nsplit: {record['file']}")


def _show_study(record: dict[str, Any]) -> None:
    for table in record["tables"]:
        click.echo(table + "\n")
    verdicts = [claim["verdict"] for claim in record["claims"]]
    counts = ", ".join(f"{verdict}: {verdicts.count(verdict)}" for verdict in dict.fromkeys(verdicts))
    if verdicts:
        click.echo(f"{record['rule']}\n")
    click.echo(f"claims {counts or 'none'}; {record['seconds']:.1f} s\nreport: {record['report']}")


def _show_paths(record: dict[str, Any]) -> None:
    without = f", {record['without_path']} without a path" if record["without_path"] else ""
    click.echo(f"{record['walks']} walks{without}; peak memory {format_size(record['peak_memory_bytes'])}")
    click.echo(f"paths: {record['output']}" + (f"\nreport: {record['report']}" if "report" in record else ""))


def _show_status(record: dict[str, Any]) -> None:
    click.echo(f"{record['store']}: generation {record['generation']}")
    lines = [
        [
            made["stage"],
            format_size(made["bytes"]),
            "outdated, run again" if made["outdated"] else "done",
            ", ".join(f"{name} {_shape(shape)}" for name, shape in made["arrays"].items()) or "-",
        ]
        for made in record["stages"]
    ]
    for job in record["unfinished"]:
        done = ", ".join(f"{name} {rows:,} rows" for name, rows in job["rows"].items())
        lines.append([job["stage"], "", "interrupted", done or "nothing kept yet"])
    lines += [[folder, "", "under way, or left by a killed process: clean removes it", ""] for folder in record["temporary"]]
    _table(["stage", "size", "state", "arrays"], lines)


def _shape(shape: list[int]) -> str:
    return " x ".join(f"{length:,}" for length in shape)


def _show_verify(record: dict[str, Any]) -> None:
    for problem in record["problems"]:
        click.echo(f"{problem['array']}: {problem['what']}")
    if not record["problems"]:
        click.echo(f"{record['arrays']} arrays are as the manifest says ({format_size(record['bytes_read'])} read)")


def _show_doctor(record: dict[str, Any]) -> None:
    for name, value in record["facts"].items():
        text = format_size(value) if name.endswith("_bytes") else str(value)
        click.echo(f"{name.removesuffix('_bytes').replace('_', ' '):22} {text}")
    for warning in record["warnings"]:
        click.echo(f"warning: {warning}")


def _show_clean(record: dict[str, Any]) -> None:
    verb = "would remove" if record["dry_run"] else "removed"
    click.echo(f"{verb} {len(record['removed'])} files, {format_size(record['bytes'])}")


_SHOWN = {
    "demo": _show_demo,
    "train": _show_stage,
    "evaluate": _show_evaluate,
    "evaluate-paper": _show_evaluate_paper,
    "split": _show_split,
    "study": _show_study,
    "paths": _show_paths,
    "status": _show_status,
    "verify": _show_verify,
    "doctor": _show_doctor,
    "clean": _show_clean,
}
