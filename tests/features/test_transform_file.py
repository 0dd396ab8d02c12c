"""Linear transforms from files of faiss, against faiss itself."""

import struct

import faiss
import numpy as np
import pytest

from ooc_diffusion.errors import BadInput
from ooc_diffusion.features import project, read_transform

X = np.random.default_rng(0).normal(size=(300, 20)).astype(np.float32) @ np.diag(np.linspace(3, 0.1, 20)).astype(np.float32) + 2


def trained(transform):
    transform.train(X)
    return transform


def with_bias():
    transform = faiss.LinearTransform(20, 8, True)
    rng = np.random.default_rng(1)
    for vector, size in ((transform.A, 160), (transform.b, 8)):
        faiss.copy_array_to_vector(rng.normal(size=size).astype(np.float32), vector)
    transform.is_trained = True
    return transform


def rotation():
    transform = faiss.RandomRotationMatrix(20, 8)
    transform.init(3)
    return transform


MADE = {
    "PCAR": lambda: trained(faiss.PCAMatrix(20, 8, 0, True)),
    "PCA": lambda: trained(faiss.PCAMatrix(20, 8, 0, False)),
    "whitening": lambda: trained(faiss.PCAMatrix(20, 8, -0.5, False)),
    "rotation": rotation,
    "bias": with_bias,
}


@pytest.mark.parametrize("make", MADE.values(), ids=MADE)
def test_a_transform_is_that_of_faiss(tmp_path, make):
    transform = make()
    faiss.write_VectorTransform(transform, str(tmp_path / "x.vt"))
    expected = transform.apply(X).astype(np.float64)
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    pca = read_transform(tmp_path / "x.vt")
    np.testing.assert_allclose(project(pca, X, threads=2), expected, atol=2e-6)


def older(new, letters, dropped):
    """The same PCA as an earlier faiss wrote it: other letters, without the numbers that came later."""
    data = b"".join(part for at, part in ((4, new[4:8]), (8, new[8:12]), (12, new[12:13]), (13, new[13:17])) if at not in dropped)
    return letters + data + new[17:]


@pytest.mark.parametrize(("letters", "dropped"), [(b"PCAm", (8, 13)), (b"PcAm", (8,))])
def test_files_of_earlier_versions(tmp_path, letters, dropped):
    transform = trained(faiss.PCAMatrix(20, 8, 0, True))
    faiss.write_VectorTransform(transform, str(tmp_path / "x.vt"))
    new = (tmp_path / "x.vt").read_bytes()
    (tmp_path / "old.vt").write_bytes(older(new, letters, dropped))
    np.testing.assert_array_equal(faiss.read_VectorTransform(str(tmp_path / "old.vt")).apply(X), transform.apply(X))
    ours, theirs = read_transform(tmp_path / "old.vt"), read_transform(tmp_path / "x.vt")
    np.testing.assert_array_equal(ours.components, theirs.components)
    np.testing.assert_array_equal(ours.bias, theirs.bias)


def test_every_cut_is_an_error(tmp_path):
    faiss.write_VectorTransform(trained(faiss.PCAMatrix(20, 8, 0, True)), str(tmp_path / "x.vt"))
    data = (tmp_path / "x.vt").read_bytes()
    for size in [*range(120), *range(120, len(data), 97), len(data) - 1]:
        (tmp_path / "x.vt").write_bytes(data[:size])
        with pytest.raises(BadInput, match=r"x\.vt ends before .*: \d+ of \d+ bytes are there; write it anew"):
            read_transform(tmp_path / "x.vt")
    (tmp_path / "x.vt").write_bytes(data + b"\0")
    with pytest.raises(BadInput, match="goes on for 1 bytes behind its transform"):
        read_transform(tmp_path / "x.vt")


def linear(a=160, b=8, d_in=20, d_out=8, trained=True, value=1.0):
    numbers = [np.full(count, value, np.float32) for count in (a, b)]
    vectors = b"".join(struct.pack("<Q", len(values)) + values.tobytes() for values in numbers)
    return b"LTra\1" + vectors + struct.pack("<ii?", d_in, d_out, trained)


BAD = {
    "an index": (b"IxF2" + bytes(100), r"begins with b'IxF2'; give a linear transform"),
    "untrained": (linear(trained=False), "was not trained"),
    "matrix": (linear(a=159), "takes 20 values to 8, but has a matrix of 159 and a bias of 8"),
    "bias": (linear(b=7), "has a matrix of 160 and a bias of 7"),
    "negative": (linear(d_in=-20, d_out=-8), "takes -20 values to -8"),
    "a length that overflows": (b"LTra\1" + struct.pack("<Q", 2**62), r"ends before the matrix: 0 of \d+ bytes"),
    "not finite": (linear(value=np.nan), "holds numbers that are not finite"),
}


@pytest.mark.parametrize(("data", "message"), BAD.values(), ids=BAD)
def test_bad_files(tmp_path, data, message):
    (tmp_path / "x.vt").write_bytes(data)
    with pytest.raises(BadInput, match=message) as error:
        read_transform(tmp_path / "x.vt")
    assert "\n" not in str(error.value)
