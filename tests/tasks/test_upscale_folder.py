"""Enlarging a folder: nothing lost, nothing done twice, no source touched, whatever lies there and whenever it ends."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import signal
import struct
import subprocess
import sys
import time
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
from PIL import Image

from datasets import atomic
from datasets.errors import LockedError, SourceError
from datasets.jpeg_quality import estimate_quality
from datasets.lock import hold_lock
from models.upscale.noise import choose_noise
from models.upscale.plan import Picture, Target, Upscaled, plan_picture
from tasks.upscale_folder import Order, upscale_file, upscale_folder
from tasks.upscale_ledger import LEDGER_FILE, LOCK_FILE, SETTINGS_FILE, Ledger, Row, cut_torn_line, read_ledger
from tasks.upscale_names import choose_outputs, printable_name
from tasks.upscale_picture import enlarge_alpha

ROOT = Path(__file__).parents[2]
LEVELS = ("none", "0", "1", "2", "3")
T = TypeVar("T")
R = TypeVar("R")


class Repeater:
    """An engine that enlarges by repeating pixels, in threads, and remembers what it was given."""

    engine = "repeater"

    def __init__(self, workers: int = 2) -> None:
        self.workers = workers
        self.loaded: list[str] = []
        self.given: list[np.ndarray] = []
        self.digest = "1"

    def weights(self, noise: str) -> tuple[str, ...]:
        return (f"repeat-{noise} sha256:{self.digest}",)

    def upscale(self, rgb: np.ndarray, target: Target, noise: str = "none") -> Upscaled:
        self.given.append(rgb)
        plan = plan_picture(Picture(rgb, target, noise), "repeat" if noise == "none" else f"repeat-noise{noise}", 2)
        enlarged = plan.begin(rgb).repeat(2**plan.applications, 0).repeat(2**plan.applications, 1)
        return plan.complete(enlarged)

    def upscale_all(
        self, items: Iterable[T], load: Callable[[T], Picture], finish: Callable[[T, Upscaled | Exception], R]
    ) -> Iterator[R]:
        def work(item: T) -> R:
            self.loaded.append(item.name)  # type: ignore[attr-defined]
            try:
                picture = load(item)
                result: Upscaled | Exception = self.upscale(picture.rgb, picture.target, picture.noise)
            except Exception as error:  # noqa: BLE001  # as the engine does
                result = error
            return finish(item, result)

        waiting: deque[Future[R]] = deque()
        with ThreadPoolExecutor(self.workers) as executor:
            for item in items:
                waiting.append(executor.submit(work, item))
                if len(waiting) >= 2 * self.workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()


def digest_folder(folder: Path) -> dict[str, tuple[str, int]]:
    return {
        path.relative_to(folder).as_posix(): (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def results(out: Path) -> dict[str, str]:
    return {
        name: digest
        for name, (digest, _) in digest_folder(out).items()
        if not Path(name).name.startswith(".") and not name.startswith("upscale.")
    }


def size_of(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.size


def pixels_of(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def make_bomb() -> bytes:
    """A PNG whose header promises 40,000 x 40,000 pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 40_000, 40_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.fixture
def source(tmp_path: Path, draw: Callable[..., np.ndarray]) -> Path:
    place = tmp_path / "pictures"
    (place / "sub" / "deep").mkdir(parents=True)
    sizes = {"b.png": (40, 30), "a.jpg": (31, 43), "sub/one, two.png": (50, 50), "sub/deep/c.webp": (33, 20)}
    for seed, (name, size) in enumerate(sizes.items()):
        Image.fromarray(draw(seed, *size)).save(place / name)
    (place / "notes.txt").write_text("no picture")
    return place


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


@pytest.fixture
def order() -> Order:
    return Order(Target(scale=2), "repeat", levels=LEVELS)


