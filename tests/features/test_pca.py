import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from ooc_diffusion.errors import BadInput
from ooc_diffusion.features import BLOCK_ROWS, fit_pca, normalize_rows, project, sample_rows


def sample(m, d, seed=0):
    random = np.random.default_rng(seed)
    return (random.standard_normal((m, d)) * np.geomspace(5, 0.1, d) + random.uniform(-9, 9, d)).astype(np.float32)


@pytest.mark.parametrize(("m", "d", "dim"), [(4000, 40, 12), (4000, 40, 40), (30, 40, 20)])
def test_equals_singular_values_in_float64(m, d, dim):
    x = sample(m, d)
    pca = fit_pca(x, dim=dim)
    exact = x.astype(np.float64)
    centered = exact - exact.mean(axis=0)
    _, values, directions = np.linalg.svd(centered, full_matrices=False)
    signs = np.sign(np.take_along_axis(directions, np.abs(directions).argmax(axis=1)[:, None], axis=1))
    np.testing.assert_allclose(pca.mean, exact.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(pca.components, (directions * signs)[:dim], atol=2e-4)
    np.testing.assert_allclose(pca.explained_variance_ratio, (values**2 / (values**2).sum())[:dim], rtol=1e-4)
    np.testing.assert_allclose(pca.components @ pca.components.T, np.eye(dim), atol=1e-5)
    coordinates = (exact - pca.mean) @ pca.components.T.astype(np.float64)
    expected = coordinates / np.linalg.norm(coordinates, axis=1, keepdims=True)
    np.testing.assert_allclose(project(pca, x), expected, atol=1e-6)
    assert project(pca, x).dtype == np.float32


def test_a_large_mean_costs_no_digits():
    x = sample(3000, 8)
    np.testing.assert_allclose(fit_pca(x + np.float32(1000), dim=4).components, fit_pca(x, dim=4).components, atol=2e-3)


def test_more_rows_than_faiss_would_look_at():
    x = sample(9000, 4)  # by itself faiss takes 1000 per value
    variances = np.linalg.eigvalsh(np.cov(x.astype(np.float64).T))[::-1]
    np.testing.assert_allclose(fit_pca(x, dim=4).explained_variance_ratio, variances / variances.sum(), rtol=1e-4)


def test_fit_gives_the_same_bytes_for_every_number_of_threads():
    x = sample(6000, 100)
    fits = []
    for threads in (1, 2, 3):
        with threadpool_limits(threads):
            fits.append(fit_pca(x, dim=50))
    assert len({fit.components.tobytes() + fit.explained_variance_ratio.tobytes() for fit in fits}) == 1


def test_projection_gives_the_same_bytes_for_every_division():
    n = 3 * BLOCK_ROWS + 100
    x = sample(n, 96)
    pca = fit_pca(x[:1000], dim=33)
    whole = project(pca, x)
    for rows in (BLOCK_ROWS, 2 * BLOCK_ROWS, 4 * BLOCK_ROWS):
        parts = [project(pca, x[first : first + rows]) for first in range(0, n, rows)]
        assert np.concatenate(parts).tobytes() == whole.tobytes()
    for rows in (1, BLOCK_ROWS - 1, BLOCK_ROWS, BLOCK_ROWS + 1):
        assert project(pca, x[:rows]).tobytes() == whole[:rows].tobytes()
    for threads in (2, 5):
        with threadpool_limits(threads):
            assert project(pca, x, threads=threads).tobytes() == whole.tobytes()


def test_zero_rows_stay_zero():
    pca = fit_pca(sample(500, 10), dim=3)
    block = np.stack([pca.mean, pca.mean + pca.components[1] * np.float32(4)])
    projected = project(pca, block)
    assert projected[0].tolist() == [0, 0, 0]
    np.testing.assert_allclose(projected[1], [0, 1, 0], atol=1e-5)
    assert project(pca, block[:0]).shape == (0, 3)


def test_normalize_rows():
    rows = np.array([[3, 4], [0, 0], [-1e30, 0], [1e-30, 1e-30]], np.float32)
    expected = np.array([[0.6, 0.8], [0, 0], [-1, 0], [0.5**0.5, 0.5**0.5]])
    np.testing.assert_allclose(normalize_rows(rows), expected, rtol=1e-7)
    np.testing.assert_allclose(normalize_rows(rows.astype(np.float64) * 1e-200), expected, rtol=1e-7)
    many = np.random.default_rng(0).standard_normal((BLOCK_ROWS + 7, 5))
    np.testing.assert_allclose(np.linalg.norm(normalize_rows(many), axis=1), 1, rtol=1e-6)
    assert normalize_rows(many[3:9]).tobytes() == normalize_rows(many)[3:9].tobytes()
    assert normalize_rows(rows).dtype == np.float32


def test_constant_sample():
    pca = fit_pca(np.ones((20, 4), np.float32), dim=2)
    assert np.isfinite(pca.components).all()
    assert pca.explained_variance_ratio.tolist() == [0, 0]
    assert project(pca, np.ones((3, 4), np.float32)).tolist() == [[0, 0]] * 3


def test_refusals():
    x = sample(20, 8)
    for dim in (0, 9):
        with pytest.raises(BadInput, match="give 1 to 8"):
            fit_pca(x, dim=dim)
    with pytest.raises(BadInput, match="give 1 to 5"):
        fit_pca(x[:5], dim=6)
    with pytest.raises(BadInput, match="do not fit components of 8"):
        project(fit_pca(x, dim=2), x[:, :7])
    x[3, 3] = np.nan
    with pytest.raises(BadInput, match="row 3"):
        fit_pca(x, dim=2)


def test_sample_rows():
    np.testing.assert_array_equal(sample_rows(1000, d=2048, seed=0), np.arange(1000))
    assert len(sample_rows(0, d=8, seed=0)) == 0
    rows = sample_rows(100_000_000, d=2048, seed=1)
    assert rows.dtype == np.int64
    assert len(rows) == 2**28 // (4 * 2048)
    assert (np.diff(rows) > 0).all()
    assert rows[0] >= 0
    assert rows[-1] < 100_000_000
    np.testing.assert_array_equal(rows, sample_rows(100_000_000, d=2048, seed=1))
    assert (rows != sample_rows(100_000_000, d=2048, seed=2)).any()
    near = sample_rows(40_000, d=2048, seed=0)
    assert len(near) == 32768
    assert (np.diff(near) > 0).all()
    np.testing.assert_allclose(np.bincount(near // 10_000), 8192, atol=2)
