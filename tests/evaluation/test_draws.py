import numpy as np
import pytest

from ooc_diffusion.errors import BadInput
from ooc_diffusion.evaluation import draw_seeds, seed_of_draw


def test_draws_are_of_their_class_sorted_and_never_unknown(rng):
    truth = rng.integers(-1, 6, size=500)
    seeds, classes = draw_seeds(truth, n_per_class=7, seed=3)
    assert seeds.dtype == np.int64
    assert classes.dtype == np.int32
    np.testing.assert_array_equal(classes, np.repeat(np.arange(6), 7))
    np.testing.assert_array_equal(truth[seeds], classes)
    assert len(np.unique(seeds)) == len(seeds)


def test_fewer_images_are_nested_in_more(rng):
    truth = rng.integers(0, 4, size=200)
    largest = draw_seeds(truth, n_per_class=20, seed=1)[0].reshape(4, 20)
    for n in (1, 2, 5, 10):
        np.testing.assert_array_equal(draw_seeds(truth, n_per_class=n, seed=1)[0].reshape(4, n), largest[:, :n])


def test_seeds_differ_and_repeat(rng):
    truth = rng.integers(0, 4, size=200)
    first, again, other = (draw_seeds(truth, n_per_class=5, seed=s)[0] for s in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_no_two_draws_of_neighboring_seeds_are_the_same(rng):
    truth = rng.integers(0, 4, size=200)
    draws = {tuple(draw_seeds(truth, n_per_class=5, seed=seed_of_draw(seed, draw))[0]) for seed in range(4) for draw in range(5)}
    assert len(draws) == 20


def test_seed_0_draws_by_the_number_of_the_draw(rng):
    """As it did when the seed was added to it, so that what was measured stays as it is."""
    truth = rng.integers(0, 4, size=200)
    for draw in range(5):
        found, expected = (draw_seeds(truth, n_per_class=5, seed=seed)[0] for seed in (seed_of_draw(0, draw), draw))
        np.testing.assert_array_equal(found, expected)


def test_every_image_can_be_drawn():
    truth = np.array([0, 0, 0])
    assert {int(draw_seeds(truth, n_per_class=1, seed=s)[0][0]) for s in range(40)} == {0, 1, 2}


def test_a_class_with_too_few_images_is_named():
    with pytest.raises(BadInput, match="class 1 has 2 images, 3"):
        draw_seeds(np.array([0, 0, 0, 1, 1, -1]), n_per_class=3, seed=0)
    with pytest.raises(BadInput, match="class 'fig' has 2 images, 3"):
        draw_seeds(np.array([0, 0, 0, 1, 1, -1]), n_per_class=3, seed=0, class_names=["pear", "fig"])
    with pytest.raises(BadInput, match="class 1 has 0 images"):
        draw_seeds(np.array([0, 2]), n_per_class=1, seed=0)
    with pytest.raises(BadInput, match="known class"):
        draw_seeds(np.array([-1, -1]), n_per_class=1, seed=0)
    with pytest.raises(BadInput, match="at least 1"):
        draw_seeds(np.array([0]), n_per_class=0, seed=0)
