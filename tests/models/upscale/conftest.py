import os

import pytest

from models.upscale.upconv7 import UpConv7, load_upconv7
from models.weights import weight_status


@pytest.fixture(scope="session")
def network() -> UpConv7:
    """waifu2x with its real weights, when they are on this machine; skipped (in CI: failed) otherwise."""
    status = weight_status("waifu2x-upconv7-art-scale")
    if status.state != "ok":
        (pytest.fail if os.environ.get("CI") else pytest.skip)(status.message)
    return load_upconv7()
