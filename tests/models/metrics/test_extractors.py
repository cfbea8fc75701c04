import io
import json
import pickle
import warnings
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from safetensors.torch import save
from torch import Tensor, nn

from models.metrics.extraction import BATCH, ExtractorError, NetworkExtractor
from models.metrics.extractors import load_extractor
from models.metrics.hed_weights import list_convolutions
from models.metrics.vgg import MEAN_BGR, SIDE, HedVgg
from models.weights import MissingWeightError

CPU = torch.device("cpu")


def draw_pictures(count: int, height: int = 20, width: int = 30, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


def mean_colours(pictures: np.ndarray) -> np.ndarray:
    return pictures.reshape(len(pictures), -1, 3).mean(axis=1)


class MetricNetwork(nn.Module):
    """Takes what the published metric networks take: uint8, 0 to 255, and the keyword."""

    def forward(self, img: Tensor, return_features: bool = False) -> Tensor:
        assert img.dtype == torch.uint8
        means = img.float().mean((2, 3))
        return means if return_features else means.sum(1, keepdim=True)


class Plain(nn.Module):
    """The mean and the map of its float input."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, x: Tensor) -> Tensor:
        if self.kind == "map":
            return x
        if self.kind == "tokens":
            return x.flatten(2)
        if self.kind == "infinite":
            return (x / 0).mean((2, 3))
        return x.mean((2, 3))


class Several(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x.amax((2, 3)), x.mean((2, 3))


def write_script(path: Path, network: nn.Module, **contract: object) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.script(network).save(str(path))
    if contract:
        Path(f"{path}.json").write_text(json.dumps(contract))
    return str(path)


def write_onnx(path: Path, element: int, shape: list[int | str], axes: list[int], outputs: int = 1) -> str:
    """A network that averages its input over `axes`."""
    names = ["mean", "again"][:outputs]
    nodes = [helper.make_node("Cast", ["x"], ["float"], to=TensorProto.FLOAT)]
    nodes += [helper.make_node("ReduceMean", ["float", "axes"], [name], keepdims=0) for name in names]
    graph = helper.make_graph(
        nodes,
        "means",
        [helper.make_tensor_value_info("x", element, shape)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names],
        [helper.make_tensor("axes", TensorProto.INT64, [len(axes)], axes)],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    return str(path)


def random_weights(seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, (inputs, outputs) in list_convolutions().items():
        tensors[f"{name}.weight"] = torch.randn(outputs, inputs, 3, 3, generator=generator) * (2 / inputs / 9) ** 0.5
        tensors[f"{name}.bias"] = torch.randn(outputs, generator=generator)
    return tensors


def test_hed_vgg4_is_the_first_four_blocks_of_vgg16() -> None:
    tensors = random_weights()
    pictures = draw_pictures(2, SIDE, SIDE)
    found = HedVgg(save(tensors), CPU)(pictures)
    x = torch.from_numpy(pictures[..., ::-1].astype(np.float64)).permute(0, 3, 1, 2)
    x -= torch.tensor(MEAN_BGR, dtype=torch.float64)[:, None, None]
    known = []
    for block, count in enumerate((2, 2, 3, 3), start=1):
        for k in range(1, count + 1):
            layer = nn.Conv2d(*list_convolutions()[f"conv{block}_{k}"], 3, padding=1).double()
            names = {role: tensors[f"conv{block}_{k}.{role}"] for role in ("weight", "bias")}
            layer.load_state_dict(names)
            x = layer(x).relu()
        means = x.mean((2, 3))
        known.append(means / means.square().mean(1, keepdim=True).sqrt())
        x = nn.MaxPool2d(2)(x)
    np.testing.assert_allclose(found, torch.cat(known, 1).detach(), rtol=1e-4, atol=1e-6)
    assert found.dtype == np.float32 and found.shape == (2, 960)


def test_a_network_sees_batches_of_one_shape_only() -> None:
    seen: list[tuple[int, ...]] = []

    def compute(pictures: np.ndarray) -> np.ndarray:
        seen.append(pictures.shape)
        return mean_colours(pictures)

    extractor = NetworkExtractor("test", "0" * 64, compute, batch=4)
    seen.clear()
    pictures = draw_pictures(11)
    np.testing.assert_allclose(extractor.extract(pictures), mean_colours(pictures), rtol=1e-6)
    extractor.extract(pictures[:1])
    assert seen == [(4, 20, 30, 3)] * 4


def test_features_do_not_depend_on_the_company() -> None:
    extractor = NetworkExtractor("test", "0" * 64, HedVgg(save(random_weights()), CPU), batch=4)
    pictures = draw_pictures(6)
    features = extractor.extract(pictures)
    order = np.random.default_rng(1).permutation(len(pictures))
    np.testing.assert_array_equal(extractor.extract(pictures[order]), features[order])
    np.testing.assert_array_equal(extractor.extract(pictures[-1:]), features[-1:])
    assert len(np.unique(features, axis=0)) == len(pictures)
    assert extractor.extract(pictures[:0]).shape == (0, 960)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_sees_what_a_cpu_sees() -> None:
    weights, pictures = save(random_weights()), draw_pictures(4, 200, 150)
    there = HedVgg(weights, torch.device("cuda"))
    np.testing.assert_allclose(there(pictures), HedVgg(weights, CPU)(pictures), rtol=1e-3, atol=1e-5)
    np.testing.assert_array_equal(there(pictures), there(pictures))


def test_the_built_in_one_needs_its_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KAOBAKO_WEIGHTS", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(MissingWeightError, match="kaobako weights fetch hed-vgg4"):
        load_extractor("hed-vgg4")


def test_only_rgb_pictures_are_taken(tmp_path: Path) -> None:
    extractor = load_extractor(write_script(tmp_path / "n.pt", MetricNetwork()))
    for wrong in (draw_pictures(2)[..., :1], draw_pictures(2)[0], draw_pictures(2) / 255, draw_pictures(2)[:, :0]):
        with pytest.raises(ValueError, match="uint8 RGB pictures"):
            extractor.extract(wrong)


def test_a_published_metric_network_needs_no_contract(tmp_path: Path) -> None:
    extractor = load_extractor(write_script(tmp_path / "judge.pt", MetricNetwork()))
    pictures = draw_pictures(BATCH + 3)
    np.testing.assert_allclose(extractor.extract(pictures), mean_colours(pictures), rtol=1e-5)
    assert extractor.features == 3 and extractor.name == f"judge-{extractor.digest[:8]}"


def test_a_contract_prepares_the_input_and_is_part_of_the_identity(tmp_path: Path) -> None:
    path = tmp_path / "net.ts"
    pictures = draw_pictures(3, 16, 16)
    with pytest.raises(ExtractorError, match=r"net\.ts\.json.*\"size\": 224"):
        load_extractor(write_script(path, Plain("mean")))
    first = load_extractor(write_script(path, Plain("mean"), size=None))
    np.testing.assert_allclose(first.extract(pictures), mean_colours(pictures) / 255, rtol=1e-5)
    second = load_extractor(
        write_script(path, Plain("map"), size=[8, 4], range=[-1, 1], mean=[0, 0.5, 1], std=[1, 2, 4], colours="bgr")
    )
    scaled = (mean_colours(pictures)[:, ::-1] / 127.5 - 1 - [0, 0.5, 1]) / [1, 2, 4]
    np.testing.assert_allclose(second.extract(pictures), scaled, atol=0.02)  # the same mean after resizing, about
    third = load_extractor(write_script(path, Plain("map"), size=[8, 4]))
    assert len({extractor.digest for extractor in (first, second, third)}) == 3
    assert load_extractor(str(path)).digest == third.digest


def test_a_map_is_averaged_over_space_in_either_layout(tmp_path: Path) -> None:
    pictures = draw_pictures(2)
    for layout in ("NCHW", "NHWC"):
        extractor = load_extractor(write_script(tmp_path / "map.pt", Plain("map"), size=None, layout=layout))
        np.testing.assert_allclose(extractor.extract(pictures), mean_colours(pictures) / 255, rtol=1e-5)


def test_what_gives_no_features_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bad.pt"
    with pytest.raises(ExtractorError, match=r"shape \(16, 3, 4096\): features are \(N, D\)"):
        load_extractor(write_script(path, Plain("tokens"), size=None))
    with pytest.raises(ExtractorError, match="not finite"):
        load_extractor(write_script(path, Plain("infinite"), size=None))
    with pytest.raises(ExtractorError, match="tuple of outputs"):
        load_extractor(write_script(path, Several(), size=None))
    with pytest.raises(ExtractorError, match="no output 2"):
        load_extractor(write_script(path, Several(), size=None, output=2))
    assert load_extractor(write_script(path, Several(), size=None, output=1)).features == 3
    with pytest.raises(ExtractorError, match=r"bad\.pt cannot be run"):
        load_extractor(write_script(path, MetricNetwork(), size=8))  # made for uint8


@pytest.mark.parametrize(
    ("contract", "said"),
    [
        ({"size": 0}, "size must be"),
        ({"size": 99999}, "size must be"),
        ({}, "size: Field required"),
        ({"size": 8, "std": [1, 0, 1]}, "std must be above 0"),
        ({"size": 8, "range": [1, 0]}, "from low to high"),
        ({"size": 8, "input": "uint8", "range": [0, 1]}, "uint8 input has no range"),
        ({"size": 8, "colors": "rgb"}, "colors: Extra inputs"),
    ],
)
def test_a_bad_contract_is_refused(tmp_path: Path, contract: dict[str, object], said: str) -> None:
    path = write_script(tmp_path / "n.pt", MetricNetwork())
    Path(f"{path}.json").write_text(json.dumps(contract))
    with pytest.raises(ExtractorError, match=said) as caught:
        load_extractor(path)
    assert "n.pt.json" in str(caught.value) and "\n" not in str(caught.value)


class Trap:
    """What it leaves when it is unpickled is a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (self.path,))


