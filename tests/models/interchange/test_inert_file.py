"""Files of strangers: nothing in them is run, whatever they try, and what is refused is named."""

import argparse
import builtins
import io
import os
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from models.interchange import inert_file, inert_pickle
from models.interchange.inert_file import InertFile, read_inert
from models.interchange.inert_pickle import ModelFileError
from models.interchange.stylegan2_import import import_published


class Call:
    """Pickles as a call of a function with arguments."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call


def read_bytes(folder: Path, content: bytes) -> InertFile:
    path = folder / "stranger.pkl"
    path.write_bytes(content)
    return read_inert(path)


def refusal(folder: Path, content: bytes) -> str:
    with pytest.raises(ModelFileError) as caught:
        import_published(read_bytes(folder, content))
    return str(caught.value)


@pytest.fixture
def marker(tmp_path: Path) -> Any:
    """A file that a malicious pickle would make; it must not be there at the end."""
    path = tmp_path / "executed"
    yield path
    assert not path.exists()


# ---- calls


def test_a_command_is_named_and_not_run(tmp_path: Path, marker: Path) -> None:
    for protocol in range(6):
        said = refusal(tmp_path, pickle.dumps({"G_ema": Call(os.system, f"touch {marker}")}, protocol))
        assert "asks for posix.system, which is not on the list" in said
        assert "Nothing in it was run" in said


def test_the_same_file_would_have_run_in_pickle(tmp_path: Path) -> None:
    """The attack is a real one."""
    target = tmp_path / "proof"
    pickle.loads(pickle.dumps(Call(os.system, f"touch {target}")))  # noqa: S301
    assert target.exists()


@pytest.mark.parametrize(
    ("function", "arguments", "name"),
    [
        (builtins.eval, ("1+1",), "builtins.eval"),
        (builtins.getattr, (os, "system"), "builtins.getattr"),
        (builtins.exec, ("",), "builtins.exec"),
        (torch.load, ("x",), "torch.serialization.load"),
        (os.fdopen, (1,), "os.fdopen"),
    ],
)
def test_names_that_are_not_on_the_list(
    tmp_path: Path, function: Callable[..., Any], arguments: tuple[Any, ...], name: str
) -> None:
    arguments = tuple("os" if argument is os else argument for argument in arguments)
    assert f"asks for {name}" in refusal(tmp_path, pickle.dumps(Call(function, *arguments), 4))


def test_all_refused_names_are_told_at_once(tmp_path: Path, marker: Path) -> None:
    content = pickle.dumps([Call(os.system, f"touch {marker}"), Call(builtins.eval, "1")], 4)
    file = read_bytes(tmp_path, content)
    assert file.refused == ["posix.system", "builtins.eval"]
    assert "posix.system, builtins.eval, which are not" in refusal(tmp_path, content)


def test_calls_hidden_in_other_opcodes(tmp_path: Path, marker: Path) -> None:
    """INST and OBJ build old-style instances, which is a call as well; a name by way of memo and stack."""
    command = f"touch {marker}".encode()
    text = b"S'" + command + b"'\n"
    for content in (
        b"(" + text + b"iposix\nsystem\n.",
        b"(cposix\nsystem\n" + text + b"o.",
        b"\x80\x04\x8c\x05posix\x94\x8c\x06system\x940h\x00h\x01\x93(" + text + b"tR.",
    ):
        said = refusal(tmp_path, content)
        assert "posix.system" in said, content
    assert "opcode EXT1" in refusal(tmp_path, b"\x80\x02\x82\x01.")
    assert "outside itself" in refusal(tmp_path, b"\x80\x02K\x01Q.")


def test_an_allowed_name_is_no_way_to_others(tmp_path: Path, marker: Path, published: Any) -> None:
    """Attributes, states and nested bytes of what is allowed."""
    nested = io.BytesIO()
    torch.save(Call(os.system, f"touch {marker}"), nested, _use_new_zipfile_serialization=False)
    evil = Call(torch.storage._load_from_bytes, nested.getvalue())
    assert "posix.system" in refusal(tmp_path, pickle.dumps({"G_ema": evil}, 4))
    raw = Call(torch.storage._load_from_bytes, pickle.dumps(Call(os.system, f"touch {marker}"), 2))
    assert "posix.system" in refusal(tmp_path, pickle.dumps(raw, 4))
    zipped = io.BytesIO()
    torch.save(torch.zeros(3), zipped)
    inner = Call(torch.storage._load_from_bytes, zipped.getvalue())
    assert "cannot be read" in refusal(tmp_path, pickle.dumps(inner, 4))
    # BUILD on a dict of the allowed kind would set its attributes: here they are dropped
    content = b"\x80\x04ccollections\nOrderedDict\n)R}\x8c\x09__class__K\x01sb."
    made = read_bytes(tmp_path, content)
    assert (made.problem, type(made.content), made.content) == (None, dict, {})
    assert "given a state" in refusal(tmp_path, content.replace(b"}\x8c\x09__class__K\x01s", b"]K\x01a"))
    assert "made of arguments" in refusal(tmp_path, b"\x80\x04ccollections\nOrderedDict\n]K\x01a\x85R.")
    odd = published.write(tmp_path / "odd.pkl", {"G_ema": published.module("Generator")})
    renamed = odd.read_bytes().replace(b"class_name", b"class_nome")
    assert "does not say of which class" in refusal(tmp_path, renamed)


def test_source_text_is_not_run(published: Any, tmp_path: Path) -> None:
    """The fixture looks for the file that the text would make."""
    path = published.snapshot(tmp_path / "x.pkl", G_ema=published.generator(1, resolution=16))
    file = read_inert(path)
    assert file.content["G_ema"].source_length == len(published.source)
    assert published.source not in repr(file.content)
    exec(published.source)
    assert published.marker.exists()  # the text works
    published.marker.unlink()


# ---- sizes


def tensor_pickle(size: tuple[int, ...], stride: tuple[int, ...], offset: int = 0, held: int = 4) -> bytes:
    storage = torch.zeros(held)._typed_storage()
    return pickle.dumps(Call(torch._utils._rebuild_tensor_v2, storage, offset, size, stride, False, OrderedDict()), 4)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (tensor_pickle((1 << 40,), (1,)), "claims 1099511627776 numbers"),
        (tensor_pickle((1 << 20, 1 << 20), (0, 0)), "claims"),
        (tensor_pickle((2, 2), (0, 1)), "uses numbers twice"),
        (tensor_pickle((2,), (3,)), "skips some"),
        (tensor_pickle((4,), (1,), offset=1), "from number 1 on"),
        (tensor_pickle((4,), (1,), offset=-1), "negative"),
        (tensor_pickle((-1, -4), (1, 1)), "negative"),
        (tensor_pickle((4, 1), (1,)), "claims"),
        (tensor_pickle((1,) * 9, (1,) * 9), "more than 8 numbers"),
        (tensor_pickle((0, 1 << 60), (1, 1)), "empty"),
    ],
)
def test_tensors_that_claim_what_they_have_not(tmp_path: Path, content: bytes, message: str) -> None:
    assert message in refusal(tmp_path, content)


def test_a_storage_that_claims_more_than_its_bytes(tmp_path: Path) -> None:
    nested = io.BytesIO()
    torch.save(torch.zeros(77)._typed_storage(), nested, _use_new_zipfile_serialization=False)
    small = nested.getvalue()
    assert small.count(b"K\x4d") == 1  # 77 in the description
    for claim in (b"J\xff\xff\xff\x7f", b"\x8a\x08" + b"\xff" * 7 + b"\x7f"):
        content = pickle.dumps(Call(torch.storage._load_from_bytes, small.replace(b"K\x4d", claim)), 4)
        said = refusal(tmp_path, content)
        assert "claims" in said
    cut = pickle.dumps(Call(torch.storage._load_from_bytes, small[:-100]), 4)
    assert "claims" in refusal(tmp_path, cut)


def test_the_same_bytes_again_and_again(published: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Few bytes in the file, many in memory: one storage's bytes behind thousands of storages, a list in a list."""
    nested = io.BytesIO()
    torch.save(torch.zeros(1000)._typed_storage(), nested, _use_new_zipfile_serialization=False)
    shared = nested.getvalue()
    content = pickle.dumps([Call(torch.storage._load_from_bytes, shared) for _ in range(50)], 4)
    assert len(content) < 20_000
    assert "more bytes than the file has" in refusal(tmp_path, content)

    laughs: Any = []
    for _ in range(150):
        laughs = [laughs] * 10
    module = {"_modules": {}, "_parameters": {"w": laughs}}
    assert "no networks" in refusal(tmp_path, pickle.dumps(laughs, 4))
    assert "no generator" in refusal(tmp_path, pickle.dumps({"G_ema": laughs, "x": module}, 4))
    said = published.generator(1, resolution=16)
    said.state["_init_kwargs"]["z_dim"] = laughs
    path = published.snapshot(tmp_path / "said.pkl", G_ema=said)
    assert "z_dim is a list" in refusal(tmp_path, path.read_bytes())
    monkeypatch.setattr(inert_pickle, "MAX_OPCODES", 1000)
    assert "more than 1,000 steps" in refusal(tmp_path, pickle.dumps(list(range(5000)), 4))


