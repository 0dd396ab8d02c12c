import math
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

from ooc_diffusion.errors import BadInput
from ooc_diffusion.features import (
    Preprocessing,
    Recipe,
    Training,
    TrainingImages,
    channel_statistics,
    decode_state,
    encode_network,
    encode_state,
    make_network,
    network_costs,
    read_training,
)
from ooc_diffusion.features.augmentation import augment
from ooc_diffusion.images import UnreadableImage

torch = pytest.importorskip("torch")

SHOWN = Preprocessing(8, 8, "bilinear", [0.4], [0.2], True)


def recipe(**changes):
    given = {"epochs": 2, "batch_size": 8, "learning_rate": 0.1, "weight_decay": 1e-3, "balanced": False}
    return Recipe(**{**given, "augmentation": "none", "flip": False, "seed": 3, **changes})


def make_images(n=20, n_classes=3, keep=True, preprocessing=SHOWN, broken=(), most_failures=0, together=None):
    random = np.random.default_rng(1)
    pixels = random.integers(0, 256, (n, 8, 8) if preprocessing.gray else (n, 8, 8, 3), np.uint8)

    class Source:
        def __len__(self):
            return n

        def name(self, i):
            return f"image {i}"

        def read(self, i):
            if i in broken:
                raise UnreadableImage("broken")
            return Image.fromarray(pixels[i])

    classes = np.arange(n) % n_classes
    options = {"threads": 2, "keep": keep, "most_failures": most_failures, "together": together}
    return TrainingImages(Source(), classes, preprocessing, **options), pixels


def test_the_learning_rate_rises_and_falls():
    rates = [recipe().rate(step, 100) for step in range(100)]
    np.testing.assert_allclose(rates[:6], [0.02, 0.04, 0.06, 0.08, 0.1, 0.1])
    assert all(a > b for a, b in pairwise(rates[5:]))
    assert 0 < rates[-1] < 1e-4
    assert recipe().rate(0, 1) == 0.1


@pytest.mark.parametrize("n", [2, 3, 5, 8, 9, 17, 64])
def test_every_image_comes_once_in_an_epoch(n):
    parts = recipe().order(np.arange(n) % 2, 0)
    assert sorted(np.concatenate(parts).tolist()) == list(range(n))
    assert len(parts) == recipe().steps(np.arange(n) % 2)
    assert min(map(len, parts)) >= 2
    assert n < 4 or not np.array_equal(np.concatenate(parts), np.concatenate(recipe().order(np.arange(n) % 2, 1)))


def test_balanced_epochs_have_equally_many_of_every_class():
    classes = np.repeat([0, 1, 2], [20, 1, 4])
    order = np.concatenate(recipe(balanced=True).order(classes, 0))
    np.testing.assert_array_equal(np.bincount(classes[order]), [9, 9, 9])
    assert recipe(balanced=True).images(classes) == 27
    assert len(set(order[classes[order] == 0].tolist())) == 9  # none twice before all came once
    assert set(order[classes[order] == 2].tolist()) == {21, 22, 23, 24}


def test_what_augmentation_does():
    ramp = torch.arange(32.0).expand(6, 1, 32, 32).contiguous()
    random = np.random.default_rng(0)
    assert torch.equal(augment(ramp, 28, "none", flip=False, random=random), ramp[:, :, 2:30, 2:30])
    flipped = augment(ramp, 32, "none", flip=True, random=random)
    mirrored = [torch.allclose(one, ramp[0].flip(2), atol=1e-4) for one in flipped]
    assert [torch.allclose(one, ramp[0], atol=1e-4) for one in flipped] == [not one for one in mirrored]
    assert 0 < sum(mirrored) < 6
    inside = (augment(ramp, 32, "shift", flip=False, random=random) - ramp)[:, 0, 8:24, 8:24]
    moved = inside[:, 0, 0]
    assert torch.allclose(inside, moved[:, None, None].expand_as(inside), atol=1e-4)
    assert 0.01 < float(moved.abs().max()) <= 4
    for kind in ("affine", "crop"):
        values = augment(ramp, 28, kind, flip=False, random=random)
        assert values.shape == (6, 1, 28, 28)
        assert 0 <= float(values.min()) < float(values.max()) <= 31
        assert len({float(one.sum()) for one in values}) == 6