def test_a_pickle_is_never_opened(tmp_path: Path) -> None:
    sprung = tmp_path / "sprung"
    path = tmp_path / "net.pt"
    torch.save(Trap(sprung), path)
    contents = [path.read_bytes(), pickle.dumps(Trap(sprung)), b"no network at all", b""]
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:  # dressed up as TorchScript, without its code
        archive.writestr("net/data.pkl", pickle.dumps(Trap(sprung)))
        archive.writestr("net/constants.pkl", pickle.dumps(Trap(sprung)))
        archive.writestr("net/version", "3\n")
        archive.writestr("net/code/__torch__.py", "")
    contents.append(buffer.getvalue())
    for content in contents:
        path.write_bytes(content)
        with pytest.raises(ExtractorError, match=r"net\.pt"):
            load_extractor(str(path))
        assert not sprung.exists()


def test_what_is_no_extractor_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ExtractorError, match="say hed-vgg4, or a path"):
        load_extractor("inception")
    with pytest.raises(ExtractorError, match="No such file"):
        load_extractor(str(tmp_path / "gone.onnx"))
    (tmp_path / "text.onnx").write_text("no network")
    with pytest.raises(ExtractorError, match=r"text\.onnx cannot be loaded"):
        load_extractor(str(tmp_path / "text.onnx"))


