import os

import pytest

from models.weights import weight_status


@pytest.fixture(scope="session")
def cascade() -> str:
    """The name of the LBP cascade, when it is on this machine; skipped (in CI: failed) otherwise."""
    status = weight_status("lbpcascade-animeface")
    if status.state != "ok":
        (pytest.fail if os.environ.get("CI") else pytest.skip)(status.message)
    return status.name