@pytest.mark.parametrize("workers", [1, 3])
def test_names_and_folders_are_kept_and_no_source_is_touched(
    source: Path, out: Path, order: Order, workers: int
) -> None:
    before = digest_folder(source)
    told: list[tuple[int, int]] = []
    summary = upscale_folder(source, out, Repeater(workers), order, progress=lambda *step: told.append(step))
    assert list(results(out)) == ["a.png", "b.png", "sub/deep/c.png", "sub/one, two.png"]
    assert [size_of(out / name) for name in results(out)] == [(62, 86), (80, 60), (66, 40), (100, 100)]
    assert np.array_equal(pixels_of(out / "b.png"), pixels_of(source / "b.png").repeat(2, 0).repeat(2, 1))
    assert (summary.pictures, summary.written, summary.failed, summary.skipped) == (4, 4, {}, {})
    assert summary.pictures_per_second > 0
    assert told == [(k, 4) for k in range(1, 5)]
    assert digest_folder(source) == before


def test_the_ledger_says_what_became_of_each(source: Path, out: Path, order: Order) -> None:
    upscale_folder(source, out, Repeater(3), order)
    lines = [json.loads(line) for line in (out / LEDGER_FILE).read_text().splitlines()]
    assert [line["name"] for line in lines] == ["a.jpg", "b.png", "sub/deep/c.webp", "sub/one, two.png"]
    status = (source / "b.png").stat()
    assert lines[1] == {
        "name": "b.png",
        "output": "b.png",
        "source_bytes": status.st_size,
        "source_mtime_ns": status.st_mtime_ns,
        "output_bytes": (out / "b.png").stat().st_size,
        "width": 80,
        "height": 60,
        "factor": 2.0,
        "method": "repeat x2",
        "noise": "none",
        "engine": "repeater",
        "skipped": None,
        "error": None,
    }
    settings = json.loads((out / SETTINGS_FILE).read_text())
    assert settings["scale"] == 2 and settings["noise"] == "auto"
    assert settings["weights"]["none"] == ["repeat-none sha256:1"]


@pytest.mark.parametrize(
    ("names", "suffix", "expected"),
    [
        (["a.jpg", "a.png"], ".png", {"a.jpg": "a.jpg.png", "a.png": "a.png"}),
        (["a.jpg", "a.webp"], ".png", {"a.jpg": "a.png", "a.webp": "a.webp.png"}),
        (["a.jpg", "a.jpg.png", "a.png"], ".png", {"a.jpg": "a.jpg-2.png", "a.jpg.png": "a.jpg.png", "a.png": "a.png"}),
        (["A.jpg", "a.jpg"], ".png", {"A.jpg": "A.png", "a.jpg": "a.jpg.png"}),
        (["a.jpeg", "a.png"], ".jpg", {"a.jpeg": "a.jpg", "a.png": "a.png.jpg"}),
        (["a.png/x.png", "a.jpg"], ".png", {"a.jpg": "a.jpg.png", "a.png/x.png": "a.png/x.png"}),
        (["d.e/a.jpg", "d.e/b"], ".png", {"d.e/a.jpg": "d.e/a.png", "d.e/b": "d.png"}),
        (["e\u0301.jpg", "\u00e9.jpg"], ".png", {"e\u0301.jpg": "e\u0301.png", "\u00e9.jpg": "\u00e9.jpg.png"}),
    ],
)
def test_no_two_results_meet(names: list[str], suffix: str, expected: dict[str, str]) -> None:
    assert choose_outputs(names, suffix) == expected
    assert choose_outputs(reversed(names), suffix) == expected
    assert len({name.casefold() for name in expected.values()}) == len(expected)


def test_pictures_of_one_name_are_all_there(source: Path, out: Path, order: Order) -> None:
    (source / "a.png").write_bytes((source / "b.png").read_bytes())
    upscale_folder(source, out, Repeater(), order)
    assert size_of(out / "a.png") == (80, 60) and size_of(out / "a.jpg.png") == (62, 86)