@pytest.mark.parametrize(
    ("shape", "axes"),
    [
        (["N", 3, "H", "W"], [2, 3]),
        (["N", "H", "W", 3], [1, 2]),
        ([4, 3, 20, 30], [2, 3]),  # a fixed batch and size
    ],
)
def test_an_onnx_network_of_bytes_needs_no_contract(tmp_path: Path, shape: list[int | str], axes: list[int]) -> None:
    extractor = load_extractor(write_onnx(tmp_path / "judge.onnx", TensorProto.UINT8, shape, axes))
    pictures = draw_pictures(9)
    np.testing.assert_allclose(extractor.extract(pictures), mean_colours(pictures), rtol=1e-5)
    assert extractor.features == 3 and extractor.name == f"judge-{extractor.digest[:8]}"


def test_an_onnx_network_of_floats_needs_a_contract(tmp_path: Path) -> None:
    path = write_onnx(tmp_path / "net.onnx", TensorProto.FLOAT, ["N", 3, 12, 12], [2, 3], outputs=2)
    with pytest.raises(ExtractorError, match=r"float input.*net\.onnx\.json"):
        load_extractor(path)
    contract = Path(f"{path}.json")
    contract.write_text('{"size": 12, "input": "uint8"}')
    with pytest.raises(ExtractorError, match="takes float32, but its contract says uint8"):
        load_extractor(path)
    contract.write_text('{"size": 12}')
    with pytest.raises(ExtractorError, match="outputs mean, again, and its contract names none"):
        load_extractor(path)
    contract.write_text('{"size": 13, "output": "again"}')
    with pytest.raises(ExtractorError, match="cannot be run"):
        load_extractor(path)
    contract.write_text('{"size": 12, "output": "again"}')
    pictures = draw_pictures(BATCH + 1, 12, 12)
    np.testing.assert_allclose(load_extractor(path).extract(pictures), mean_colours(pictures) / 255, rtol=1e-5)


def test_an_onnx_network_of_something_else_is_refused(tmp_path: Path) -> None:
    for element, shape in ((TensorProto.INT64, ["N", 3, 8, 8]), (TensorProto.FLOAT, ["N", 192])):
        path = write_onnx(tmp_path / "other.onnx", element, shape, [1])
        with pytest.raises(ExtractorError, match="must have one float or uint8 input"):
            load_extractor(path)