def test_modules_that_hold_themselves_or_each_other(published: Any, tmp_path: Path) -> None:
    """Cheap to write down, endless to walk through."""
    network = published.generator(1, resolution=16)
    inside = network.state["_modules"]["synthesis"].state["_modules"]
    wide = published.module("SynthesisBlock")
    for _ in range(25):  # 2^25 ways through 25 modules
        wide = published.module("SynthesisBlock", modules={"a": wide, "b": wide})
    deep = published.module("SynthesisBlock")
    deep.state["_modules"]["itself"] = deep
    several = "under several names"
    for more, message in ((wide, "more than 10,000 modules"), (deep, "or 32 one in another"), (network, several)):
        inside["more"] = more
        path = published.snapshot(tmp_path / "x.pkl", G_ema=network)
        assert path.stat().st_size < 100_000
        with pytest.raises(ModelFileError, match=message):
            import_published(read_inert(path))


def test_nesting_without_end(tmp_path: Path) -> None:
    deep = 100_000
    for content in (
        b"]" * deep + b"a" * (deep - 1),
        b")" + b"\x85" * deep,
        b"(" * deep + b"t" * deep,
        b"}K\x00" * deep + b"}" + b"s" * deep,
        b"})" + b"2\x86" * 60 + b"K\x01s",  # a key whose hash has 2^60 parts
    ):
        said = refusal(tmp_path, b"\x80\x04" + content + b".")
        assert "nested" in said or "a tuple for a key" in said, said


