"""Published encoders: their preprocessing, their names of weights, and files of weights that are something else."""

import pickle

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms

from attribench import encoders
from attribench.encoders import from_timm
from attribench.encoders.published import IMAGENET, PUBLISHED, Preprocessing, Published, Sscd
from attribench.encoders.weights import load_weights, read_tensors
from attribench.errors import UsageError

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
BICUBIC = transforms.InterpolationMode.BICUBIC
AS_PUBLISHED = {  # methods.md §6; no interpolation stands for torchvision's default
    "dino_vitb16": (transforms.Resize(256, BICUBIC), 224, IMAGENET_MEAN, IMAGENET_STD),
    "dinov2_vitl14_reg": (transforms.Resize(256, BICUBIC), 224, IMAGENET_MEAN, IMAGENET_STD),
    "vit_base_patch16_384": (transforms.Resize(384), 384, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "mocov3_vitb_300ep": (transforms.Resize(256), 224, IMAGENET_MEAN, IMAGENET_STD),
    "sscd_disc_mixup": (transforms.Resize(288), 288, IMAGENET_MEAN, IMAGENET_STD),
}


@pytest.mark.parametrize("name", PUBLISHED)
@pytest.mark.parametrize("size", [(300, 200), (64, 64), (500, 701)])
def test_preprocessing_is_that_of_the_paper(name, size):
    resize, crop, mean, std = AS_PUBLISHED[name]
    expected = transforms.Compose([resize, transforms.CenterCrop(crop), transforms.ToTensor(), transforms.Normalize(mean, std)])
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))
    assert torch.equal(PUBLISHED[name].preprocessing(picture), expected(picture))


