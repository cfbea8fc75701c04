"""The published StyleGAN2 as ours: tensors to the bit, pictures and logits as a reference of the test's own has them.

The reference is written from the papers (arXiv:1912.04958, arXiv:2006.06676) on the published names: convolutions per
picture, resampling by putting zeros between pixels, float64 throughout.
"""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import conv2d, leaky_relu, pad

from models.interchange.imported_model import ImportedModel
from models.interchange.inert_file import read_inert
from models.interchange.inert_pickle import ModelFileError
from models.interchange.stylegan2_import import import_published
from models.interchange.stylegan2_names import filter_names, is_filter, to_own, to_published

Tensors = dict[str, Tensor]


# ---- the reference


def resample(x: Tensor, up: int, down: int, padding: tuple[int, int], gain: float) -> Tensor:
    count, channels, height, width = x.shape
    spread = x.new_zeros(count, channels, height, up, width, up)
    spread[:, :, :, 0, :, 0] = x
    wide = pad(spread.reshape(count, channels, height * up, width * up), (*padding, *padding))
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0], dtype=x.dtype) / 8
    kernel = (torch.outer(taps, taps) * gain)[None, None].repeat(channels, 1, 1, 1)
    return conv2d(wide, kernel, groups=channels)[:, :, ::down, ::down]


def bend(x: Tensor, clamp: float | None, gain: float = math.sqrt(2)) -> Tensor:
    y = leaky_relu(x, 0.2) * gain
    return y if clamp is None else y.clamp(-clamp, clamp)


def dense(t: Tensors, name: str, x: Tensor, rate: float = 1.0) -> Tensor:
    weight = t[f"{name}.weight"] * rate / math.sqrt(x.shape[1])
    return x @ weight.t() + t[f"{name}.bias"] * rate


def unit(x: Tensor) -> Tensor:
    return x / (x.square().mean(dim=1, keepdim=True) + 1e-8).sqrt()


def map_latent(t: Tensors, z: Tensor | None, c: Tensor | None) -> Tensor:
    parts = ([] if z is None else [unit(z)]) + ([] if c is None else [unit(dense(t, "mapping.embed", c))])
    x, k = torch.cat(parts, dim=1), 0
    while f"mapping.fc{k}.weight" in t:
        x, k = bend(dense(t, f"mapping.fc{k}", x, 0.01), None), k + 1
    return x


def styled(t: Tensors, name: str, x: Tensor, w: Tensor, up: bool, noise: bool, clamp: float | None) -> Tensor:
    style, rows = dense(t, f"{name}.affine", w), []
    for picture, scale in zip(x, style, strict=True):
        weight = t[f"{name}.weight"] * scale[None, :, None, None]
        weight = weight / (weight.square().sum(dim=(1, 2, 3), keepdim=True) + 1e-8).sqrt()
        if up:  # zeros between the pixels, a true convolution (the kernel turned round), then the filter
            y = picture.new_zeros(len(picture), 2 * picture.shape[1] - 1, 2 * picture.shape[2] - 1)
            y[:, ::2, ::2] = picture
            y = resample(conv2d(y[None], weight.flip(2, 3), padding=2), 1, 1, (1, 1), 4.0)
        else:
            y = conv2d(picture[None], weight, padding=1)
        rows.append(y)
    y = torch.cat(rows)
    if noise:
        y = y + t[f"{name}.noise_const"] * t[f"{name}.noise_strength"]
    return bend(y + t[f"{name}.bias"][:, None, None], clamp)


def to_rgb(t: Tensors, name: str, x: Tensor, w: Tensor, clamp: float | None) -> Tensor:
    style = dense(t, f"{name}.affine", w) / math.sqrt(x.shape[1])
    y = torch.einsum("nihw,oi,ni->nohw", x, t[f"{name}.weight"][:, :, 0, 0], style)
    y = y + t[f"{name}.bias"][:, None, None]
    return y if clamp is None else y.clamp(-clamp, clamp)