def test_bad_pictures_are_named_and_stop_nothing(source: Path, out: Path, order: Order) -> None:
    (source / "empty.png").write_bytes(b"")
    (source / "cut.jpg").write_bytes((source / "a.jpg").read_bytes()[:700])
    (source / "bomb.png").write_bytes(make_bomb())
    (source / "text.png").write_text("no picture")
    frames = [Image.new("RGB", (9, 9), colour) for colour in ("red", "blue")]
    frames[0].save(source / "moving.gif", save_all=True, append_images=frames[1:])
    summary = upscale_folder(source, out, Repeater(), order)
    assert sorted(summary.failed) == ["bomb.png", "cut.jpg", "empty.png", "moving.gif", "text.png"]
    assert "zero_byte" in summary.failed["empty.png"] and "truncated" in summary.failed["cut.jpg"]
    assert "decompression_bomb" in summary.failed["bomb.png"] and "animated" in summary.failed["moving.gif"]
    assert summary.written == 4 and len(results(out)) == 4
    rows = read_ledger(out / LEDGER_FILE)
    assert rows["cut.jpg"].error == summary.failed["cut.jpg"] and rows["cut.jpg"].output is None


def test_a_picture_that_vanishes_meanwhile_is_named(source: Path, out: Path, order: Order) -> None:
    class Thief(Repeater):
        def upscale_all(self, items: Iterable[T], load: Any, finish: Any) -> Iterator[Any]:
            (source / "b.png").unlink()
            return super().upscale_all(items, load, finish)

    summary = upscale_folder(source, out, Thief(), order)
    assert list(summary.failed) == ["b.png"] and "No such file" in summary.failed["b.png"]
    assert summary.written == 3
    assert upscale_folder(source, out, Repeater(), order).pictures == 3


def test_an_error_of_the_program_is_no_row(source: Path, out: Path, order: Order) -> None:
    class Broken(Repeater):
        def upscale(self, rgb: np.ndarray, target: Target, noise: str = "none") -> Upscaled:
            raise TypeError("a mistake in the program")

    with pytest.raises(TypeError, match="a mistake"):
        upscale_folder(source, out, Broken(), order)
    assert read_ledger(out / LEDGER_FILE) == {}


@pytest.mark.parametrize(
    ("error", "said"), [(MemoryError(), "memory is full"), (RuntimeError("CUDA\nout"), "CUDA out")]
)
def test_what_one_picture_is_too_much_for_stops_no_other(
    error: Exception, said: str, source: Path, out: Path, order: Order
) -> None:
    class Small(Repeater):
        def upscale(self, rgb: np.ndarray, target: Target, noise: str = "none") -> Upscaled:
            if rgb.shape[0] == 50:
                raise error
            return super().upscale(rgb, target, noise)

    summary = upscale_folder(source, out, Small(), order)
    assert said in summary.failed["sub/one, two.png"] and summary.written == 3


def test_a_result_that_nobody_could_read_again_is_refused(source: Path, out: Path, draw: Any) -> None:
    Image.new("RGB", (1600, 1600)).save(source / "large.png")
    summary = upscale_folder(source, out, Repeater(), Order(Target(scale=8), "repeat"))
    assert "12800 x 12800 pixels" in summary.failed["large.png"] and summary.written == 4


def test_links_that_leave_the_source_are_named_and_not_read(source: Path, out: Path, order: Order) -> None:
    outside = source.parent / "secret.png"
    outside.write_bytes((source / "b.png").read_bytes())
    (source / "link.png").symlink_to(outside)
    (source / "inside.png").symlink_to(source / "b.png")
    (source / "loop.png").symlink_to(source / "loop.png")
    summary = upscale_folder(source, out, Repeater(), order)
    assert list(summary.skipped) == ["link.png"] and "leaves the source folder" in summary.skipped["link.png"]
    assert "inside.png" in results(out) and "link.png" not in results(out)
    assert summary.failed == {} and summary.written == 5


