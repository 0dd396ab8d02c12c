"""Mean and standard deviation over draws, for tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

__all__ = ["rows", "summarize"]


def summarize(draws: Sequence[Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """Mean and standard deviation of each figure over the draws.

    Parameters
    ----------
    draws : sequence of mapping from str to float
        The figures of each draw, the same names in each.

    Returns
    -------
    dict
        For each name ``{"mean": ..., "std": ..., "draws": number of draws}``. The deviation is that of a sample (divided by
        the number of draws less one), and NaN for a single draw.
    """
    result = {}
    for name in draws[0] if draws else ():
        values = np.array([draw[name] for draw in draws], dtype=np.float64)
        std = float(values.std(ddof=1)) if len(values) > 1 else float("nan")
        result[name] = {"mean": float(values.mean()), "std": std, "draws": len(values)}
    return result


def rows(
    summaries: Mapping[str, Mapping[str, Mapping[str, float]]], names: Iterable[str], *, decimals: int = 2
) -> list[list[str]]:
    """Text cells in percent: a header, then per method ``mean ± std``.

    Parameters
    ----------
    summaries : mapping
        For each method what `summarize` returns, of figures from 0 to 1.
    names : iterable of str
        The columns; a figure that a method lacks shows as a dash.
    decimals : int
        Digits after the point.

    Returns
    -------
    list of list of str
        The first row is ``["method", *names]``. The deviation is left out where there was one draw.
    """
    names = list(names)
    table = [["method", *names]]
    for method, summary in summaries.items():
        table.append([method, *(_cell(summary.get(name), decimals) for name in names)])
    return table


def _cell(figure: Mapping[str, float] | None, decimals: int) -> str:
    if figure is None:
        return "–"
    mean = f"{100 * figure['mean']:.{decimals}f}"
    return mean if np.isnan(figure["std"]) else f"{mean} ± {100 * figure['std']:.{decimals}f}"
