"""rosinality's `.pt` as ours. The file and the arithmetic are written here, from memory of that program: no file of
others was at hand."""

import argparse
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn.functional import conv2d, conv_transpose2d, leaky_relu, pad

from models.interchange.inert_file import read_inert
from models.interchange.inert_pickle import ModelFileError
from models.interchange.rosinality import import_rosinality

Tensors = dict[str, Tensor]
SIZE, STYLE, LAYERS = 32, 12, 3
WIDTHS = {4: 10, 8: 10, 16: 8, 32: 4}
KERNEL = torch.outer(torch.tensor([1.0, 3, 3, 1]), torch.tensor([1.0, 3, 3, 1])) / 64


def generator_state(seed: int) -> Tensors:
    rng = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=rng)

    state: Tensors = {"input.input": draw(1, WIDTHS[4], 4, 4)}
    for k in range(1, LAYERS + 1):
        state |= {f"style.{k}.weight": draw(STYLE, STYLE) * 100, f"style.{k}.bias": draw(STYLE) * 100}

    def styled(name: str, inputs: int, outputs: int, up: bool) -> None:
        state[f"{name}.conv.weight"] = draw(1, outputs, inputs, 3, 3)
        state[f"{name}.conv.modulation.weight"], state[f"{name}.conv.modulation.bias"] = (
            draw(inputs, STYLE),
            draw(inputs),
        )
        state[f"{name}.noise.weight"], state[f"{name}.activate.bias"] = draw(1), draw(outputs)
        if up:
            state[f"{name}.conv.blur.kernel"] = KERNEL * 4

    def to_rgb(name: str, inputs: int, up: bool) -> None:
        state[f"{name}.bias"], state[f"{name}.conv.weight"] = draw(1, 3, 1, 1), draw(1, 3, inputs, 1, 1)
        state[f"{name}.conv.modulation.weight"], state[f"{name}.conv.modulation.bias"] = (
            draw(inputs, STYLE),
            draw(inputs),
        )
        if up:
            state[f"{name}.upsample.kernel"] = KERNEL * 4

    styled("conv1", WIDTHS[4], WIDTHS[4], False)
    to_rgb("to_rgb1", WIDTHS[4], False)
    for k, side in enumerate((8, 16, 32)):
        styled(f"convs.{2 * k}", WIDTHS[side // 2], WIDTHS[side], True)
        styled(f"convs.{2 * k + 1}", WIDTHS[side], WIDTHS[side], False)
        to_rgb(f"to_rgbs.{k}", WIDTHS[side], True)
    for k in range(7):
        side = 4 << (k + 1) // 2
        state[f"noises.noise_{k}"] = draw(1, 1, side, side)
    return state


def discriminator_state(seed: int) -> Tensors:
    rng = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=rng)

    state = {"convs.0.0.weight": draw(WIDTHS[32], 3, 1, 1), "convs.0.1.bias": draw(WIDTHS[32])}
    for k, side in enumerate((32, 16, 8), 1):
        width, below = WIDTHS[side], WIDTHS[side // 2]
        state |= {
            f"convs.{k}.conv1.0.weight": draw(width, width, 3, 3),
            f"convs.{k}.conv1.1.bias": draw(width),
            f"convs.{k}.conv2.0.kernel": KERNEL,
            f"convs.{k}.conv2.1.weight": draw(below, width, 3, 3),
            f"convs.{k}.conv2.2.bias": draw(below),
            f"convs.{k}.skip.0.kernel": KERNEL,
            f"convs.{k}.skip.1.weight": draw(below, width, 1, 1),
        }
    last = WIDTHS[4]
    return state | {
        "final_conv.0.weight": draw(last, last + 1, 3, 3),
        "final_conv.1.bias": draw(last),
        "final_linear.0.weight": draw(last, last * 16),
        "final_linear.0.bias": draw(last),
        "final_linear.1.weight": draw(1, last),
        "final_linear.1.bias": draw(1),
    }


def save(tensors: Tensors) -> Tensors:
    """The state dict that a module with these tensors has: torch adds versions of its parts, as an attribute."""
    whole = torch.nn.Module()
    for name, tensor in tensors.items():
        *path, last = name.split(".")
        part = whole
        for step in path:
            if step not in dict(part.named_children()):
                part.add_module(step, torch.nn.Module())
            part = part.get_submodule(step)
        part.register_buffer(last, tensor)
    state: Tensors = whole.state_dict()
    assert state.keys() == tensors.keys() and vars(state).keys() == {"_metadata"}
    return state


# ---- the reference, float64


def blur(x: Tensor, kernel: Tensor, before: int, after: int) -> Tensor:
    return conv2d(
        pad(x, (before, after, before, after)), kernel.double().repeat(x.shape[1], 1, 1, 1), groups=x.shape[1]
    )


def bend(x: Tensor) -> Tensor:
    return leaky_relu(x, 0.2) * math.sqrt(2)


def modulated(t: Tensors, name: str, x: Tensor, w: Tensor, normed: bool) -> Tensor:
    weight = t[f"{name}.weight"]  # (1, out, in, k, k)
    outputs, inputs, side = weight.shape[1], weight.shape[2], weight.shape[3]
    style = w @ t[f"{name}.modulation.weight"].t() / math.sqrt(STYLE) + t[f"{name}.modulation.bias"]
    own = weight / math.sqrt(inputs * side**2) * style[:, None, :, None, None]
    if normed:
        own = own * (own.square().sum(dim=(2, 3, 4), keepdim=True) + 1e-8).rsqrt()
    count = len(x)
    row = x.reshape(1, count * inputs, *x.shape[2:])
    if f"{name}.blur.kernel" in t:
        turned = own.transpose(1, 2).reshape(count * inputs, outputs, side, side)
        y = conv_transpose2d(row, turned, stride=2, groups=count)
        return blur(y.reshape(count, outputs, *y.shape[2:]), t[f"{name}.blur.kernel"], 1, 1)
    y = conv2d(row, own.reshape(count * outputs, inputs, side, side), padding=side // 2, groups=count)
    return y.reshape(count, outputs, *y.shape[2:])


def paint(t: Tensors, z: Tensor, mean: Tensor, psi: float) -> Tensor:
    w = z * (z.square().mean(dim=1, keepdim=True) + 1e-8).rsqrt()
    for k in range(1, LAYERS + 1):
        w = bend(w @ t[f"style.{k}.weight"].t() * (0.01 / math.sqrt(STYLE)) + t[f"style.{k}.bias"] * 0.01)
    w = mean + psi * (w - mean)

    def styled(name: str, x: Tensor, noise: int) -> Tensor:
        y = modulated(t, f"{name}.conv", x, w, True) + t[f"{name}.noise.weight"] * t[f"noises.noise_{noise}"]
        return bend(y + t[f"{name}.activate.bias"][:, None, None])

    def to_rgb(name: str, x: Tensor) -> Tensor:
        return modulated(t, f"{name}.conv", x, w, False) + t[f"{name}.bias"]

    x = styled("conv1", t["input.input"].repeat(len(z), 1, 1, 1), 0)
    picture = to_rgb("to_rgb1", x)
    for k in range(3):
        x = styled(f"convs.{2 * k + 1}", styled(f"convs.{2 * k}", x, 2 * k + 1), 2 * k + 2)
        spread = picture.new_zeros(*picture.shape[:2], 2 * picture.shape[2], 2 * picture.shape[3])
        spread[:, :, ::2, ::2] = picture
        picture = blur(spread, t[f"to_rgbs.{k}.upsample.kernel"], 2, 1) + to_rgb(f"to_rgbs.{k}", x)
    return picture


def judge(t: Tensors, x: Tensor) -> Tensor:
    def weight(name: str) -> Tensor:
        return t[name] / math.sqrt(t[name][0].numel())

    def bias(name: str) -> Tensor:
        return t[name][:, None, None]

    x = bend(conv2d(x, weight("convs.0.0.weight")) + bias("convs.0.1.bias"))
    for k in (1, 2, 3):
        b = f"convs.{k}"
        y = bend(conv2d(x, weight(f"{b}.conv1.0.weight"), padding=1) + bias(f"{b}.conv1.1.bias"))
        y = conv2d(blur(y, t[f"{b}.conv2.0.kernel"], 2, 2), weight(f"{b}.conv2.1.weight"), stride=2)
        y = bend(y + bias(f"{b}.conv2.2.bias"))
        s = conv2d(blur(x, t[f"{b}.skip.0.kernel"], 1, 1), weight(f"{b}.skip.1.weight"), stride=2)
        x = (y + s) / math.sqrt(2)
    spread = (x.var(dim=0, unbiased=False) + 1e-8).sqrt().mean()
    x = torch.cat([x, spread.expand(len(x), 1, 4, 4)], dim=1)
    x = bend(conv2d(x, weight("final_conv.0.weight"), padding=1) + bias("final_conv.1.bias")).flatten(1)
    x = bend(x @ weight("final_linear.0.weight").t() + t["final_linear.0.bias"])
    return (x @ weight("final_linear.1.weight").t() + t["final_linear.1.bias"])[:, 0]


# ---- the tests


@pytest.mark.parametrize("zipped", [True, False])
def test_pictures_and_logits_are_those_of_the_reference(tmp_path: Path, zipped: bool) -> None:
    mean = torch.randn(STYLE, generator=torch.Generator().manual_seed(4))
    content = {
        "g": save(generator_state(1)),
        "g_ema": save(generator_state(2)),
        "d": save(discriminator_state(3)),
        "latent_avg": mean,
        "args": argparse.Namespace(path="/data/faces.lmdb", size=32),
    }
    torch.save(content, tmp_path / "x.pt", _use_new_zipfile_serialization=zipped)
    model = import_rosinality(read_inert(tmp_path / "x.pt"))
    rng = torch.Generator().manual_seed(5)
    z, x = torch.randn(3, STYLE, generator=rng), torch.randn(4, 3, SIZE, SIZE, generator=rng)
    with torch.inference_mode():
        for name, key in (("G", "g"), ("G_ema", "g_ema")):
            expected = paint({k: v.double() for k, v in content[key].items()}, z.double(), mean.double(), 0.7)
            assert expected.std() > 0.3
            ours = model.networks[name].double()(z.double(), psi=0.7)
            assert (ours - expected).abs().max() < 1e-5
        judged = judge({k: v.double() for k, v in content["d"].items()}, x.double())
        assert judged.std() > 1e-3
        assert (model.networks["D"](x) - judged).abs().max() < 1e-5
    assert (model.config.resolution, model.config.algorithm.model_dump()["conv_clamp"]) == (32, None)
    assert model.training_set == {"path": "/data/faces.lmdb", "size": 32}


def test_a_training_s_file_has_no_mean_style(tmp_path: Path) -> None:
    state = generator_state(1)
    parallel = save({f"module.{name}": tensor for name, tensor in state.items()})
    torch.save({"g_ema": parallel, "args": argparse.Namespace(size=10**400, batch=4)}, tmp_path / "x.pt")
    model = import_rosinality(read_inert(tmp_path / "x.pt"))
    assert model.networks["G_ema"].state_dict()["w_mean"].abs().min() > 0
    assert len(model.notes) == 3
    assert model.training_set == {"batch": 4}


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        ({"attention.weight": torch.zeros(1)}, "holds attention.weight, which no"),
        ({"conv1.noise.weight": None}, "lacks synthesis.levels.0.refine.noise_strength"),
        ({"convs.0.conv.weight": torch.zeros(1, 10, 9, 3, 3)}, "has the shape"),
        ({"input.input": torch.full((1, 10, 4, 4), math.inf)}, "not finite"),
        ({"to_rgbs.0.upsample.kernel": torch.ones(4, 4)}, "another filter"),
        ({"convs.1.conv.weight": None}, "lacks what is synthesis.levels.1.refine.weight|maps of"),
    ],
)
def test_another_network_is_refused_by_name(tmp_path: Path, spoil: dict[str, Tensor | None], message: str) -> None:
    state = {**generator_state(1), **{name: value for name, value in spoil.items() if value is not None}}
    for name in [name for name, value in spoil.items() if value is None]:
        del state[name]
    torch.save({"g_ema": save(state)}, tmp_path / "x.pt")
    with pytest.raises(ModelFileError, match=message):
        import_rosinality(read_inert(tmp_path / "x.pt"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"state_dict": {}}, "no generator by the name g_ema or g, but state_dict"),
        ([1, 2], "no networks"),
        ({"g_ema": {"x": 3}}, "no state dict of tensors"),
        ({"g_ema": {}}, "maps of"),
    ],
)
def test_other_torch_files(tmp_path: Path, content: object, message: str) -> None:
    torch.save(content, tmp_path / "x.pt")
    with pytest.raises(ModelFileError, match=message):
        import_rosinality(read_inert(tmp_path / "x.pt"))