def test_steps_equal_gradient_descent_written_out():
    images, pixels = make_images()
    network, reference = (make_network("resnet10-small", 3, gray=True, seed=5) for _ in range(2))
    wanted = recipe(epochs=2, learning_rate=0.01)  # rounding grows with the rate
    training = Training(network, images, make_images(0)[0], SHOWN, wanted)
    training.run(lambda seen: None)
    momentum = [torch.zeros_like(each) for each in reference.parameters()]
    steps = [part for epoch in range(2) for part in wanted.order(images.classes, epoch)]
    reference.train()
    for step, part in enumerate(steps):
        values = torch.from_numpy((pixels[part][:, None] / 255 - 0.4) / 0.2).float()
        reference.zero_grad()
        torch.nn.functional.cross_entropy(reference(values), torch.from_numpy(images.classes[part])).backward()
        with torch.no_grad():
            for own, kept in zip(reference.parameters(), momentum, strict=True):
                slope = own.grad + 1e-3 * own
                kept.mul_(0.9).add_(slope)
                own -= wanted.rate(step, len(steps)) * (slope + 0.9 * kept)
    for (name, value), other in zip(network.state_dict().items(), reference.state_dict().values(), strict=True):
        np.testing.assert_allclose(value, other, rtol=1e-3, atol=1e-4, err_msg=name)
    assert [row["epoch"] for row in training.curve] == [1, 2]
    assert training.curve[0]["held_out_accuracy"] is None
    assert training.images_seen == 40


def test_images_that_cannot_be_read_are_left_out_of_steps_and_counted():
    networks = []
    for keep in (True, False):
        images, _ = make_images(broken=(4, 7), keep=keep, most_failures=2)
        network = make_network("resnet10-small", 3, gray=True, seed=5)
        Training(network, images, make_images(0)[0], SHOWN, recipe()).run(lambda seen: None)
        assert images.failures == {4: "broken", 7: "broken"}
        networks.append(encode_network(network, "resnet10-small", ["a", "b", "c"], SHOWN))
    assert networks[0] == networks[1]
    with pytest.raises(BadInput, match=r"2 of 20 images are unreadable.*image 4: broken; image 7: broken"):
        make_images(broken=(4, 7), most_failures=1)


@pytest.mark.parametrize("keep", [True, False])
def test_what_is_trained_on_and_held_out_has_one_allowance(keep):
    def read(together, n, broken):
        images, _ = make_images(n=n, broken=broken, keep=keep, most_failures=1, together=together)
        list(images.batches([np.arange(n)]))

    together = []
    read(together, 20, (4,))
    with pytest.raises(BadInput, match=r"2 of 30 images are unreadable.*image 4: broken; image 7: broken"):
        read(together, 10, (7,))


def test_mean_and_deviation_of_channels():
    colors = Preprocessing(8, 8, "bilinear", [0.5] * 3, [0.5] * 3)
    images, pixels = make_images(preprocessing=colors)
    mean, deviation = channel_statistics(images, np.arange(20))
    np.testing.assert_allclose(mean, (pixels / 255).mean(axis=(0, 1, 2)), atol=1e-4)
    np.testing.assert_allclose(deviation, (pixels / 255).std(axis=(0, 1, 2)), atol=1e-4)


def test_a_state_is_whole_or_nothing():
    tensors = {"b": torch.arange(6.0).view(2, 3), "a": torch.tensor(7)}
    values = {"step": 3, "sums": [math.pi, 1, 2]}
    data = encode_state(tensors, values)
    assert data == encode_state(dict(reversed(tensors.items())), values)
    found, said = decode_state(data)
    assert said == values
    assert all(torch.equal(found[name], tensors[name]) for name in tensors)
    for place in range(0, len(data), 5):
        changed = bytearray(data)
        changed[place] ^= 1
        assert decode_state(bytes(changed)) is None, place
    assert decode_state(data[:-1]) is None
    assert decode_state(b"") is None


def test_a_network_describes_itself_and_damage_is_named(tmp_path):
    from safetensors.torch import save_file

    network = make_network("resnet18-small", 2, seed=0)
    file = tmp_path / "n.safetensors"
    file.write_bytes(encode_network(network, "resnet18-small", ["x", "y"], SHOWN))
    assert read_training(file) == {"model": "resnet18-small", "classes": ["x", "y"], "preprocessing": SHOWN}
    save_file({"a": torch.ones(1)}, file, {"ooc_diffusion": '{"model": "resnet18-small"}'})
    with pytest.raises(BadInput, match="description cannot be read"):
        read_training(file)
    save_file({"a": torch.ones(1)}, file)
    assert read_training(file) is None
    assert read_training("DEFAULT") is None


def test_costs_are_those_of_the_layers():
    costs = network_costs("resnet10-small", 5, 8, gray=True)
    network = make_network("resnet10-small", 5, gray=True)
    assert costs.parameters == sum(each.numel() for each in network.parameters())
    stem = 9 * 32 * 64
    first = 2 * 9 * 32 * 32 * 64
    rest = [(9 * w * 2 * w + 9 * 2 * w * 2 * w + w * 2 * w) * side**2 for w, side in ((32, 4), (64, 2), (128, 1))]
    assert costs.multiply_adds == stem + first + sum(rest) + 256 * 5
    with pytest.raises(BadInput, match="vit_b_16 does not take images of 32 pixels"):
        network_costs("vit_b_16", 5, 32, gray=False)