def vit_b16_names(image_size: int) -> dict[str, tuple[int, ...]]:
    """The weights of a ViT-B/16 without classifier, as DINO's and MoCo v3's files and timm 0.4 name them."""
    d, tokens = 768, (image_size // 16) ** 2 + 1
    names = {"cls_token": (1, 1, d), "pos_embed": (1, tokens, d), "norm.weight": (d,), "norm.bias": (d,),
             "patch_embed.proj.weight": (d, 3, 16, 16), "patch_embed.proj.bias": (d,)}  # fmt: skip
    for i in range(12):
        shapes = {"norm1": (d,), "norm2": (d,), "attn.qkv": (3 * d, d), "attn.proj": (d, d), "mlp.fc1": (4 * d, d),
                  "mlp.fc2": (d, 4 * d)}  # fmt: skip
        for part, shape in shapes.items():
            names |= {f"blocks.{i}.{part}.weight": shape, f"blocks.{i}.{part}.bias": shape[:1]}
    return names


@pytest.mark.parametrize(("name", "size"), [("dino_vitb16", 224), ("mocov3_vitb_300ep", 224), ("vit_base_patch16_384", 384)])
def test_the_authors_names_and_shapes_fit_the_architecture(name, size):
    with torch.device("meta"):
        model = PUBLISHED[name].architecture()
    assert {key: tuple(value.shape) for key, value in model.state_dict().items()} == vit_b16_names(size)


def small_vit(**more):
    import timm

    return timm.create_model("test_vit", pretrained=False, num_classes=0, **more)


def test_a_training_checkpoint_is_read_under_its_prefix_and_without_its_head(tmp_path):
    torch.manual_seed(0)
    wanted, random = small_vit(), small_vit()
    tensors = {f"module.base_encoder.{name}": value for name, value in wanted.state_dict().items()}
    tensors |= {f"module.momentum_encoder.{name}": -value for name, value in wanted.state_dict().items()}
    tensors["module.base_encoder.head.0.weight"] = torch.zeros(3)
    torch.save({"epoch": 300, "arch": "vit_base", "state_dict": tensors, "optimizer": {"state": {}}}, tmp_path / "c.pth.tar")
    load_weights(random, tmp_path / "c.pth.tar", "module.base_encoder.", ("head.",))
    assert all(torch.equal(value, random.state_dict()[name]) for name, value in wanted.state_dict().items())


def test_a_published_encoder_reads_its_file(tmp_path, sixteen):
    torch.manual_seed(0)
    model = small_vit(img_size=32).eval()
    torch.save(model.state_dict(), tmp_path / "weights.pth")
    preprocessing = Preprocessing(resize=36, crop=32, interpolation="bicubic", normalize=IMAGENET)
    published = Published(preprocessing=preprocessing, architecture=lambda: small_vit(img_size=32), file="weights.pth")
    encoder = published.load_file("small", "cpu", str(tmp_path / "weights.pth"))
    with torch.no_grad():
        expected = model.forward_features(torch.stack([preprocessing(picture) for picture in sixteen[:2]]))[:, 0]
    torch.testing.assert_close(encoder.encode_images(sixteen[:2]), expected, atol=1e-5, rtol=0)


def test_sscd_is_generalized_mean_pooling_a_linear_layer_and_unit_length(tmp_path, sixteen):
    torch.manual_seed(0)
    model = Sscd().eval()
    torch.save(model.state_dict(), tmp_path / "sscd.torchvision.pt")
    encoder = encoders.load_encoder("sscd_disc_mixup", "cpu", str(tmp_path / "sscd.torchvision.pt"))
    features = encoder.encode_images(sixteen[:1])
    trunk = torch.nn.Sequential(*list(model.backbone.children())[:-2])
    with torch.no_grad():
        channels = trunk(encoder.pixels(sixteen[0])[None])[0]
    assert channels.shape == (2048, 9, 9)
    pooled = (channels.double().clamp(min=1e-6) ** 3).mean(dim=(1, 2)) ** (1 / 3)
    expected = model.backbone.fc.weight.double() @ pooled + model.backbone.fc.bias.double()
    torch.testing.assert_close(features[0].double(), expected.detach() / expected.detach().norm(), atol=1e-5, rtol=0)
    assert features.shape == (1, 512)


# ------------------------------------------------------------------------------- files from strangers


def test_weights_of_another_model_are_one_line(tmp_path):
    torch.save(small_vit(embed_dim=32).state_dict(), tmp_path / "other.pt")
    with pytest.raises(UsageError, match="of another model: ") as raised:
        load_weights(small_vit(), tmp_path / "other.pt")
    assert "\n" not in str(raised.value) and "×" in str(raised.value) and "more" in str(raised.value)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*deprecated")
def test_torchscript_is_refused_with_what_to_take_instead(tmp_path):
    torch.jit.script(torch.nn.Linear(2, 2)).save(tmp_path / "sscd_disc_mixup.torchscript.pt")
    with pytest.raises(UsageError, match=r"is TorchScript, which is a program, .* \.torchvision\.pt"):
        encoders.load_encoder("sscd_disc_mixup", "cpu", str(tmp_path / "sscd_disc_mixup.torchscript.pt"))


class Hostile:
    def __reduce__(self):
        return (print, ("this ran",))


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_no_pickle_is_run(tmp_path, capsys):
    torch.save({"weight": Hostile()}, tmp_path / "a.pt")
    (tmp_path / "b.pt").write_bytes(pickle.dumps({"weight": Hostile()}))
    (tmp_path / "c.pt").write_bytes(b"\0" * 100)
    torch.save([torch.zeros(2)], tmp_path / "d.pt")
    (tmp_path / "e.safetensors").write_bytes(b"\0" * 100)
    for name in ("a.pt", "b.pt", "c.pt", "d.pt", "e.safetensors", "missing.pt"):
        with pytest.raises(UsageError) as raised:
            read_tensors(tmp_path / name)
        assert str(tmp_path / name) in str(raised.value) and "\n" not in str(raised.value)
    assert "this ran" not in capsys.readouterr().out


def test_a_file_is_known_by_its_bytes(tmp_path):
    for name, value in (("a.pt", 1.0), ("b.pt", 1.0), ("c.pt", 2.0)):
        torch.save({"weight": torch.tensor(value)}, tmp_path / name, _use_new_zipfile_serialization=False)
    known = [encoders.fingerprint("sscd_disc_mixup", str(tmp_path / name)) for name in ("a.pt", "b.pt", "c.pt")]
    assert known[0] == known[1] != known[2]


def test_timm_knows_the_published_names():
    import timm

    for published in PUBLISHED.values():
        assert not published.timm or timm.is_model_pretrained(published.timm)
    assert from_timm.repository("vit_base_patch16_224.dino") == "timm/vit_base_patch16_224.dino"
