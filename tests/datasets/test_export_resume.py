"""Exports that are killed, go on; the same version gives the same bytes; a damaged blob stops everything."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from datasets.digests import digest_file
from datasets.exports import staging
from datasets.exports.format import Format
from datasets.exports.plan import ExportError, ExportPlan, ExportSettings, plan_export
from datasets.exports.preflight import PreflightError
from datasets.exports.run import check_export, export_version
from datasets.exports.staging import partial_folder, read_state
from datasets.store import Store
from datasets.version import Version

COUNT = 11
Publish = Callable[..., Version]
MakePlan = Callable[..., ExportPlan]


class Killed(BaseException):
    """Not an Exception: nothing may catch it and go on."""


@pytest.fixture
def make_plan(publish: Publish, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MakePlan:
    """make_plan(format, name, **settings) -> a plan for eleven pictures, with a checkpoint at every second one."""
    monkeypatch.setattr(staging, "CHECKPOINT_PICTURES", 2)
    version = publish(count=COUNT, tags=["smile"])

    def make(file_format: Format, name: str, **settings: int) -> ExportPlan:
        suffix = ".zip" if file_format is Format.STYLEGAN else ""
        chosen = ExportSettings(**{"shard_pictures": 3, **settings})  # type: ignore[arg-type]
        return plan_export(store, version, file_format, tmp_path / (name + suffix), ("smile",), settings=chosen)

    return make


def contents(path: Path) -> dict[str, str]:
    """The digest of every file of an export; a zip's own under the empty name."""
    if path.is_file():
        return {"": digest_file(path)}
    return {p.relative_to(path).as_posix(): digest_file(p) for p in sorted(path.rglob("*")) if p.is_file()}


def kill_at(picture: int) -> Callable[[int, int], None]:
    def progress(done: int, total: int) -> None:
        assert total == COUNT
        if done == picture:
            raise Killed

    return progress


@pytest.mark.parametrize("file_format", list(Format))
def test_the_same_version_gives_the_same_bytes(make_plan: MakePlan, file_format: Format) -> None:
    first, second = make_plan(file_format, "one"), make_plan(file_format, "another/place")
    export_version(first)
    time.sleep(0.02)  # so that a time in the files would differ
    export_version(second)
    assert contents(first.out) == contents(second.out)
    assert contents(first.out)


@pytest.mark.parametrize("file_format", list(Format))
def test_a_killed_export_goes_on_to_the_same_bytes(make_plan: MakePlan, file_format: Format) -> None:
    whole, killed = make_plan(file_format, "one/out"), make_plan(file_format, "two/out")
    export_version(whole)
    for picture in (3, 9):
        with pytest.raises(Killed):
            export_version(killed, kill_at(picture))
        assert not killed.out.exists()
        assert [path.name for path in killed.out.parent.iterdir()] == [partial_folder(killed.out).name]
    seen: list[int] = []
    assert 0 < check_export(killed).resumed_from < 9
    done = export_version(killed, lambda n, total: seen.append(n))
    assert 0 < done.resumed_from < 9
    assert seen == list(range(done.resumed_from + 1, COUNT + 1))  # what was done is not done again
    assert contents(killed.out) == contents(whole.out)
    assert [path.name for path in killed.out.parent.iterdir()] == [killed.out.name]


@pytest.mark.parametrize("file_format", [Format.STYLEGAN, Format.TFRECORD])
def test_bytes_after_the_last_checkpoint_are_not_trusted(make_plan: MakePlan, file_format: Format) -> None:
    whole, killed = make_plan(file_format, "one/out"), make_plan(file_format, "two/out")
    export_version(whole)
    with pytest.raises(Killed):
        export_version(killed, kill_at(7))
    for path in (partial_folder(killed.out) / "content").iterdir():
        with path.open("ab") as stream:
            stream.write(b"half a picture that a power cut left")
    export_version(killed)
    assert contents(killed.out) == contents(whole.out)


def test_a_partial_file_that_was_cut_is_refused(make_plan: MakePlan) -> None:
    plan = make_plan(Format.STYLEGAN, "out")
    with pytest.raises(Killed):
        export_version(plan, kill_at(7))
    os.truncate(partial_folder(plan.out) / "content" / "out.zip", 100)
    with pytest.raises(ExportError, match="lacks bytes"):
        export_version(plan)
    assert not plan.out.exists()


