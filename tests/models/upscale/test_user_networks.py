import io
import pickle
import re
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor

from models.upscale import user_networks
from models.upscale.esrgan import CompactNet, RRDBNet
from models.upscale.network import UpscaleNetwork
from models.upscale.user_networks import UnreadableNetworkError, load_user_network

State = dict[str, Tensor]

# The first ESRGAN's numbers of the parts behind the body, as its files have them, by how often the size doubles.
TAILS = {
    0: {"conv_hr": 2, "conv_last": 4},
    1: {"conv_up1": 3, "conv_hr": 5, "conv_last": 7},
    2: {"conv_up1": 3, "conv_up2": 6, "conv_hr": 8, "conv_last": 10},
    3: {"conv_up1": 3, "conv_up2": 6, "conv_up3": 9, "conv_hr": 11, "conv_last": 13},
}


def name_as_first_esrgan(state: State, blocks: int, doublings: int) -> State:
    renamed = {}
    for name, value in state.items():
        part, kind = name.rsplit(".", 1)
        if part.startswith("body."):
            _, group, block, convolution = part.split(".")
            renamed[f"model.1.sub.{group}.RDB{block[-1]}.{convolution}.0.{kind}"] = value
        elif part == "conv_body":
            renamed[f"model.1.sub.{blocks}.{kind}"] = value
        else:
            renamed[f"model.{0 if part == 'conv_first' else TAILS[doublings][part]}.{kind}"] = value
    return renamed


def name_as_basicsr(state: State, *_: int) -> State:
    replaced = {
        "body.": "RRDB_trunk.",
        "rdb": "RDB",
        "conv_body": "trunk_conv",
        "conv_up": "upconv",
        "conv_hr": "HRconv",
    }
    renamed = {}
    for name, value in state.items():
        for ours, theirs in replaced.items():
            if not (ours == "body." and name.startswith("conv_")):
                name = name.replace(ours, theirs)
        renamed[name] = value
    return renamed


def name_as_real_esrgan(state: State, *_: int) -> State:
    return state


def make(network: UpscaleNetwork, seed: int = 0) -> UpscaleNetwork:
    generator = torch.Generator().manual_seed(seed)
    for parameter in network.parameters():
        parameter.data = 0.2 * torch.randn(parameter.shape, generator=generator)
    return network.eval().requires_grad_(False)


def compact(factor: int = 2) -> UpscaleNetwork:
    return make(CompactNet(4, 2, factor))


def rrdb(**settings: int) -> UpscaleNetwork:
    return make(RRDBNet(**{"features": 4, "blocks": 2, "growth": 3, **settings}))


def check_same(loaded: UpscaleNetwork, original: UpscaleNetwork, atol: float = 0) -> None:
    for name in ("scale", "margin", "loss", "context", "multiple"):
        assert getattr(loaded, name) == getattr(original, name), name
    assert not loaded.training
    for parameter in loaded.parameters():
        assert parameter.dtype == torch.float32 and parameter.device.type == "cpu" and not parameter.requires_grad
    x = torch.rand(1, 3, 12, 8, generator=torch.Generator().manual_seed(5))
    torch.testing.assert_close(loaded(x), original(x), atol=atol, rtol=0)


@pytest.mark.parametrize("naming", [name_as_real_esrgan, name_as_first_esrgan, name_as_basicsr])
@pytest.mark.parametrize(
    ("doublings", "unshuffle"), [(0, 1), (1, 1), (2, 1), (3, 1), (2, 2), (2, 4)], ids=lambda value: str(value)
)
def test_every_naming_is_read(tmp_path: Path, naming: Any, doublings: int, unshuffle: int) -> None:
    original = rrdb(doublings=doublings, unshuffle=unshuffle)
    state = naming(dict(original.state_dict()), 2, doublings)
    safetensors.torch.save_file(state, tmp_path / "net.safetensors")
    torch.save(OrderedDict(state), tmp_path / "net.pth")
    for suffix in ("safetensors", "pth"):
        check_same(load_user_network(tmp_path / f"net.{suffix}"), original)


def test_namings_are_those_of_the_published_files() -> None:
    """Names written down by hand, so that the test's own renaming is not all that is believed."""
    state = dict(rrdb().state_dict())
    first, trunk = name_as_first_esrgan(state, 2, 2), name_as_basicsr(state)
    assert {
        "model.0.weight",
        "model.1.sub.1.RDB3.conv5.0.bias",
        "model.1.sub.2.weight",
        "model.10.bias",
    } <= first.keys()
    assert {"conv_first.bias", "RRDB_trunk.1.RDB2.conv4.weight", "trunk_conv.bias", "upconv2.weight"} <= trunk.keys()
    assert {"HRconv.weight", "conv_last.bias"} <= trunk.keys() and "conv_body.weight" in state