def paint(t: Tensors, z: Tensor, c: Tensor | None, psi: float, noise: bool, clamp: float | None, side: int) -> Tensor:
    w = map_latent(t, z, c)
    w = t["mapping.w_avg"] + (w - t["mapping.w_avg"]) * psi
    x = t["synthesis.b4.const"][None].repeat(len(z), 1, 1, 1)
    picture = None
    for s in (4 << k for k in range((side // 4).bit_length())):
        block = f"synthesis.b{s}"
        if s > 4:
            x = styled(t, f"{block}.conv0", x, w, True, noise, clamp)
        x = styled(t, f"{block}.conv1", x, w, False, noise, clamp)
        rgb = to_rgb(t, f"{block}.torgb", x, w, clamp)
        picture = rgb if picture is None else resample(picture, 2, 1, (2, 1), 4.0) + rgb
    assert picture is not None
    return picture


def convolve(t: Tensors, name: str, x: Tensor, clamp: float | None, gain: float = 1.0) -> Tensor:
    weight = t[f"{name}.weight"]
    weight = weight / math.sqrt(weight[0].numel())
    part = name.rpartition(".")[2]
    if part == "skip":
        return conv2d(resample(x, 1, 2, (1, 1), 1.0), weight) * gain  # never clamped
    if part == "conv1":
        y = conv2d(resample(x, 1, 1, (2, 2), 1.0), weight, stride=2)
    else:
        y = conv2d(x, weight, padding=weight.shape[-1] // 2)
    y = bend(y + t[f"{name}.bias"][:, None, None], None, math.sqrt(2) * gain)
    return y if clamp is None else y.clamp(-clamp * gain, clamp * gain)


def judge(t: Tensors, x: Tensor, c: Tensor | None, clamp: float | None, group: int, features: int) -> Tensor:
    side = x.shape[2]
    x = convolve(t, f"b{side}.fromrgb", x, clamp)
    while side > 4:
        block = f"b{side}"
        residual = f"{block}.skip.weight" in t
        gain = math.sqrt(0.5) if residual else 1.0
        y = convolve(t, f"{block}.conv1", convolve(t, f"{block}.conv0", x, clamp), clamp, gain)
        x, side = (convolve(t, f"{block}.skip", x, clamp, gain) + y if residual else y), side // 2
    count, channels = x.shape[:2]
    if features:
        g = min(group, count)
        y = x.reshape(g, -1, features, channels // features, 4, 4)
        spread = (y.var(dim=0, unbiased=False) + 1e-8).sqrt().mean(dim=(2, 3, 4))  # (count / g, features)
        x = torch.cat([x, spread.repeat(g, 1)[:, :, None, None].expand(-1, -1, 4, 4)], dim=1)
    x = convolve(t, "b4.conv", x, clamp).flatten(1)
    x = dense(t, "b4.out", bend(dense(t, "b4.fc", x), None))
    if c is None:
        return x[:, 0]
    mapped = map_latent(t, None, c)
    return (x * mapped).sum(dim=1) / math.sqrt(mapped.shape[1])


def exact(tensors: Tensors) -> Tensors:
    return {name: tensor.double() for name, tensor in tensors.items()}


# ---- the tests


def load(path: Path) -> ImportedModel:
    return import_published(read_inert(path))


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_every_tensor_arrives_to_the_bit_and_none_is_left(published: Any, tmp_path: Path, protocol: int) -> None:
    published.protocol = protocol
    networks = {
        "G": published.generator(1, c_dim=3),
        "D": published.discriminator(2, c_dim=3),
        "G_ema": published.generator(3, c_dim=3),
    }
    model = load(published.snapshot(tmp_path / "network-snapshot-000100.pkl", **networks))
    for name, theirs in networks.items():
        expected, kind = published.flatten(theirs), "D" if name == "D" else "G"
        ours = model.networks[name].state_dict()
        names = to_own(kind, expected)
        assert sorted(names.values()) == sorted(ours)
        assert all(torch.equal(expected[theirs], ours[own]) for theirs, own in names.items())
        assert to_published(kind, ours, 32) == {own: theirs for theirs, own in names.items()}
        assert sorted(filter_names(kind, 32)) == sorted(filter(is_filter, expected))
    assert model.found == {"G_ema": "Generator", "G": "Generator", "D": "Discriminator"}
    assert model.training_set["path"] == "/data/portraits.zip"
    assert (model.config.labels, model.config.mirror, model.notes) == (3, True, [])


@pytest.mark.parametrize(
    ("c_dim", "clamp", "psi", "noise"),
    [(0, 256, 1.0, True), (0, None, 0.7, True), (3, 256, 0.7, False), (3, None, 1.0, False), (0, 1.5, 1.0, True)],
)
def test_pictures_are_those_of_the_reference(
    published: Any, tmp_path: Path, c_dim: int, clamp: float | None, psi: float, noise: bool
) -> None:
    theirs = published.generator(5, c_dim=c_dim, clamp=clamp)
    model = load(published.snapshot(tmp_path / "x.pkl", G_ema=theirs))
    rng = torch.Generator().manual_seed(6)
    z, c = torch.randn(3, 8, generator=rng), torch.eye(3)[torch.tensor([2, 0, 1])] if c_dim else None
    with torch.inference_mode():
        ours = model.networks["G_ema"](z, c, psi=psi, noise="const" if noise else "none")
        tensors = exact(published.flatten(theirs))
        expected = paint(tensors, z.double(), None if c is None else c.double(), psi, noise, clamp, 32)
    assert ours.shape == (3, 3, 32, 32)
    assert expected.std() > 0.3
    assert (ours - expected).abs().max() < 1e-5


@pytest.mark.parametrize(
    ("c_dim", "architecture", "clamp", "group", "features"),
    [(0, "resnet", 256, 4, 1), (3, "resnet", None, 2, 2), (0, "orig", 256, 4, 0), (0, "resnet", 0.8, 4, 1)],
)
def test_logits_are_those_of_the_reference(
    published: Any, tmp_path: Path, c_dim: int, architecture: str, clamp: float | None, group: int, features: int
) -> None:
    theirs = published.discriminator(
        7, c_dim=c_dim, architecture=architecture, clamp=clamp, group=group, features=features
    )
    generator = published.generator(8, c_dim=c_dim, clamp=clamp)
    model = load(published.snapshot(tmp_path / "x.pkl", D=theirs, G_ema=generator))
    rng = torch.Generator().manual_seed(9)
    x, c = torch.randn(group, 3, 32, 32, generator=rng), torch.eye(3)[:group] if c_dim else None
    with torch.inference_mode():
        ours = model.networks["D"](x, c)
        tensors = exact(published.flatten(theirs))
        expected = judge(tensors, x.double(), None if c is None else c.double(), clamp, group, features)
    assert expected.std() > 1e-3
    assert (ours - expected).abs().max() < 1e-5
    assert model.config.algorithm.model_dump()["mbstd_features"] == features


def test_settings_come_from_the_file(published: Any, tmp_path: Path) -> None:
    networks = {
        "G_ema": published.generator(1, resolution=64, base=256, most=32, layers=3, halves=2, channels=1),
        "D": published.discriminator(2, resolution=64, base=128, most=16, group=8, channels=1),
    }
    config = load(published.snapshot(tmp_path / "x.pkl", **networks)).config
    said = config.algorithm.model_dump()
    assert (config.resolution, config.channels, config.labels) == (64, 1, 0)
    assert {key: said[key] for key in ("z_dim", "w_dim", "mapping_layers", "half_resolutions", "conv_clamp")} == {
        "z_dim": 8, "w_dim": 12, "mapping_layers": 3, "half_resolutions": 2, "conv_clamp": 256.0
    }  # fmt: skip
    assert (said["channel_base"], said["channel_max"]) == (256, 32)
    assert (said["d_channel_base"], said["d_channel_max"], said["mbstd_group"]) == (128, 16, 8)


def test_a_file_with_an_average_alone(published: Any, tmp_path: Path) -> None:
    """There is no D; G is the average; a missing mean style is that of many seeds."""
    theirs = published.generator(1)
    del theirs.state["_modules"]["mapping"].state["_buffers"]["w_avg"]
    model = load(published.snapshot(tmp_path / "x.pkl", G_ema=theirs))
    assert sorted(model.networks) == ["G", "G_ema"]
    assert len(model.notes) == 3
    ours = model.networks["G_ema"]
    copied = model.networks["G"].state_dict()
    assert all(torch.equal(value, copied[name]) for name, value in ours.state_dict().items())
    w = map_latent(published.flatten(theirs), torch.randn(20_000, 8), None)
    assert (ours.w_mean - w.mean(dim=0)).abs().max() < 0.1 * w.std()


def test_a_discriminator_converted_from_tensorflow(published: Any, tmp_path: Path) -> None:
    """It says the rate of a mapping that it lacks, and that it looks at whole batches."""
    d = published.discriminator(2, group=None)
    d.state["_init_kwargs"]["mapping_kwargs"] = {"num_layers": 0, "activation": "lrelu", "lr_multiplier": 0.1}
    model = load(published.snapshot(tmp_path / "x.pkl", G=published.generator(1), G_ema=published.generator(1), D=d))
    assert model.config.algorithm.model_dump()["mbstd_group"] == 4
    assert model.networks["D"].mbstd_group == 4
    assert [note for note in model.notes if "all pictures of a batch together" in note] == model.notes
    conditional = published.discriminator(2, c_dim=3)
    conditional.state["_init_kwargs"]["mapping_kwargs"] = {"lr_multiplier": 0.1}
    with pytest.raises(ModelFileError, match=r"D says that lr_multiplier is 0\.1"):
        load(published.snapshot(tmp_path / "x.pkl", G_ema=published.generator(1, c_dim=3), D=conditional))


def change(path: str, key: str, value: object) -> Callable[[Any], None]:
    """Set an attribute of a module by dotted name."""

    def apply(network: Any) -> None:
        for part in filter(None, path.split(".")):
            network = network.state["_modules"][part]
        network.state[key] = value

    return apply


def said(key: str, value: object) -> Callable[[Any], None]:
    """Set an argument that the network says it was made with."""
    return lambda network: network.state["_init_kwargs"].update({key: value})


def tensor(path: str, kind: str, key: str, value: torch.Tensor | None) -> Callable[[Any], None]:
    """Set or (None) remove a tensor."""

    def apply(network: Any) -> None:
        for part in filter(None, path.split(".")):
            network = network.state["_modules"][part]
        if value is None:
            del network.state[kind][key]
        else:
            network.state[kind][key] = value

    return apply


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (said("z_dim", 16), "z_dim is 16, but it is 8"),
        (said("img_resolution", 64), "img_resolution is 64, but it is 32"),
        (said("synthesis_kwargs", {"channel_base": 64, "channel_max": 10}), "says channel_base 64"),
        (said("mapping_kwargs", {"num_layers": 8}), "num_layers is 8, but it is 2"),
        (said("mapping_kwargs", {"lr_multiplier": 0.1}), "lr_multiplier is 0.1"),
        (said("mapping_kwargs", {"lr_multiplier": 10**400}), "lr_multiplier is a huge number"),
        (change("synthesis.b8", "conv_clamp", 10**400), "conv_clamp is a huge number, which is no limit"),
        (change("mapping.fc0", "bias_gain", 10**400), "bias_gain a huge number"),
        (said("attention", True), r"not known here \(attention\)"),
        (change("", "c_dim", 4), "c_dim is 4"),
        (change("synthesis.b16.conv0", "conv_clamp", 2), "different conv_clamp"),
        (change("synthesis.b8", "architecture", "resnet"), "architecture resnet"),
        (change("synthesis.b8.conv1", "activation", "relu"), "activation relu"),
        (change("synthesis.b8.conv1", "use_noise", False), "takes no noise"),
        (change("mapping.fc0", "bias_gain", 1.0), "bias_gain 1.0, ours has 0.01"),
        (change("synthesis.b8", "use_fp16", True), "half precision below"),
        (tensor("synthesis.b8", "_buffers", "resample_filter", torch.ones(4, 4) / 16), "another filter"),
        (tensor("synthesis.b8.conv0", "_parameters", "weight", None), r"lacks synthesis\.levels\.1\.grow\.weight"),
        (tensor("synthesis.b8.conv0", "_parameters", "scale", torch.ones(1)), "has too much"),
        (tensor("synthesis.b8", "_parameters", "extra", torch.ones(1)), "not laid out as known"),
        (tensor("synthesis.b8.conv0", "_parameters", "bias", torch.zeros(3)), "does not fit"),
        (tensor("synthesis.b8.conv0", "_parameters", "bias", torch.full((10,), torch.nan)), "not finite"),
        (tensor("synthesis.b8.conv0", "_parameters", "bias", torch.zeros(10, dtype=torch.int64)), "floating-point"),
        (tensor("synthesis.b8.conv1", "_parameters", "weight", torch.zeros(9, 10, 3, 3)), "no channel_base gives"),
    ],
)
def test_what_ours_would_compute_otherwise_is_refused_by_name(
    published: Any, tmp_path: Path, spoil: Callable[[Any], None], message: str
) -> None:
    theirs = published.generator(1)
    spoil(theirs)
    with pytest.raises(ModelFileError, match=message):
        load(published.snapshot(tmp_path / "x.pkl", G_ema=theirs))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"resolution": 64}, "do not belong together: img_resolution is 64 and 32"),
        ({"c_dim": 2}, "do not belong together: c_dim"),
        ({"clamp": None}, "conv_clamp is None in D and 256.0 in G"),
        ({"group": 0}, "groups of 0"),
        ({"cmap_dim": 12, "c_dim": 0, "architecture": "skip"}, "architecture skip"),
    ],
)
def test_a_discriminator_that_ours_is_not(
    published: Any, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    networks = {"G_ema": published.generator(1), "D": published.discriminator(2, **changes)}
    with pytest.raises(ModelFileError, match=message):
        load(published.snapshot(tmp_path / "x.pkl", **networks))


def test_other_networks_are_told_what_they_are(published: Any, tmp_path: Path) -> None:
    module = published.module
    synthesis = module(
        "SynthesisNetwork", modules={"input": module("SynthesisInput"), "L0_36_512": module("SynthesisLayer")}
    )
    third = module("Generator", modules={"mapping": module("MappingNetwork"), "synthesis": synthesis})
    with pytest.raises(ModelFileError, match="StyleGAN3 generator"):
        load(published.snapshot(tmp_path / "x.pkl", G_ema=third))
    with pytest.raises(ModelFileError, match=r"is a FastGenerator made of net: Sequence"):
        load(published.snapshot(tmp_path / "y.pkl", G_ema=module("FastGenerator", modules={"net": module("Sequence")})))
    with pytest.raises(ModelFileError, match="no generator by the name G_ema or G, but D"):
        load(published.snapshot(tmp_path / "z.pkl", D=published.discriminator(1)))