@pytest.mark.parametrize("file_format", list(Format))
@pytest.mark.parametrize("harm", [Path.unlink, lambda path: os.truncate(path, path.stat().st_size - 1)])
def test_files_that_vanished_or_shrank_are_noticed(
    make_plan: MakePlan, file_format: Format, harm: Callable[[Path], None]
) -> None:
    plan = make_plan(file_format, "out", link=False)
    with pytest.raises(Killed):
        export_version(plan, kill_at(9))
    content = partial_folder(plan.out) / "content"
    written = sorted(path for path in content.rglob("*") if path.is_file() and not path.name.startswith("."))
    if file_format in (Format.STYLEGAN, Format.TFRECORD):
        noted = read_state(plan.out)
        assert noted is not None
        os.truncate(written[0], noted["files"][written[0].name])  # what comes after is not trusted anyway
    harm(written[0])
    with pytest.raises(ExportError, match=r"lacks .*Delete .*\.partial and export again") as caught:
        export_version(plan)
    assert written[0].name in str(caught.value)
    assert not plan.out.exists()


@pytest.mark.parametrize("file_format", list(Format))
def test_a_note_that_outlived_its_export_is_not_trusted(make_plan: MakePlan, file_format: Format) -> None:
    """Killed right after the renaming; then the export is removed, and made again."""
    plan, whole = make_plan(file_format, "out"), make_plan(file_format, "whole/out")
    export_version(whole)
    with pytest.raises(Killed):
        export_version(plan, kill_at(9))
    folder = partial_folder(plan.out)
    shutil.rmtree(folder / "content")
    assert read_state(plan.out) is None
    done = export_version(plan)
    assert done.resumed_from == 0
    assert contents(plan.out) == contents(whole.out)
    assert not folder.exists()


@pytest.mark.parametrize("file_format", [Format.STYLEGAN, Format.FOLDER])
def test_the_note_is_forgotten_before_the_renaming(
    make_plan: MakePlan, monkeypatch: pytest.MonkeyPatch, file_format: Format
) -> None:
    plan = make_plan(file_format, "out")
    rename = Path.rename
    harm: list[BaseException] = [OSError(errno.EIO, "Input/output error"), Killed()]
    noted: list[bool] = []

    def fail(source: Path, target: Path) -> Path:
        if target == plan.out:
            noted.append((partial_folder(plan.out) / staging.STATE_FILE).exists())
            if harm:
                raise harm.pop(0)
        return rename(source, target)

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(OSError, match="Input/output"):
        export_version(plan)
    assert read_state(plan.out) is not None  # what was written is not lost by a disk that had a bad moment
    with pytest.raises(Killed):
        export_version(plan)
    assert read_state(plan.out) is None
    assert export_version(plan).resumed_from == 0
    assert noted == [False] * 3


def test_other_settings_do_not_go_on_with_it(make_plan: MakePlan) -> None:
    plan = make_plan(Format.WEBDATASET, "out")
    with pytest.raises(Killed):
        export_version(plan, kill_at(7))
    other = make_plan(Format.WEBDATASET, "out", shard_pictures=4)
    with pytest.raises(PreflightError, match="unfinished export of faces@v1 as webdataset"):
        export_version(other)
    export_version(plan)
    assert len(list(plan.out.glob("*.tar"))) == 4


def test_another_version_does_not_go_on_with_it(make_plan: MakePlan, publish: Publish, store: Store) -> None:
    plan = make_plan(Format.STYLEGAN, "out")
    with pytest.raises(Killed):
        export_version(plan, kill_at(7))
    newer = plan_export(store, publish(count=COUNT + 1), Format.STYLEGAN, plan.out)
    with pytest.raises(PreflightError, match="unfinished export of faces@v1"):
        export_version(newer)


