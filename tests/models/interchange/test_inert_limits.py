"""Files that are cheap to write down and dear to read: each is stopped by what it claims or repeats."""

import io
import pickle
import struct
import tracemalloc
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from models.gan.latents import draw_latents
from models.interchange import inert_file, inert_pickle
from models.interchange.imported_model import MEAN_SEEDS, estimate_mean_style
from models.interchange.imported_run import import_model
from models.interchange.inert_file import InertFile, read_inert
from models.interchange.inert_pickle import Budget, InertMachine, ModelFileError
from models.interchange.labels import take_turns
from models.interchange.stylegan2_import import import_published

SMALL: dict[str, Any] = {"resolution": 16, "base": 64, "most": 8}


class Call:
    """Pickles as a call of a function with arguments."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call


class View:
    """A tensor of a storage that others use, too: torch itself pickles a storage once per tensor."""

    def __init__(self, storage: Any, shape: tuple[int, ...], offset: int = 0) -> None:
        self.made_of = storage, offset, shape, torch.empty(shape, device="meta").stride()

    def __reduce__(self) -> tuple[Any, ...]:
        return torch._utils._rebuild_tensor_v2, (*self.made_of, False, OrderedDict())


def read_bytes(folder: Path, content: bytes) -> InertFile:
    path = folder / "stranger.pkl"
    path.write_bytes(content)
    return read_inert(path)


def problem(folder: Path, content: bytes) -> str:
    said = read_bytes(folder, content).problem
    assert said is not None
    return said


def text(words: str) -> bytes:
    return b"X" + struct.pack("<I", len(words)) + words.encode()


def nest(described: int, held: int) -> bytes:
    """What torch nests for a storage: `described` float32 in its description, `held` bytes behind it."""
    start = (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})
    content = b"\x80\x02(" + text("storage") + b"ctorch\nFloatStorage\n" + text("0") + text("cpu") + b"K"
    pickles = [pickle.dumps(value, 2) for value in start] + [content + bytes([described]) + b"tQ."]
    return b"".join(pickles) + pickle.dumps(["0"], 2) + struct.pack("<q", held // 4) + b"\0" * held


# ---- the machine's work


def test_many_calls_with_one_long_tuple_do_not_walk_through_it_each_time() -> None:
    class Counting(dict[int, int]):
        looked = 0

        def get(self, key: int, default: Any = None) -> Any:
            self.looked += 1
            return super().get(key, default)

    values, calls = 5000, 2000
    body = b"ca\nB\nq\x000(" + b"N" * values + b"tq\x010" + b"h\x00h\x01R0" * calls + b"}."
    machine = InertMachine({}, Budget(len(body)))
    machine._nesting = counted = Counting()
    machine.run(io.BytesIO(b"\x80\x04" + body))
    assert counted.looked < values + 5 * calls


def test_a_record_is_as_deep_as_its_arguments(tmp_path: Path) -> None:
    content = b"\x80\x04ca\nB\nq\x000h\x00)R" + b"\x85q\x010h\x00h\x01R" * 300 + b"."
    assert "nested deeper than 200" in problem(tmp_path, content)


def test_names_are_short_and_few(tmp_path: Path) -> None:
    long = "a" * 201
    for content in (b"c" + long.encode() + b"\nb\n.", text("b") + text(long) + b"\x93."):
        assert "a name of more than 200 characters" in problem(tmp_path, b"\x80\x04" + content)
    many = read_bytes(tmp_path, b"\x80\x04" + b"".join(b"ca\nb%d\n0" % k for k in range(3000)) + b"}.")
    assert len(many.asked) == inert_pickle.MAX_REFUSED
    with pytest.raises(ModelFileError, match=r"asks for a\.b0, .* a\.b7 and more, which are not on the list"):
        many.require_sound()


def test_one_list_behind_many_sets(tmp_path: Path) -> None:
    keys = (
        b"\x80\x04cbuiltins\nset\nq\x000]("
        + b"".join(b"M" + struct.pack("<H", k) for k in range(5000))
        + b"e\x85q\x010"
    )
    assert len(read_bytes(tmp_path, keys + b"h\x00h\x01R.").content) == 5000
    assert "steps" in problem(tmp_path, keys + b"h\x00h\x01R0" * 1000 + b"}.")
    for wrong in (b"K\x01\x85", b"]]a\x85", b"]]\x86"):
        assert "a set" in problem(tmp_path, b"\x80\x04cbuiltins\nset\n" + wrong + b"R.")


def test_one_text_behind_many_bytes(tmp_path: Path) -> None:
    start = b"\x80\x02c_codecs\nencode\nq\x000" + text("x" * 1000) + text("latin1") + b"\x86q\x010"
    assert read_bytes(tmp_path, start + b"h\x00h\x01R.").content == b"x" * 1000
    assert "bytes would take more bytes than the file has" in problem(tmp_path, start + b"h\x00h\x01R0" * 50 + b"}.")
    other = start.replace(text("latin1"), text("rot13!"))
    assert "written in a way" in problem(tmp_path, other + b"h\x00h\x01R.")


def test_a_nested_storage_has_just_the_bytes_that_it_describes(tmp_path: Path) -> None:
    """Bytes that no tensor uses would be read again and again at no charge."""
    for described, held in ((0, 4000), (3, 4000), (3, 8)):
        content = pickle.dumps(Call(torch.storage._load_from_bytes, nest(described, held)), 4)
        assert f"claims {described * 4:,} bytes, but has {held:,}" in problem(tmp_path, content)
    sound = nest(3, 12)
    content = pickle.dumps(Call(torch.storage._load_from_bytes, sound), 4)
    assert read_bytes(tmp_path, content).content.values.tolist() == [0, 0, 0]
    padded = sound + b"\0" * 10_000  # behind the end
    content = pickle.dumps([Call(torch.storage._load_from_bytes, padded) for _ in range(50)], 4)
    assert "nested files would take more bytes than the file has" in problem(tmp_path, content)


def test_an_archive_of_many_members_is_refused_before_it_is_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = b"PK\x01\x02" + struct.pack("<6H3I5H2I", 20, 20, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0) + b"a"
    listed = entry * (inert_file.MAX_MEMBERS + 1)
    start = b"PK\x03\x04" + b"\0" * 26
    end = b"PK\x05\x06" + struct.pack("<4H2IH", 0, 0, 1, 1, len(listed), len(start), 0)  # it says that there is one
    monkeypatch.setattr(zipfile, "ZipFile", None)
    assert "more than 20,000 members" in problem(tmp_path, start + listed + end)


# ---- tensors


def test_one_storage_behind_many_tensors(tmp_path: Path) -> None:
    storage = torch.zeros(5000)._typed_storage()
    assert read_bytes(tmp_path, pickle.dumps([View(storage, (5000,))], 4)).problem is None
    content = pickle.dumps([View(storage, (5000,)) for _ in range(3)], 4)
    assert "tensors would take more bytes than the file has" in problem(tmp_path, content)


def test_two_names_for_the_same_numbers(published: Any, tmp_path: Path) -> None:
    """By where they lie: two tensors may be two views of them."""
    storage = torch.randn(12)._typed_storage()
    for second in (0, 4):
        network = published.generator(1, **SMALL)
        inner = network.state["_modules"]["synthesis"].state["_modules"]["b8"].state["_modules"]
        inner["conv0"].state["_parameters"]["bias"] = View(storage, (8,))
        inner["conv1"].state["_parameters"]["bias"] = View(storage, (8,), second)
        path = published.snapshot(tmp_path / "x.pkl", G_ema=network)
        with pytest.raises(ModelFileError, match=r"several names: synthesis\.b8\.conv0\.bias and synthesis\.b8\.conv1"):
            import_published(read_inert(path))


@pytest.mark.parametrize("kind", ["_parameters", "_modules"])
def test_modules_that_share_what_they_hold(published: Any, tmp_path: Path, kind: str) -> None:
    nothing = {f"p{k}": None for k in range(2000)}
    one = {"p": torch.zeros(1)}
    for shared, message in ((nothing, "hold more than 100,000 entries"), (one, "under several names|is no tensor")):
        network = published.generator(1, **SMALL)
        leaf = published.module("X")
        leaf.state[kind] = shared if kind == "_parameters" else nothing
        network.state["_modules"]["x"] = published.module("X", modules={f"m{k}": leaf for k in range(300)})
        message = message if kind == "_parameters" else "hold more than 100,000 entries"
        with pytest.raises(ModelFileError, match=message):
            import_published(read_inert(published.snapshot(tmp_path / "x.pkl", G_ema=network)))


def test_arguments_that_share_what_they_hold(published: Any, tmp_path: Path) -> None:
    group = {f"x{k}": None for k in range(300)}
    for arguments in ({"a_kwargs": group}, {f"a{k}_kwargs": {} for k in range(300)}):
        path = published.snapshot(tmp_path / "x.pkl", G_ema=published.generator(1, **SMALL, **arguments))
        with pytest.raises(ModelFileError, match=r"more than 200|cannot be read"):
            import_published(read_inert(path))


# ---- widths that cost nothing in the file


@pytest.mark.parametrize(("width", "value"), [("z_dim", 20_000), ("w_dim", 16_385), ("c_dim", 40_000)])
def test_widths_have_an_upper_bound(published: Any, tmp_path: Path, width: str, value: int) -> None:
    sizes = {**SMALL, "w_dim": 1, "z_dim": 1, "layers": 1, "base": 16, "most": 1, width: value}
    path = published.snapshot(tmp_path / "x.pkl", G_ema=published.generator(1, **sizes))
    with pytest.raises(ModelFileError, match=rf"{width} is {value:,}: networks of more than"):
        import_published(read_inert(path))


def test_many_classes_take_as_many_rows_as_pictures(
    published: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """30,000 squared is 3.6 GB."""
    monkeypatch.setattr(torch, "eye", None)
    theirs = published.generator(1, **SMALL, c_dim=30_000, w_dim=1, z_dim=1)
    file = published.snapshot(tmp_path / "x.pkl", G_ema=theirs)
    tracemalloc.start()
    try:
        run = import_model(file, tmp_path / "run")
        assert tracemalloc.get_traced_memory()[1] < 200e6
    finally:
        tracemalloc.stop()
    assert run.grid.is_file()


def test_classes_take_turns() -> None:
    seeds = [0, 5, 7, 1]
    assert np.array_equal(take_turns(seeds, 3), np.eye(3, dtype=np.float32)[[0, 2, 1, 1]])
    assert take_turns(seeds, 3).dtype == np.float32


def test_the_mean_style_is_that_of_all_classes(published: Any, tmp_path: Path) -> None:
    theirs = published.generator(1, **SMALL, c_dim=3)
    model = import_published(read_inert(published.snapshot(tmp_path / "x.pkl", G_ema=theirs)))
    network: Any = model.networks["G_ema"]
    z = torch.from_numpy(draw_latents(range(MEAN_SEEDS), 8))
    with torch.inference_mode():
        expected = network.mapping(z, torch.eye(3)[torch.arange(MEAN_SEEDS) % 3]).double().mean(dim=0).float()
    assert torch.allclose(estimate_mean_style(network), expected, rtol=1e-5, atol=1e-6)