@pytest.mark.parametrize("factor", [1, 2, 3, 4])
def test_compact_networks_are_read(tmp_path: Path, factor: int) -> None:
    original = compact(factor)
    torch.save({"params": original.state_dict()}, tmp_path / "net.pth")
    check_same(load_user_network(tmp_path / "net.pth"), original)


@pytest.mark.parametrize("old", [False, True])
def test_wrappers_and_both_forms_of_pickle(tmp_path: Path, old: bool) -> None:
    good, worse = dict(compact().state_dict()), dict(make(CompactNet(4, 2, 2), seed=9).state_dict())
    spread = {f"module.{name}": value for name, value in good.items()}
    wrapped: list[Any] = [
        {"params": worse, "params_ema": good},
        {"state_dict": good, "epoch": 100_000, "optimizer": {"lr": 0.1}},
        {"model": {"params": good}},
        {"model": spread},
        {name: torch.nn.Parameter(value) for name, value in good.items()},
    ]
    for k, content in enumerate(wrapped):
        path = tmp_path / f"{k}.PTH"
        torch.save(content, path, _use_new_zipfile_serialization=not old)
        assert zipfile.is_zipfile(path) != old
        check_same(load_user_network(path), compact())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_become_float32(tmp_path: Path, dtype: torch.dtype) -> None:
    original = compact()
    state = {name: value.to(dtype) for name, value in original.state_dict().items()}
    safetensors.torch.save_file(state, tmp_path / "net.safetensors")
    torch.save(state, tmp_path / "net.pt", _use_new_zipfile_serialization=False)
    exact = compact()
    exact.load_state_dict(state)
    check_same(load_user_network(tmp_path / "net.safetensors"), exact)
    check_same(load_user_network(tmp_path / "net.pt"), exact)


