import numpy as np
import pytest

from ooc_diffusion.classify.logistic import (
    BalancedSampler,
    LogisticModel,
    _exact_bits,
    _fixed_point,
    train_logistic,
    train_logistic_until,
)
from ooc_diffusion.errors import BadInput


def blobs(rng, counts, d=6, offset=3.0, spread=1.0):
    centers = rng.normal(size=(len(counts), d))
    y = np.repeat(np.arange(len(counts)), counts)
    return (offset + centers[y] + spread * rng.normal(size=(len(y), d))).astype(np.float32), y


def balanced_objective(X, y, weights, bias, decay, scale):
    """Mean over classes of their mean cross-entropy plus decay of the weights in scaled units, float64."""
    logits = X.astype(np.float64) @ weights + bias
    losses = np.logaddexp.reduce(logits, axis=1) - logits[np.arange(len(y)), y]
    per_class = [losses[y == c].mean() for c in np.unique(y)]
    return np.mean(per_class) + 0.5 * decay * np.square(weights * scale).sum()


def rms(X):
    centered = X.astype(np.float64) - X.mean(axis=0, dtype=np.float64)
    return np.sqrt(np.square(centered).sum(axis=1).mean())


def test_converges_to_the_balanced_solution_of_scikit_learn(rng):
    from sklearn.linear_model import LogisticRegression

    X, y = blobs(rng, [300, 40, 10])
    decay, scale = 0.01, rms(X)
    peer = LogisticRegression(class_weight="balanced", C=1 / (decay * len(y)), tol=1e-8, max_iter=5000)
    peer.fit((X - X.mean(axis=0)) / scale, y)
    peer_weights = peer.coef_.T / scale
    peer_bias = peer.intercept_ - X.mean(axis=0) @ peer_weights
    best = balanced_objective(X, y, peer_weights, peer_bias, decay, scale)
    mine = train_logistic(X, y, n_classes=3, learning_rate=0.1, weight_decay=decay, batch_size=256, n_steps=2500)
    reached = balanced_objective(X, y, mine.weights, mine.bias, decay, scale)
    assert best - 1e-6 <= reached <= best * 1.002
    unbalanced = LogisticRegression(C=1 / (decay * len(y)), max_iter=5000).fit((X - X.mean(axis=0)) / scale, y)
    weights = unbalanced.coef_.T / scale
    other = balanced_objective(X, y, weights, unbalanced.intercept_ - X.mean(axis=0) @ weights, decay, scale)
    assert other > best * 1.05, "the test must be able to tell a sampler that is not balanced"


def test_sampler_draws_classes_equally_and_their_rows_equally(rng):
    y = np.repeat([4, 0, 2], [9900, 99, 1])
    drawn = BalancedSampler(y, np.random.default_rng(1)).draw(30_000)
    shares = np.bincount(y[drawn], minlength=5) / len(drawn)
    np.testing.assert_allclose(shares[[0, 2, 4]], 1 / 3, atol=0.01)
    within = np.bincount(drawn[y[drawn] == 0] - 9900, minlength=99)
    assert within.min() > 50
    assert within.max() < 160


def test_sampler_does_not_depend_on_the_grouping_of_draws():
    y = np.array([0, 1, 1, 2, 2, 2])
    whole = BalancedSampler(y, np.random.default_rng(3)).draw(100)
    sampler = BalancedSampler(y, np.random.default_rng(3))
    np.testing.assert_array_equal(whole, np.concatenate([sampler.draw(size) for size in (1, 9, 90)]))


def test_same_seed_same_bytes_and_other_seed_not(rng):
    X, y = blobs(rng, [20, 5])
    first, again, other = (train_logistic(X, y, n_classes=2, n_steps=50, seed=s, threads=1) for s in (7, 7, 8))
    assert first.weights.tobytes() == again.weights.tobytes()
    assert first.bias.tobytes() == again.bias.tobytes()
    assert first.weights.tobytes() != other.weights.tobytes()


def test_models_on_the_way_are_those_of_trainings_that_stop_there(rng):
    X, y = blobs(rng, [30, 10, 5])
    fixed = {"n_classes": 3, "learning_rate": 0.7, "weight_decay": 0.02, "batch_size": 16, "seed": 3, "threads": 1}
    steps = (0, 1, 256, 300)
    models = train_logistic_until(X, y, n_steps=steps, **fixed)
    assert len({model.weights.tobytes() for model in models}) == len(steps)
    for n_steps, model in zip(steps, models, strict=True):
        alone = train_logistic(X, y, n_steps=n_steps, **fixed)
        assert model.weights.tobytes() == alone.weights.tobytes()
        assert model.log_probabilities(X).tobytes() == alone.log_probabilities(X).tobytes()
    assert train_logistic_until(X, y, n_steps=(300,), **fixed)[0].bias.tobytes() == models[-1].bias.tobytes()


