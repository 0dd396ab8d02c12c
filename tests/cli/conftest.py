import numpy as np
import pytest

from .helpers import digit_images, done, write_csv, write_images

PIXELS = ("--model", "pixels", "--k", "10", "--n-iter", "2", "--method", "diffusion")


@pytest.fixture(scope="session")
def digit_folder(tmp_path_factory):
    """60 digits as ``<i>.png``, the classes of the first 30 in ``few.csv``; not to be changed."""
    root = tmp_path_factory.mktemp("digits")
    images, truth = digit_images(60)
    write_images(root / "images", images, [b"%02d.png" % i for i in range(60)])
    write_csv(root / "few.csv", [(f"{i:02d}.png", str(truth[i])) for i in range(30)])
    return root


@pytest.fixture(scope="session")
def vectors(tmp_path_factory):
    """A store with 60 imported descriptors and their graph; only for reading."""
    root = tmp_path_factory.mktemp("vectors")
    np.save(root / "x.npy", np.random.default_rng(0).normal(size=(60, 8)).astype(np.float32))
    done("import", root / "x.npy", "--store", root / "s")
    done("reduce", "--store", root / "s", "--dim", "4")
    done("neighbors", "--store", root / "s", "--k", "5")
    done("graph", "--store", root / "s")
    return root / "s"