class Payload:
    """What a malicious file holds: something that is called when it is unpickled carelessly."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


@pytest.mark.parametrize("form", ["zip", "old", "plain"])
def test_a_malicious_pickle_runs_nothing(tmp_path: Path, form: str) -> None:
    mark, path = tmp_path / "ran", tmp_path / "net.pth"
    content = {**compact().state_dict(), "extra": Payload(mark)}
    if form == "plain":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=form == "zip")
    with pytest.raises(UnreadableNetworkError, match=r"Nothing in it was run.*safetensors") as caught:
        load_user_network(path)
    assert str(path) in str(caught.value) and not mark.exists()
    torch.load(path, weights_only=False) if form != "plain" else pickle.loads(path.read_bytes())  # noqa: S301
    assert mark.exists()  # the payload was a real one


def save(path: Path, state: State) -> Path:
    safetensors.torch.save_file({name: value.contiguous() for name, value in state.items()}, path)
    return path


@pytest.mark.parametrize("naming", [name_as_real_esrgan, name_as_first_esrgan, name_as_basicsr])
def test_missing_surplus_and_misshapen_tensors_are_named_as_in_the_file(tmp_path: Path, naming: Any) -> None:
    state = naming(dict(rrdb().state_dict()), 2, 2)
    path = tmp_path / "net.safetensors"
    victim = next(name for name in state if "conv4" in name and name.endswith("weight"))
    changes: dict[str, State] = {
        f"missing: {victim}": {name: value for name, value in state.items() if name != victim},
        "not known: extra.weight": {**state, "extra.weight": torch.ones(1)},
        f"{victim} has the shape": {**state, victim: torch.ones(3, 13, 1, 1)},
    }
    for message, changed in changes.items():
        with pytest.raises(UnreadableNetworkError, match=re.escape(message)):
            load_user_network(save(path, changed))


def test_other_architectures_are_refused_with_what_is_supported(tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    plain = dict(compact().state_dict())
    without = {name: value for name, value in plain.items() if value.ndim != 1 or name.endswith("bias")}
    grey = {**rrdb().state_dict(), "conv_first.weight": torch.ones(4, 1, 3, 3)}
    others: dict[str, State] = {
        r"layers\.0\.attention.*Supported: ESRGAN": {"layers.0.attention.weight": torch.ones(4, 4)},
        "only PReLU": without,
        "takes 1 channels": grey,
        "no enlargement of RGB": {**plain, "body.6.weight": torch.ones(10, 4, 3, 3)},
        "folds its input by 4": dict(rrdb(doublings=2, unshuffle=4).state_dict())
        | {"conv_first.weight": torch.ones(4, 48, 3, 3)},
    }
    del others["folds its input by 4"]["conv_up2.weight"]
    for message, state in others.items():
        with pytest.raises(UnreadableNetworkError, match=message):
            load_user_network(save(path, state))


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    state = dict(compact().state_dict())
    too_large = {**state, "body.2.weight": torch.full((4, 4, 3, 3), 1e300, dtype=torch.float64)}
    for broken in ({**state, "body.2.weight": torch.full((4, 4, 3, 3), float("nan"))}, too_large):
        with pytest.raises(UnreadableNetworkError, match=r"body\.2\.weight holds values that are not finite"):
            load_user_network(save(tmp_path / "net.safetensors", broken))


def test_files_that_promise_more_than_they_have_are_refused(tmp_path: Path) -> None:
    state = dict(compact().state_dict())
    path = tmp_path / "net.pth"
    torch.save({**state, "body.2.weight": torch.ones(1).expand(40_000, 40_000, 3, 3)}, path)
    with pytest.raises(UnreadableNetworkError, match="would take"):
        load_user_network(path)

    torch.save(state, path)
    packed = io.BytesIO()
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as target:
        for member in source.infolist():
            target.writestr(member.filename, source.read(member))
    path.write_bytes(packed.getvalue())
    with pytest.raises(UnreadableNetworkError, match="compressed"):
        load_user_network(path)

    torch.save({"one": torch.ones(77)}, path, _use_new_zipfile_serialization=False)
    small, large = b"K\x4d", b"J" + (2_000_000_000).to_bytes(4, "little")  # the pickle's ways to write a whole number
    content = path.read_bytes()
    assert small in content
    path.write_bytes(content.replace(small, large))
    with pytest.raises(UnreadableNetworkError, match="announces more numbers"):
        load_user_network(path)


def test_damaged_and_foreign_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = dict(compact().state_dict())
    contents: dict[str, bytes] = {}
    for name, zipped in (("zip", True), ("old", False)):
        torch.save(state, tmp_path / name, _use_new_zipfile_serialization=zipped)
        contents[f"{name}.pth"] = (tmp_path / name).read_bytes()
    contents["net.safetensors"] = safetensors.torch.save(state)
    for name, content in contents.items():
        for damaged in (
            b"",
            content[:5],
            content[: len(content) // 2],
            content[:-30],
            b"\xff" * 64,
            b"<html>not found",
        ):
            (tmp_path / name).write_bytes(damaged)
            with pytest.raises(UnreadableNetworkError, match=re.escape(name)):
                load_user_network(tmp_path / name)
    for content in (b"", b"\0" * 40):
        (tmp_path / "net.onnx").write_bytes(content)
        with pytest.raises(UnreadableNetworkError, match=r"must end in \.safetensors"):
            load_user_network(tmp_path / "net.onnx")
    with pytest.raises(UnreadableNetworkError, match="no such file"):
        load_user_network(tmp_path / "absent.pth")
    (tmp_path / "folder.pth").mkdir()
    with pytest.raises(UnreadableNetworkError, match="no such file"):
        load_user_network(tmp_path / "folder.pth")
    save(tmp_path / "net.safetensors", state)
    monkeypatch.setattr(user_networks, "MAX_BYTES", 100)
    with pytest.raises(UnreadableNetworkError, match="larger than"):
        load_user_network(tmp_path / "net.safetensors")


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_what_is_not_a_table_of_tensors_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "net.pth"
    state = dict(compact().state_dict())
    contents: dict[str, Any] = {
        "holds a list": [torch.ones(2)],
        "have no names": {0: torch.ones(2)},
        "body.0.weight is a int": {**state, "body.0.weight": 3},
        "only dense": {**state, "body.0.weight": torch.ones(4, 3, 3, 3, dtype=torch.int8)},
        "torch.sparse_coo": {**state, "body.0.weight": torch.ones(4, 4).to_sparse()},
        "is empty": {**state, "body.0.weight": torch.ones(0, 3, 3, 3)},
        "holds no tensors": {},
    }
    for message, content in contents.items():
        torch.save(content, path)
        with pytest.raises(UnreadableNetworkError, match=re.escape(message)):
            load_user_network(path)
    torch.jit.save(torch.jit.trace(torch.nn.Conv2d(3, 3, 3), torch.ones(1, 3, 4, 4)), str(path))
    with pytest.raises(UnreadableNetworkError, match="TorchScript"):
        load_user_network(path)