def test_places_that_lie_in_each_other_are_refused(source: Path, order: Order, tmp_path: Path) -> None:
    link = tmp_path / "elsewhere"
    link.symlink_to(source / "sub")
    before = digest_folder(source)
    for out in (source, source / "out", source.parent, link, link / "new"):
        with pytest.raises(SourceError, match="lie in each other"):
            upscale_folder(source, out, Repeater(), order)
    with pytest.raises(SourceError, match="does not exist"):
        upscale_folder(tmp_path / "nowhere", tmp_path / "out", Repeater(), order)
    with pytest.raises(SourceError, match="is a file"):
        upscale_folder(source, source / "b.png", Repeater(), order)
    assert digest_folder(source) == before


def test_a_link_in_the_output_folder_leads_nobody_to_a_source(source: Path, out: Path, order: Order) -> None:
    out.mkdir()
    (out / "sub").symlink_to(source / "sub")
    before = digest_folder(source)
    summary = upscale_folder(source, out, Repeater(), order, overwrite=True)
    assert sorted(summary.failed) == ["sub/deep/c.webp", "sub/one, two.png"]
    assert "leads out of" in summary.failed["sub/deep/c.webp"]
    assert digest_folder(source) == before


def test_a_folder_of_other_files_is_refused(source: Path, out: Path, order: Order) -> None:
    out.mkdir()
    (out / "b.png").write_bytes(b"mine")
    with pytest.raises(SourceError, match=r"b\.png is one"):
        upscale_folder(source, out, Repeater(), order)
    assert (out / "b.png").read_bytes() == b"mine" and not (out / SETTINGS_FILE).exists()
    upscale_folder(source, out, Repeater(), order, overwrite=True)
    assert size_of(out / "b.png") == (80, 60)


def test_a_second_run_opens_only_what_changed(source: Path, out: Path, order: Order, draw: Any) -> None:
    upscale_folder(source, out, Repeater(), order)
    first = digest_folder(out)
    again = Repeater()
    summary = upscale_folder(source, out, again, order)
    assert (again.loaded, summary.done_before, summary.written) == ([], 4, 0)
    assert results(out) == {name: first[name][0] for name in results(out)}

    Image.fromarray(draw(9, 24, 24)).save(source / "b.png")  # another picture
    os.utime(source / "a.jpg", ns=(1, 1))  # perhaps another one
    (out / "sub" / "one, two.png").unlink()
    with (out / "sub" / "deep" / "c.png").open("ab") as stream:
        stream.write(b"more")
    Image.fromarray(draw(8, 24, 24)).save(source / "new.png")
    summary = upscale_folder(source, out, again, order)
    assert sorted(again.loaded) == ["a.jpg", "b.png", "new.png", "sub/deep/c.webp", "sub/one, two.png"]
    assert summary.done_before == 0 and size_of(out / "b.png") == (48, 48)
    last = Repeater()
    assert upscale_folder(source, out, last, order).done_before == 5 and last.loaded == []


def test_a_name_that_is_taken_later_makes_the_same_as_at_once(source: Path, out: Path, order: Order) -> None:
    upscale_folder(source, out, Repeater(), order)
    (source / "a.png").write_bytes((source / "b.png").read_bytes())
    upscale_folder(source, out, Repeater(), order)
    upscale_folder(source, out.parent / "at once", Repeater(), order)
    assert results(out) == results(out.parent / "at once")


