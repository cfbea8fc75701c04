"""The process that serves the App: `python -m datasets.review.server PORT`, started by `datasets.review.app`.

It reads the settings of `database.review_environment` and the database's address from its environment.
"""

from __future__ import annotations

import os
import sys
import threading

ADDRESS = "127.0.0.1"  # never anything else: the media route serves every file that the process can read


def serve(port: int) -> None:
    """Serve FiftyOne's App on loopback until SIGTERM comes or standard input closes."""
    threading.Thread(target=_end_with_parent, daemon=True, name="parent").start()
    from fiftyone.server.main import start_server

    start_server(port=port, address=ADDRESS)


def _end_with_parent() -> None:
    """A parent that was killed cannot end us, but the pipe to it closes."""
    sys.stdin.buffer.read()
    os._exit(0)


if __name__ == "__main__":
    serve(int(sys.argv[1]))
