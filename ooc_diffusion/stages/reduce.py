"""Principal components and unit length."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import BadInput
from ..features import PCA, fit_pca, normalize_rows, project, read_transform, sample_rows
from ..images import printable
from ..store import Store, Strings
from .import_descriptors import file_identity, refuse_changed
from .plans import BLOCK_ROWS, plan_reduce
from .settings import DESCRIBED, Record, Settings, Worker, open_store, run_stage

logger = logging.getLogger(__name__)

DEFAULT_DIM = 256
# Counts of a role: vectors and descriptors that are all zeros, and the first row of the latter.
_NO_ZEROS = {"zero_rows": 0, "zero_descriptors": 0, "first_zero_descriptor": -1}


def reduce(
    store: Store | str | Path,
    *,
    dim: int | None = None,
    transform: str | Path | None = None,
    settings: Settings | None = None,
) -> Record:
    """Train a PCA on the background and bring the descriptors of all roles to ``dim`` dimensions and unit length.

    Parameters
    ----------
    store : Store or str or Path
        A store with ``background/descriptors``.
    dim : int, optional
        Dimensions to keep, at most those of the descriptors (and images in the sample); 0 leaves the PCA out. Default 256.
    transform : str or Path, optional
        A linear transform that ``faiss.write_VectorTransform`` wrote, instead of a PCA that is trained here. Descriptors that
        have as many values as it gives, not as it takes, count as transformed: they are brought to unit length only.
    settings : Settings, optional
        Options of the run.

    Returns
    -------
    dict
        The records of the stages ``reduce.<role>``, with ``zero_descriptors`` and ``zero_rows``, how many descriptors and vectors
        are all zeros. Arrays: ``pca/mean`` (d,), ``pca/components`` (dim, d), ``pca/variance`` (dim,), ``pca/bias`` (dim,) of a
        transform, and ``<role>/vectors`` (n, dim) for each role, all float32.

    Raises
    ------
    BadInput
        Where the descriptors of a role, of more images than one, are all zeros; and where descriptors, transform or options do
        not fit each other.

    Notes
    -----
    Section 4.1 of the paper: no whitening; the PCA is trained on (a sample of) the background alone.
    """
    settings = settings or Settings()
    target = open_store(store)
    roles = [role for role in DESCRIBED if f"{role}/descriptors" in target]
    if "background" not in roles:
        raise BadInput(f"{store} has no background descriptors; run `ooc-diffusion extract` or `import` first")
    own = None if transform is None else _open_transform(transform)
    if dim is not None and own is not None and dim != own.dim:
        raise BadInput(f"`dim` is {dim}, but {transform} gives {own.dim} values; leave `dim` out")
    dim = dim if dim is not None else DEFAULT_DIM if own is None else own.dim
    d = target.entry("background/descriptors").shape[1]
    for role in roles:
        found = target.entry(f"{role}/descriptors").shape[1]
        if own is not None and found not in (own.pca.components.shape[1], own.dim):
            raise BadInput(
                f"the {role} have descriptors of {found} values, but {transform} takes {own.pca.components.shape[1]} to "
                f"{own.dim}; give the transform of these descriptors"
            )
        if own is None and found != d:
            raise BadInput(f"the {role} have descriptors of {found} values, the background of {d}; extract both alike")
        _require_alike(target, role)
    if dim < 0:
        raise BadInput(f"`dim` is {dim}; give the number of dimensions to keep, or 0 for no PCA")
    return {role: _reduce_role(target, role, dim, own, settings) for role in roles}


@dataclass(frozen=True)
class _Own:
    """A transform from a file, and which file that is."""

    file: str | Path
    identity: dict[str, Any]
    pca: PCA

    @property
    def dim(self) -> int:
        """Values that it gives."""
        return len(self.pca.components)


def _open_transform(file: str | Path) -> _Own:
    return _Own(file, {"transform": file_identity(file)}, read_transform(file))


def _require_alike(store: Store, role: str) -> None:
    """Refuse descriptors of two networks, which would have nothing to do with each other."""
    stages = store.manifest.stages
    background, other = (stages.get(f"extract.{name}", {}).get("parameters") for name in ("background", role))
    if background is None or other is None:
        return
    for key in sorted({*background, *other} - {"fingerprint"}):
        if background.get(key) != other.get(key):
            raise BadInput(
                f"the {role} were extracted with {key} = {other.get(key)}, the background with {background.get(key)}; "
                "extract both alike"
            )


def resolve_dim(dim: int, n: int, d: int) -> int:
    """Return the number of dimensions that are kept of n descriptors with d values."""
    return min(dim, d, len(sample_rows(n, d=d, seed=0))) if dim else d


def _trained_on(store: Store) -> int:
    """Return the size of the background that the PCA is trained on: what `neighbors --add` took in since does not count."""
    reduced = store.manifest.stages.get("reduce.background", {"record": {}})["record"]
    return int(reduced.get("trained_on", store.entry("background/descriptors").shape[0]))


def _reduce_role(store: Store, role: str, dim: int, own: _Own | None, settings: Settings) -> Record:
    n, d = store.entry(f"{role}/descriptors").shape
    kept = resolve_dim(dim, _trained_on(store), d) if own is None else dim
    train = role == "background" and dim > 0 and own is None
    inputs = [f"{role}/descriptors"]
    if role != "background" and dim and not settings.dry_run:
        inputs += ["pca/mean", "pca/components"] + ([] if own is None else ["pca/bias"])
    return run_stage(
        store,
        f"reduce.{role}",
        settings,
        plan=plan_reduce(n, d if own is None else max(d, *own.pca.components.shape), kept, train=train, budget=settings.budget),
        parameters={"dim": kept if dim else 0, "seed": settings.seed} | ({} if own is None else own.identity),
        inputs=inputs,
        total=n,
        work=lambda worker: _project(worker, store, role, kept if dim else 0, own, settings.seed),
    )


def _project(worker: Worker, store: Store, role: str, dim: int, own: _Own | None, seed: int) -> dict[str, Any]:
    descriptors = store.array(f"{role}/descriptors")
    d = descriptors.shape[1]
    pca = _pca(worker, store, descriptors, role, dim, own, seed) if dim else None
    transformed = pca is not None and d != pca.components.shape[1]
    vectors = worker.job.array(f"{role}/vectors", "<f4", (len(descriptors), dim or d))
    worker.advance(vectors.rows)
    zeros: dict[str, Any] = _NO_ZEROS | worker.job.state
    for block in worker.checked_blocks(f"{role}/descriptors", rows=BLOCK_ROWS, start=vectors.rows):
        reduced = normalize_rows(block) if pca is None or transformed else project(pca, block, threads=worker.threads)
        zeros = _count_zeros(zeros, block, reduced, vectors.rows)
        vectors.append(reduced)
        worker.job.checkpoint(**zeros)
        worker.advance(len(block))
    if own is not None:
        refuse_changed(worker, {"transform": own.file}, own.identity)
    _tell_zeros(worker, store, role, zeros, len(descriptors), moved=pca is not None and not transformed)
    return {"dim": vectors.row_shape[0], **{key: zeros[key] for key in ("zero_rows", "zero_descriptors")}}


def _count_zeros(zeros: dict[str, Any], block: np.ndarray, reduced: np.ndarray, row: int) -> dict[str, Any]:
    """Add what a block has, the first descriptor of which is that of ``row``."""
    empty = np.flatnonzero(~block.any(axis=1))
    first = zeros["first_zero_descriptor"]
    return {
        "zero_rows": zeros["zero_rows"] + int((~reduced.any(axis=1)).sum()),
        "zero_descriptors": zeros["zero_descriptors"] + len(empty),
        "first_zero_descriptor": row + int(empty[0]) if first < 0 and len(empty) else first,
    }


def _tell_zeros(worker: Worker, store: Store, role: str, zeros: dict[str, int], n: int, *, moved: bool) -> None:
    """Warn of descriptors that are all zeros, which a PCA has moved to one place; refuse a role of nothing else."""
    count, row = zeros["zero_descriptors"], zeros["first_zero_descriptor"]
    if count == n > 1:  # one black image alone is an image
        worker.job.discard()
        raise BadInput(
            f"all {n} descriptors of the {role} are zeros, and nothing tells them apart; look where they come from, then "
            "`ooc-diffusion extract` or `import` them again with --overwrite"
        )
    if count:
        named = f"{role}/path_offsets" in store
        logger.warning(
            "%d of the %d descriptors of the %s are all zeros (first: row %d%s): %s, whatever they show",
            count,
            n,
            role,
            row,
            f", {printable(Strings.open(store, f'{role}/path')[row])}" if named else "",
            "they look alike" if moved else "they are near to nothing",
        )


def _pca(worker: Worker, store: Store, descriptors: np.ndarray, role: str, dim: int, own: _Own | None, seed: int) -> PCA:
    names = ["pca/mean", "pca/components", "pca/variance"] + ([] if own is None else ["pca/bias"])
    if role != "background":
        return PCA(*store.arrays(*names))
    if own is None:
        rows = sample_rows(len(descriptors), d=descriptors.shape[1], seed=seed)
        pca = fit_pca(np.asarray(descriptors[rows]), dim=dim)
    else:
        pca = own.pca
    values = [pca.mean, pca.components, pca.explained_variance_ratio] + ([] if pca.bias is None else [pca.bias])
    return PCA(*(worker.job.put(name, value) for name, value in zip(names, values, strict=True)))
