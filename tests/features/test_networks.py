import pickle
import urllib.error

import numpy as np
import pytest
from PIL import Image

from ooc_diffusion.errors import BadInput
from ooc_diffusion.features import NetworkExtractor, describe_images
from ooc_diffusion.features.weights import tidy_state
from ooc_diffusion.images import collect

torch = pytest.importorskip("torch")


@pytest.fixture(scope="module")
def images():
    random = np.random.default_rng(0)
    return [Image.fromarray(random.integers(0, 256, (h, w, 3), np.uint8)) for h, w in ((300, 260), (20, 31), (224, 224))]


@pytest.fixture(scope="module")
def resnet():
    return NetworkExtractor("resnet18", weights="none", device="cpu", seed=3)


def rebuilt(model, seed):
    """The network of the same seed, built without the extractor."""
    from torchvision import models

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return models.get_model(model, weights=None).eval()


def published_input(model, images):
    from torchvision import models

    transforms = models.get_model_weights(model).DEFAULT.transforms()
    return torch.stack([transforms(image) for image in images])


@pytest.mark.parametrize(
    ("model", "head", "dim"),
    [
        ("resnet18", "fc", 512),
        ("densenet121", "classifier", 1024),
        ("mobilenet_v3_small", "classifier.3", 1024),
        ("shufflenet_v2_x0_5", "fc", 1024),
        pytest.param("vgg11", "classifier.6", 4096, marks=pytest.mark.slow),
        pytest.param("vit_b_32", "heads.head", 768, marks=pytest.mark.slow),
        pytest.param("vit_b_16", "heads.head", 768, marks=pytest.mark.slow),
        pytest.param("swin_t", "head", 768, marks=pytest.mark.slow),
        pytest.param("convnext_tiny", "classifier.2", 768, marks=pytest.mark.slow),
    ],
)
def test_the_last_layer_of_the_features_gives_the_logits(model, head, dim, images):
    extractor = NetworkExtractor(model, weights="none", device="cpu", seed=3)
    features = extractor.describe(np.stack([extractor.prepare(image) for image in images]))
    assert features.shape == (3, dim) == (3, extractor.dim)
    assert features.dtype == np.float32
    network = rebuilt(model, 3)
    torch.nn.init.normal_(network.get_submodule(head).weight)  # vision transformers start with zeros there
    with torch.inference_mode():
        logits = network(published_input(model, images))
        again = network.get_submodule(head)(torch.from_numpy(features))
    # Relative to what tells the images apart: the logits of some untrained networks are tiny, those of others nearly constant.
    assert logits.std(dim=0).mean() > 0
    np.testing.assert_allclose(again, logits, atol=1e-3 * float(logits.std(dim=0).mean()))