def test_numpy_objects_and_claims(tmp_path: Path) -> None:
    objects = pickle.dumps({"a": np.array([{}, 1], dtype=object)}, 4)
    assert "numpy values of the type O8" in refusal(tmp_path, objects)
    function, arguments, _ = np.zeros(1).__reduce__()
    state = (1, (1 << 50,), np.dtype("f8"), False, b"\0" * 8)

    class Claims:
        def __reduce__(self) -> tuple[Any, ...]:
            return function, arguments, state

    assert "another size than its 8 bytes" in refusal(tmp_path, pickle.dumps(Claims(), 4))
    scalar = pickle.dumps(np.float64(2.5), 4)
    assert read_bytes(tmp_path, scalar).content == 2.5
    assert "other bytes than its type" in refusal(tmp_path, scalar.replace(b"f8", b"f4"))
    assert "numpy values of the type" in refusal(tmp_path, scalar.replace(b"f8", b"O8"))


# ---- other files


def test_files_that_are_something_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelFileError, match="there is no file"):
        read_inert(tmp_path / "nothing.pkl")
    with pytest.raises(ModelFileError, match="is a folder, but not of an export"):
        read_inert(tmp_path)
    assert "neither a pickle nor" in refusal(tmp_path, b"Hello, this is a text.\n")
    assert "neither a pickle nor" in refusal(tmp_path, b"")
    assert "neither a pickle nor" in refusal(tmp_path, b"version https://git-lfs.github.com/spec/v1\n")
    save_file({"w": torch.zeros(2)}, tmp_path / "x.safetensors")
    assert "safetensors file" in refusal(tmp_path, (tmp_path / "x.safetensors").read_bytes())
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("picture.png", b"x")
    assert "Only zip files that torch.save wrote" in refusal(tmp_path, archive.getvalue())
    monkeypatch.setattr(inert_file, "MAX_FILE_BYTES", 1 << 30)
    large = tmp_path / "large.pkl"
    with large.open("wb") as stream:
        stream.truncate((1 << 30) + 1)
    with pytest.raises(ModelFileError, match="at most 1 GiB"):
        read_inert(large)


def test_files_of_other_programs_get_advice(tmp_path: Path) -> None:
    old = b"\x80\x04cdnnlib.tflib.network\nNetwork\n)\x81}b."
    assert "TensorFlow time" in refusal(tmp_path, old)
    third = b"\x80\x04cR3GAN.Networks\nGenerator\n)\x81}b."
    assert "R3GAN snapshot" in refusal(tmp_path, third)
    assert "\x1b" not in refusal(tmp_path, b"\x80\x04cos\x1b[31m\nsystem\n.")