def test_failures_are_tried_again_and_skips_are_not(source: Path, out: Path, order: Order, draw: Any) -> None:
    whole = (source / "a.jpg").read_bytes()
    status = (source / "a.jpg").stat()
    (source / "a.jpg").write_bytes(b"\0" * len(whole))
    Image.fromarray(draw(5, 64, 64)).resize((256, 256), Image.Resampling.BICUBIC).save(source / "soft.png")
    strict = replace(order, min_native_scale=0.6)
    summary = upscale_folder(source, out, Repeater(), strict)
    assert list(summary.failed) == ["a.jpg"]
    assert list(summary.skipped) == ["soft.png"] and "looks enlarged" in summary.skipped["soft.png"]
    assert "soft.png" not in results(out)
    (source / "a.jpg").write_bytes(whole)
    os.utime(source / "a.jpg", ns=(status.st_mtime_ns, status.st_mtime_ns))
    again = Repeater()
    assert upscale_folder(source, out, again, strict).failed == {}
    assert again.loaded == ["a.jpg"]


def test_other_settings_are_refused_and_where_it_is_computed_is_none(source: Path, out: Path, order: Order) -> None:
    upscale_folder(source, out, Repeater(), order)
    for other in (
        replace(order, target=Target(scale=3)),
        replace(order, target=Target(size=64, fit="keep")),
        replace(order, noise="2"),
        replace(order, tta=True),
        replace(order, format="jpeg"),
        replace(order, min_native_scale=0.5),
    ):
        with pytest.raises(SourceError, match=r"other settings .* was .*--overwrite"):
            upscale_folder(source, out, Repeater(), other)
    trained_anew, elsewhere = Repeater(), Repeater()
    trained_anew.digest = "2"
    with pytest.raises(SourceError, match="weights was"):
        upscale_folder(source, out, trained_anew, order)
    elsewhere.engine = "another machine"
    assert upscale_folder(source, out, elsewhere, replace(order, quality=50)).done_before == 4
    summary = upscale_folder(source, out, Repeater(), replace(order, target=Target(scale=3)), overwrite=True)
    assert summary.written == 4 and size_of(out / "b.png") == (120, 90)
    (out / SETTINGS_FILE).write_text("{")
    with pytest.raises(SourceError, match="damaged"):
        upscale_folder(source, out, Repeater(), order)


KILLED = """
import sys, time
from pathlib import Path
sys.path[:0] = [sys.argv[3], sys.argv[4]]
from test_upscale_folder import LEVELS, Order, Repeater, Target, upscale_folder

class Slow(Repeater):
    def upscale(self, rgb, target, noise="none"):
        time.sleep(0.05)
        return super().upscale(rgb, target, noise)

upscale_folder(Path(sys.argv[1]), Path(sys.argv[2]), Slow(1), Order(Target(scale=2), "repeat", levels=LEVELS))
"""


def test_killed_in_the_middle_only_the_rest_is_done(source: Path, out: Path, order: Order, draw: Any) -> None:
    for seed in range(40):
        Image.fromarray(draw(seed, 24, 24)).save(source / f"n{seed:02d}.png")
    arguments = [str(source), str(out), str(ROOT), str(Path(__file__).parent)]
    process = subprocess.Popen([sys.executable, "-c", KILLED, *arguments])
    ledger, deadline = out / LEDGER_FILE, time.monotonic() + 60
    while not ledger.exists() or len(ledger.read_bytes().splitlines()) < 6:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    written = len(read_ledger(ledger))
    assert 6 <= written < 44
    with ledger.open("ab") as stream:
        stream.write(b'{"name": "n3')  # killed while it wrote a line
    (out / ".n39.png.0123abcd.tmp").write_bytes(b"half a picture")
    again = Repeater()
    summary = upscale_folder(source, out, again, order)
    assert (summary.done_before, summary.written) == (written, 44 - written)
    assert len(again.loaded) == 44 - written
    upscale_folder(source, out.parent / "at once", Repeater(), order)
    assert results(out) == results(out.parent / "at once") and len(results(out)) == 44
    assert [json.loads(line)["name"] for line in ledger.read_text().splitlines()] == sorted(read_ledger(ledger))
    assert not list(out.rglob("*.tmp"))