def test_squeezenet_is_cut_before_its_last_convolution(images):
    extractor = NetworkExtractor("squeezenet1_0", weights="none", device="cpu", seed=3)
    features = extractor.describe(np.stack([extractor.prepare(image) for image in images]))
    assert features.shape == (3, 512)
    with torch.inference_mode():
        maps = rebuilt("squeezenet1_0", 3).features(published_input("squeezenet1_0", images))
    np.testing.assert_allclose(features, maps.mean(dim=(2, 3)), rtol=1e-4, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(("model", "dim"), [("googlenet", 1024), ("inception_v3", 2048)])
def test_networks_with_auxiliary_heads(model, dim, images):
    extractor = NetworkExtractor(model, weights="none", device="cpu")
    assert extractor.describe(np.stack([extractor.prepare(images[0])])).shape == (1, dim)


def test_preprocessing_is_that_of_the_published_weights(resnet, images):
    expected = published_input("resnet18", images).numpy()
    for image, wanted in zip(images, expected, strict=True):
        pixels = resnet.prepare(image).astype(np.float32) / 255
        got = (pixels.transpose(2, 0, 1) - np.array([0.485, 0.456, 0.406])[:, None, None]) / np.array([0.229, 0.224, 0.225])[
            :, None, None
        ]
        np.testing.assert_allclose(got, wanted, atol=1e-6)


def test_gray_and_threadlike_images(resnet, monkeypatch):
    from torchvision.transforms import functional

    def bounded(*arguments, **options):
        image = resize(*arguments, **options)
        assert max(image.size) <= 10 * 256
        return image

    resize = functional.resize
    monkeypatch.setattr(functional, "resize", bounded)
    gray = Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16))
    np.testing.assert_array_equal(resnet.prepare(gray), resnet.prepare(gray.convert("RGB")))
    for size in ((20000, 1), (1, 20000), (1, 1)):
        assert resnet.prepare(Image.new("L", size, 7)).tolist() == [[[7, 7, 7]] * 224] * 224
    wide = np.random.default_rng(0).integers(0, 256, (40, 400, 3), np.uint8)
    expected = published_input("resnet18", [Image.fromarray(wide)])[0].permute(1, 2, 0).numpy()
    got = (resnet.prepare(Image.fromarray(wide)) / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    np.testing.assert_allclose(got, expected, atol=0.02)


def test_files_of_every_kind_give_the_same_descriptors(resnet, images, tmp_path):
    from safetensors.torch import save_file

    state = resnet._network.state_dict()
    prefixed = {f"module.{key}": value for key, value in state.items()}
    save_file(state, tmp_path / "a.safetensors")
    torch.save(state, tmp_path / "b.pth")
    torch.save({"state_dict": prefixed, "epoch": 7}, tmp_path / "c.tar")
    torch.save({"model": state}, tmp_path / "d.pt")
    batch = np.stack([resnet.prepare(image) for image in images])
    expected = resnet.describe(batch).tobytes()
    for name in ("a.safetensors", "b.pth", "c.tar", "d.pt"):
        extractor = NetworkExtractor("resnet18", weights=str(tmp_path / name), device="cpu")
        assert extractor.describe(batch).tobytes() == expected
        assert extractor.identity["parameters"] == resnet.identity["parameters"]
        assert extractor.identity["weights"] == name


def test_a_head_of_another_size_and_wrong_keys(resnet, tmp_path):
    state = dict(resnet._network.state_dict())
    state["fc.weight"], state["fc.bias"] = torch.ones(7, 512), torch.ones(7)
    file = tmp_path / "w.pth"

    def load(**changes):
        changed = {key: value for key, value in {**state, **changes}.items() if value is not None}
        torch.save(changed, file)
        return NetworkExtractor("resnet18", weights=str(file), device="cpu")

    assert load().dim == 512
    assert load(**{"bn1.num_batches_tracked": None}).dim == 512
    with pytest.raises(BadInput, match=r"no parameter 'conv1.weight'"):
        load(**{"conv1.weight": None, "bn1.bias": None})
    with pytest.raises(BadInput, match=r"a parameter 'extra' that the model lacks"):
        load(extra=torch.ones(1))
    with pytest.raises(BadInput, match=r"'bn1.bias' is of shape \(3,\), the model has \(64,\)"):
        load(**{"bn1.bias": torch.ones(3)})
    with pytest.raises(BadInput, match=r"no parameter 'fc.weight'"):
        load(**{"fc.weight": None})
    with pytest.raises(BadInput, match="holds no state dict"):
        load(conv="text")


class Hostile:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_code_in_a_weights_file_is_refused_and_not_run(tmp_path):
    victim = tmp_path / "victim"
    torch.save({"fc.weight": Hostile(victim)}, tmp_path / "w.pth")
    (tmp_path / "plain.pkl").write_bytes(pickle.dumps(Hostile(victim), protocol=2))
    for name in ("w.pth", "plain.pkl"):
        with pytest.raises(BadInput, match="more than tensors"):
            NetworkExtractor("resnet18", weights=str(tmp_path / name), device="cpu")
    assert not victim.exists()


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
@pytest.mark.parametrize("content", [b"", b"text that is nothing", b"PK\x03\x04 half a zip"])
def test_corrupt_files(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BadInput, match=name) as caught:
        NetworkExtractor("resnet18", weights=str(tmp_path / name), device="cpu")
    assert "\n" not in str(caught.value)


def test_old_names_and_training_heads_are_understood():
    weight = torch.ones(1)
    state = {
        "features.denseblock1.denselayer2.norm.1.weight": weight,
        "features.norm0.weight": weight,
        "aux1.fc.weight": weight,
        "AuxLogits.fc.weight": weight,
    }
    assert list(tidy_state(state, "w")) == ["features.denseblock1.denselayer2.norm1.weight", "features.norm0.weight"]


def test_what_cannot_be_had_is_refused(tmp_path, monkeypatch):
    with pytest.raises(BadInput, match="did you mean resnet50"):
        NetworkExtractor("resnet-50", device="cpu")
    with pytest.raises(BadInput, match="give IMAGENET1K_V1, DEFAULT, none, or a file"):
        NetworkExtractor("resnet18", weights="IMAGENET", device="cpu")
    with pytest.raises(BadInput, match="does not exist"):
        NetworkExtractor("resnet18", weights=str(tmp_path / "w.pth"), device="cpu")
    with pytest.raises(BadInput, match="none of auto, cpu, cuda"):
        NetworkExtractor("resnet18", weights="none", device="gpu")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(BadInput, match="cuda:1 is not there"):
        NetworkExtractor("resnet18", weights="none", device="cuda:1")


@pytest.mark.parametrize(
    "error", [urllib.error.URLError("no network"), RuntimeError('invalid hash value (expected "a", got "b")')]
)
def test_a_failing_download_names_the_ways_out(monkeypatch, error):
    def offline(*_, **__):
        raise error

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", offline)
    with pytest.raises(BadInput, match="--weights FILE, or take --model pixels"):
        NetworkExtractor("resnet18", device="cpu")


def test_published_weights_are_taken_as_they_come(monkeypatch, resnet, images):
    asked = {}

    def fetch(url, **options):
        asked.update(options, url=url)
        return resnet._network.state_dict()

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", fetch)
    extractor = NetworkExtractor("resnet18", device="cpu")
    assert asked["check_hash"]
    assert asked["weights_only"]
    assert extractor.identity["weights"] == "ResNet18_Weights.IMAGENET1K_V1"
    batch = np.stack([resnet.prepare(image) for image in images])
    assert extractor.describe(batch).tobytes() == resnet.describe(batch).tobytes()


def test_random_weights_say_so_and_follow_the_seed(caplog, resnet):
    before = torch.random.get_rng_state()
    other = NetworkExtractor("resnet18", weights="none", device="cpu", seed=4)
    assert "random weights (seed 4)" in caplog.text
    assert torch.equal(torch.random.get_rng_state(), before)
    assert other.identity["parameters"] != resnet.identity["parameters"]
    again = NetworkExtractor("resnet18", weights="none", device="cpu", seed=3)
    assert again.identity == resnet.identity


def test_batches_threads_and_bad_images(resnet, tmp_path):
    random = np.random.default_rng(0)
    for i in range(40):
        Image.fromarray(random.integers(0, 256, (30, 40, 3), np.uint8)).save(tmp_path / f"{i:02d}.png")
    source = collect(tmp_path)
    whole = np.concatenate([block.descriptors for block in describe_images(source, resnet)])
    (resumed,) = describe_images(source, resnet, start=32, threads=2)
    assert resumed.descriptors.tobytes() == whole[32:].tobytes()
    (tmp_path / "35.png").write_bytes(b"")
    (damaged,) = describe_images(collect(tmp_path), resnet, start=32)
    assert damaged.failures == [(35, "empty file")]
    others = np.arange(8) != 3
    assert damaged.descriptors[others].tobytes() == whole[32:][others].tobytes()
    assert damaged.descriptors[3].tobytes() != whole[35].tobytes()