def test_torch_files_old_and_new(tmp_path: Path) -> None:
    content = {
        "module": torch.nn.Linear(3, 2).state_dict(),
        "g_ema": {"a": torch.randn(3, 4), "half": torch.randn(2).half(), "turned": torch.randn(4, 5).t()},
        "last": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
        "args": argparse.Namespace(path="/data", size=64),
        "iter": 7,
    }
    for new in (True, False):
        torch.save(content, tmp_path / "x.pt", _use_new_zipfile_serialization=new)
        file = read_inert(tmp_path / "x.pt")
        file.require_sound()
        assert all(torch.equal(file.content["g_ema"][name], value) for name, value in content["g_ema"].items())
        assert torch.equal(file.content["last"], content["last"])
        assert torch.equal(file.content["module"]["weight"], content["module"]["weight"])
        assert file.content["args"].state == {"path": "/data", "size": 64}
        raw = (tmp_path / "x.pt").read_bytes()
        for cut in (len(raw) // 3, len(raw) - 30):
            assert read_bytes(tmp_path, raw[:cut]).problem is not None


def test_a_torch_file_that_claims_too_much(tmp_path: Path, marker: Path) -> None:
    torch.save({"w": torch.zeros(77)}, tmp_path / "x.pt")
    with zipfile.ZipFile(tmp_path / "x.pt") as source:
        members = {name: source.read(name) for name in source.namelist()}
    claims = {name: part.replace(b"K\x4d", b"J\xff\xff\xff\x7f") for name, part in members.items()}
    runs = {name: pickle.dumps(Call(os.system, f"touch {marker}"), 2) if "data.pkl" in name else part
            for name, part in members.items()}  # fmt: skip
    for parts, packed, message in (
        (claims, zipfile.ZIP_STORED, "claims"),
        (runs, zipfile.ZIP_STORED, "posix.system"),
        (members, zipfile.ZIP_DEFLATED, "compressed"),
        ({**members, "x/code/a.py": b""}, zipfile.ZIP_STORED, "TorchScript"),
    ):
        with zipfile.ZipFile(tmp_path / "y.pt", "w", packed) as target:
            for name, part in parts.items():
                target.writestr(name, part)
        with pytest.raises(ModelFileError, match=message):
            read_inert(tmp_path / "y.pt").require_sound()


# ---- damage


def test_a_file_cut_off_anywhere(published: Any, tmp_path: Path) -> None:
    path = published.snapshot(tmp_path / "x.pkl", G_ema=published.generator(1, resolution=16))
    content = path.read_bytes()
    for cut in [*range(1, 60), *range(60, len(content) - 1, len(content) // 60)]:
        said = refusal(tmp_path, content[:cut])
        assert "damaged" in said or "claims" in said or "neither a pickle" in said


def test_whatever_is_changed_nothing_but_our_error_comes_out(published: Any, tmp_path: Path) -> None:
    networks = {"G_ema": published.generator(1, resolution=16), "D": published.discriminator(2, resolution=16)}
    content = published.snapshot(tmp_path / "x.pkl", **networks).read_bytes()
    small = len(content)
    opcodes = b"()]}.aersutlbRcio0123\x80\x81\x85\x86\x87\x8a\x8c\x93\x94\x95KMJQPVS"

    @settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
    @given(
        st.lists(st.tuples(st.integers(0, small - 1), st.integers(0, 255) | st.sampled_from(opcodes)), max_size=6),
        st.integers(0, small) | st.none(),
        st.binary(max_size=12),
    )
    def change(spots: list[tuple[int, int]], where: int | None, extra: bytes) -> None:
        changed = bytearray(content)
        for place, value in spots:
            changed[place] = value
        if where is not None:
            changed[where:where] = extra
        try:
            import_published(read_bytes(tmp_path, bytes(changed)))
        except ModelFileError as error:
            assert str(error)

    change()


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(st.binary(max_size=200), st.sampled_from([b"", b"\x80\x04", b"PK\x03\x04", inert_file._OLD_TORCH]))
def test_random_bytes(tmp_path: Path, content: bytes, start: bytes) -> None:
    try:
        read_bytes(tmp_path, start + content + struct.pack("<B", 46)).require_sound()
    except ModelFileError as error:
        assert str(error)