@pytest.mark.parametrize("torn", [b"", b"{", b'{"name": "x', b"\0" * 200_000])
def test_a_torn_line_is_taken_off(torn: bytes, tmp_path: Path) -> None:
    path = tmp_path / LEDGER_FILE
    rows = [Row("a", "a.png", 1, 2), Row("b\udcff\n", "b.png", 1, 2)]
    with Ledger(path) as ledger:
        for row in rows:
            ledger.append(row)
    whole = path.read_bytes()
    path.write_bytes(whole + torn)
    with Ledger(path) as ledger:
        ledger.append(Row("c", None, 1, 2, error="why"))
    assert path.read_bytes().startswith(whole) and path.read_bytes().count(b"\n") == 3
    assert list(read_ledger(path).values()) == [*rows, Row("c", None, 1, 2, error="why")]


def test_a_ledger_of_one_torn_line_is_empty(tmp_path: Path) -> None:
    path = tmp_path / LEDGER_FILE
    path.write_bytes(b"\0" * 100_000)
    cut_torn_line(path)
    assert path.read_bytes() == b""


def test_lines_that_are_none_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / LEDGER_FILE
    with Ledger(path) as ledger:
        ledger.append(Row("a", "a.png", 1, 2))
    whole = path.read_bytes()
    path.write_bytes(b"[]\nnull\n{}\n\xff\xfe\n" + b'{"name": 3}\n' + whole)
    assert list(read_ledger(path)) == ["a"]


def test_two_runs_do_not_fill_one_folder(source: Path, out: Path, order: Order) -> None:
    out.mkdir()
    with hold_lock(out / LOCK_FILE, "kaobako upscale"):
        with pytest.raises(LockedError, match=f"is being filled by process {os.getpid()} .*name another folder"):
            upscale_folder(source, out, Repeater(), order)
        assert not (out / SETTINGS_FILE).exists()
    assert upscale_folder(source, out, Repeater(), order).written == 4