def test_the_unit_and_the_origin_of_descriptors_do_not_matter(rng):
    X, y = blobs(rng, [30, 30, 30], offset=0.0)
    plain = train_logistic(X, y, n_classes=3, n_steps=200).log_probabilities(X)
    moved = train_logistic(X * 64 + 32, y, n_classes=3, n_steps=200).log_probabilities(X * 64 + 32)
    np.testing.assert_allclose(plain, moved, atol=1e-3)


def test_threads_of_torch_come_back(rng):
    import torch

    X, y = blobs(rng, [5, 5])
    before = torch.get_num_threads()
    train_logistic(X, y, n_classes=2, n_steps=1, threads=1 if before > 1 else 2)
    assert torch.get_num_threads() == before


def test_reads_a_read_only_memmap_of_another_dtype(rng, tmp_path):
    X, y = blobs(rng, [20, 5])
    np.save(tmp_path / "X.npy", X.astype(np.float16))
    mapped = np.load(tmp_path / "X.npy", mmap_mode="r")
    a = train_logistic(mapped, y, n_classes=2, n_steps=20)
    b = train_logistic(X.astype(np.float16).astype(np.float32), y, n_classes=2, n_steps=20)
    np.testing.assert_array_equal(a.weights, b.weights)
    assert np.isfinite(a.log_probabilities(mapped)).all()


@pytest.mark.parametrize(("d", "n_classes"), [(1, 2), (6, 3), (64, 10), (257, 101)])
def test_log_probabilities_do_not_depend_on_blocks(rng, d, n_classes):
    n = 600
    model = LogisticModel(rng.normal(size=(d, n_classes)).astype(np.float32), rng.normal(size=n_classes).astype(np.float32))
    X = rng.normal(size=(n, d)).astype(np.float32)
    whole = model.log_probabilities(X)
    logits = X.astype(np.float64) @ model.weights + model.bias
    np.testing.assert_allclose(whole, logits - np.logaddexp.reduce(logits, axis=1)[:, None], atol=1e-4, rtol=1e-4)
    for size in (1, 7, n - 1, n, n + 1):
        parts = [model.log_probabilities(X[start : start + size]) for start in range(0, n, size)]
        assert np.concatenate(parts).tobytes() == whole.tobytes()
    # Another order of rows and one of columns change the order of BLAS sums; exact sums do not care.
    assert model.log_probabilities(X[::-1])[::-1].tobytes() == whole.tobytes()
    mixed = rng.permutation(d)
    assert LogisticModel(model.weights[mixed], model.bias).log_probabilities(X[:, mixed]).tobytes() == whole.tobytes()
    assert model.log_probabilities(X[:0]).shape == (0, n_classes)


@pytest.mark.parametrize("d", [1, 2, 3, 784, 2048, 2049, 100_000])
def test_products_of_rounded_factors_sum_up_without_rounding(rng, d):
    bits = _exact_bits(d)
    assert d * 4**bits <= 2**53
    assert d * 4 ** (bits + 2) > 2**53, "no precision is given away"
    values = rng.normal(size=(3, d)) * np.array([[1e-20], [1.0], [1e20]])
    integers, exponents = _fixed_point(values, 1, bits)
    assert np.abs(integers).max() <= 2**bits
    np.testing.assert_array_equal(integers, np.rint(integers))
    error = np.abs(np.ldexp(integers, exponents) - values).max(axis=1)
    assert (error <= np.abs(values).max(axis=1) * 2.0**-bits).all()


def test_log_probabilities_stay_finite_for_large_descriptors():
    model = LogisticModel(np.array([[1.0, -1.0]], dtype=np.float32), np.zeros(2, dtype=np.float32))
    assert np.isfinite(model.log_probabilities(np.array([[3e38]], dtype=np.float32))).all()


def test_identical_and_single_rows_train():
    X = np.full((4, 3), 2.0, dtype=np.float32)
    for y in (np.array([0, 0, 1, 1]), np.array([0, 0, 0, 0])):
        assert np.isfinite(train_logistic(X, y, n_classes=3, n_steps=20).log_probabilities(X)).all()


def test_bad_input_is_refused(rng):
    X, y = blobs(rng, [3, 3])
    broken = X.copy()
    broken[2, 1] = np.nan
    cases = [
        (X, y[:-1], {}, "one class per row"),
        (X, y + 1, {}, "number them"),
        (X, y - 1, {}, "number them"),
        (X[:0], y[:0], {}, "no seeds"),
        (broken, y, {}, "NaN"),
        (X, y, {"batch_size": 0}, "at least 1"),
        (X, y, {"learning_rate": 1e38, "n_steps": 500}, "diverged"),
    ]
    for data, classes, options, message in cases:
        with pytest.raises(BadInput, match=message):
            train_logistic(data, classes, n_classes=2, **options)
    model = train_logistic(X, y, n_classes=2, n_steps=1)
    with pytest.raises(BadInput, match="6 dimensions"):
        model.log_probabilities(X[:, :2])
    with pytest.raises(BadInput, match="NaN"):
        model.log_probabilities(broken)