@pytest.mark.parametrize("file_format", list(Format))
def test_a_damaged_blob_stops_it_and_is_named(make_plan: MakePlan, store: Store, file_format: Format) -> None:
    """A changed picture of the same length: its header is sound, only its bytes no longer have its name."""
    plan = make_plan(file_format, "out")
    path = store.blobs.path(plan.blobs[5])
    data = bytearray(path.read_bytes())
    sound = bytes(data)
    data[-20] ^= 1
    path.write_bytes(data)
    assert check_export(plan).problems == []
    with pytest.raises(ExportError, match=f"{plan.crop_ids[5]}, blob {plan.blobs[5]}, is damaged"):
        export_version(plan)
    assert not plan.out.exists()
    path.write_bytes(sound)
    export_version(plan)
    whole = make_plan(file_format, "whole/out")
    export_version(whole)
    assert contents(plan.out) == contents(whole.out)


def test_a_finished_export_is_left_alone(make_plan: MakePlan) -> None:
    plan = make_plan(Format.STYLEGAN, "out")
    export_version(plan)
    before = plan.out.stat().st_mtime_ns
    assert export_version(plan).already_there
    assert plan.out.stat().st_mtime_ns == before


def test_two_do_not_write_to_the_same_place(make_plan: MakePlan) -> None:
    plan = make_plan(Format.FOLDER, "out")
    refused: list[str] = []

    def try_meanwhile(done: int, total: int) -> None:
        if done == 4:
            with pytest.raises(ExportError, match="another process") as caught:
                export_version(plan)
            refused.append(str(caught.value))

    export_version(plan, try_meanwhile)
    assert len(refused) == 1
    assert export_version(plan).already_there


def test_pictures_are_copied_unless_links_are_asked_for(make_plan: MakePlan, store: Store) -> None:
    """Who edits an exported picture in place must not edit the store."""
    plan = make_plan(Format.FOLDER, "out")
    assert export_version(plan).linked == 0
    assert not (plan.out / f"{plan.names[0]}.png").samefile(store.blobs.path(plan.blobs[0]))


def test_folders_without_links_get_copies(make_plan: MakePlan, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(source: Path, target: Path) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    plan = make_plan(Format.FOLDER, "out", link=True)
    monkeypatch.setattr(os, "link", refuse)
    assert export_version(plan).linked == 0
    blob = store.blobs.path(plan.blobs[0])
    copy = plan.out / f"{plan.names[0]}.png"
    assert copy.read_bytes() == blob.read_bytes()
    assert not copy.samefile(blob)


KILLED_PROCESS = """
import sys
from pathlib import Path
from datasets.exports import staging
from datasets.exports.format import Format
from datasets.exports.plan import ExportSettings, plan_export
from datasets.exports.run import export_version
from datasets.store import Store
from datasets.version import read_version
staging.CHECKPOINT_PICTURES = 2
store = Store(Path(sys.argv[1]))
settings = ExportSettings(shard_pictures=4)
plan = plan_export(store, read_version(store, "faces@v1"), Format(sys.argv[2]), Path(sys.argv[3]), settings=settings)
def wait(done, total):
    if done == 6:
        print("here", flush=True)
        sys.stdin.read()
export_version(plan, wait)
"""


@pytest.mark.parametrize("file_format", list(Format))
def test_kill_nine(publish: Publish, store: Store, tmp_path: Path, file_format: Format) -> None:
    version = publish(count=COUNT)
    name = "out.zip" if file_format is Format.STYLEGAN else "out"
    out = tmp_path / "killed" / name
    command = [sys.executable, "-c", KILLED_PROCESS, str(store.root), file_format.value, str(out)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"here\n"
        process.send_signal(signal.SIGKILL)
    assert not out.exists()
    settings = ExportSettings(shard_pictures=4)
    half_written = [path.name for path in (partial_folder(out) / "content").rglob(".*.tmp")]
    assert bool(half_written) == (file_format in (Format.WEBDATASET, Format.PARQUET))
    plan = plan_export(store, version, file_format, out, settings=settings)
    done = export_version(plan)
    assert done.resumed_from in (4, 6)
    whole = plan_export(store, version, file_format, tmp_path / "whole" / name, settings=settings)
    export_version(whole)
    assert contents(out) == contents(whole.out)
    shutil.rmtree(out.parent)