def test_a_full_disk_ends_the_run_and_leaves_no_half_file(
    source: Path, out: Path, order: Order, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = atomic.sync_file

    def fail(path: Path) -> None:
        if ".c.png." in path.name:
            raise OSError(errno.ENOSPC, "No space left on device")
        original(path)

    monkeypatch.setattr(atomic, "sync_file", fail)
    with pytest.raises(OSError, match="No space left") as caught:
        upscale_folder(source, out, Repeater(1), order)
    assert caught.value.filename.endswith("c.png")
    assert list(read_ledger(out / LEDGER_FILE)) == ["a.jpg", "b.png"]
    assert not list(out.rglob("*.tmp")) and "sub/deep/c.png" not in results(out)
    monkeypatch.setattr(atomic, "sync_file", original)
    assert upscale_folder(source, out, Repeater(), order).done_before == 2
    assert len(results(out)) == 4


def test_a_result_that_cannot_be_written_is_named(source: Path, out: Path, order: Order) -> None:
    long = "n" * 248 + ".png"  # with what makes a name temporary it is too long for the disk
    (source / long).write_bytes((source / "b.png").read_bytes())
    summary = upscale_folder(source, out, Repeater(), order)
    assert list(summary.failed) == [long] and "too long" in summary.failed[long]
    assert summary.written == 4


def jpeg_of(pixels: np.ndarray, quality: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def test_noise_follows_the_quality_of_each_file(source: Path, out: Path, order: Order, draw: Any) -> None:
    qualities = (30, 55, 70, 85, 90, 97)
    for quality in qualities:
        (source / f"q{quality}.jpg").write_bytes(jpeg_of(draw(quality), quality))
    (source / "named.png").write_bytes(jpeg_of(draw(1), 30))  # a JPEG, whatever it is called
    upscale_folder(source, out, Repeater(), order)
    rows = read_ledger(out / LEDGER_FILE)
    for quality in qualities:
        with Image.open(source / f"q{quality}.jpg") as image:
            expected = choose_noise(estimate_quality(image.quantization))  # type: ignore[attr-defined]
        row = rows[f"q{quality}.jpg"]
        assert row.noise == expected
        assert row.method == ("repeat x2" if expected == "none" else f"repeat-noise{expected} x2")
    assert rows["q30.jpg"].noise == rows["named.png"].noise != "none"
    assert rows["b.png"].noise == rows["sub/deep/c.webp"].noise == "none"


def test_a_network_without_levels_has_none_and_a_named_level_is_used_for_all(draw: Any) -> None:
    assert Order(Target(scale=2), "repeat", levels=("none",)).used_levels() == ["none"]
    assert Order(Target(scale=2), "repeat", noise="2", levels=LEVELS).used_levels() == ["2"]
    used = Order(Target(scale=2), "repeat", levels=LEVELS).used_levels()
    assert used == sorted({choose_noise(None), *(choose_noise(quality) for quality in range(1, 101))})
    assert choose_noise(None) == choose_noise(100.0) == "none" and choose_noise(1.0) == "3"


def test_a_size_enlarges_reduces_and_leaves_alone(source: Path, out: Path, draw: Any) -> None:
    Image.fromarray(draw(4, 200, 100)).save(source / "large.png")
    Image.fromarray(draw(5, 64, 40)).save(source / "same.png", compress_level=0)
    (source / "same.jpg").write_bytes(jpeg_of(draw(6, 40, 64), 90))
    summary = upscale_folder(source, out, Repeater(), Order(Target(size=64, fit="keep"), "repeat"))
    rows = read_ledger(out / LEDGER_FILE)
    assert max(size_of(out / "b.png")) == 64 and rows["b.png"].method == "repeat x2 + lanczos"
    assert size_of(out / "large.png") == (64, 32) and rows["large.png"].method == "lanczos-down"
    assert (out / "same.png").read_bytes() == (source / "same.png").read_bytes()
    with Image.open(source / "same.jpg") as image:
        assert np.array_equal(pixels_of(out / "same.jpg.png"), np.asarray(image))
    assert (summary.written, summary.unchanged) == (7, 2)


def test_a_picture_that_is_shown_turned_is_not_copied(source: Path, out: Path, draw: Any) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(draw(5, 64, 40)).save(source / "turned.png", exif=exif)
    upscale_folder(source, out, Repeater(), Order(Target(size=64, fit="keep"), "repeat"))
    assert size_of(out / "turned.png") == (40, 64)
    assert np.array_equal(pixels_of(out / "turned.png"), np.rot90(draw(5, 64, 40), -1))


def sprite(draw: Callable[..., np.ndarray], hard: bool, beneath: int) -> np.ndarray:
    """uint8 (40, 30, 4): a disc with a soft or a hard edge; what lies beneath clear pixels is up to the caller."""
    y, x = np.mgrid[:40, :30]
    alpha = np.clip(128 - 90 * (np.hypot(y - 20, x - 15) - 11), 0, 255).astype(np.uint8)
    if hard:
        alpha = np.where(alpha >= 128, 255, 0).astype(np.uint8)
    rgb = draw(11, 30, 40).copy()
    rgb[alpha == 0] = beneath
    return np.dstack([rgb, alpha])


@pytest.mark.parametrize("hard", [False, True])
@pytest.mark.parametrize("fit", ["keep", "crop", "letterbox"])
def test_transparency_is_kept_and_what_is_hidden_does_not_bleed(
    source: Path, out: Path, hard: bool, fit: Any, draw: Any
) -> None:
    for beneath in (0, 255):
        Image.fromarray(sprite(draw, hard, beneath)).save(source / f"s{beneath}.png")
    upscale_folder(source, out, Repeater(), Order(Target(size=80, fit=fit), "repeat"))
    black, white = pixels_of(out / "s0.png"), pixels_of(out / "s255.png")
    assert black.shape == {"keep": (80, 60, 4), "crop": (80, 80, 4), "letterbox": (80, 80, 4)}[fit]
    assert np.array_equal(black, white)
    if fit == "letterbox":
        assert (black[:, :10, 3] == 0).all() and (black[:, 70:, 3] == 0).all()
    if fit == "keep":
        assert black[40, 30, 3] == 255 and (black[:3, :, 3] == 0).all()


def test_a_soft_edge_goes_through_the_network_and_a_hard_one_does_not(draw: Any) -> None:
    network = Repeater()
    for hard, calls in ((False, 1), (True, 0)):
        network.given.clear()
        alpha = sprite(draw, hard, 0)[:, :, 3]
        enlarged = enlarge_alpha(alpha, Target(scale=2), network)
        assert enlarged.shape == (80, 60) and len(network.given) == calls
        assert not np.isin(enlarged, (0, 255)).all()
    wide = enlarge_alpha(np.full((10, 20), 255, np.uint8), Target(size=64, fit="crop"), network)
    assert wide.shape == (64, 64) and (wide == 255).all()


def test_a_palette_with_a_clear_colour_keeps_it(source: Path, out: Path, order: Order) -> None:
    image = Image.new("P", (20, 16), 1)
    image.putpalette([0, 0, 0, 200, 100, 50])
    image.paste(0, (0, 0, 8, 16))
    image.save(source / "palette.png", transparency=0)
    upscale_folder(source, out, Repeater(), order)
    pixels = pixels_of(out / "palette.png")
    assert pixels.shape == (32, 40, 4)
    assert (pixels[:, :14, 3] == 0).all() and (pixels[:, 18:, 3] == 255).all()
    assert (pixels[:, :, :3] == (200, 100, 50)).all()  # the clear black is nowhere


def test_an_alpha_channel_of_nothing_but_opaque_is_dropped(source: Path, out: Path, order: Order, draw: Any) -> None:
    Image.fromarray(np.dstack([draw(1), np.full((96, 96), 255, np.uint8)])).save(source / "opaque.png")
    upscale_folder(source, out, Repeater(), order)
    assert pixels_of(out / "opaque.png").shape == (192, 192, 3)


def test_jpeg_lays_transparency_over_white(source: Path, out: Path, order: Order, draw: Any) -> None:
    Image.fromarray(sprite(draw, False, 0)).save(source / "sprite.png")
    upscale_folder(source, out, Repeater(), replace(order, format="jpeg", quality=97))
    assert list(results(out)) == ["a.jpg", "b.jpg", "sprite.jpg", "sub/deep/c.jpg", "sub/one, two.jpg"]
    with Image.open(out / "sprite.jpg") as image:
        assert image.format == "JPEG" and image.size == (60, 80)
        assert (np.asarray(image)[:3] > 250).all()
        assert estimate_quality(image.quantization) == 97  # type: ignore[attr-defined]


def test_one_picture_into_one_file(source: Path, tmp_path: Path, order: Order) -> None:
    target = tmp_path / "new" / "large.png"
    summary = upscale_file(source / "b.png", target, Repeater(), order)
    assert size_of(target) == (80, 60) and summary.written == 1
    assert [path.name for path in target.parent.iterdir()] == ["large.png"]
    with pytest.raises(SourceError, match="is there already"):
        upscale_file(source / "a.jpg", target, Repeater(), order)
    upscale_file(source / "a.jpg", target, Repeater(), order, overwrite=True)
    assert size_of(target) == (62, 86)
    before = (source / "b.png").read_bytes()
    with pytest.raises(SourceError, match="the picture itself"):
        upscale_file(source / "b.png", source / "sub" / ".." / "b.png", Repeater(), order, overwrite=True)
    assert (source / "b.png").read_bytes() == before
    with pytest.raises(SourceError, match="does not exist"):
        upscale_file(source / "none.png", target, Repeater(), order)


def test_names_are_shown_without_what_a_terminal_would_obey() -> None:
    assert printable_name("a\x1b[31mb\n\udcff é.png") == "a\\x1b[31mb\\n\\xff é.png"
