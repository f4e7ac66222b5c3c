"""What tests share: the folder of corpus files, which are for tests and measurements and not the project's to ship."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

# How long an example takes says more of a busy machine than of the code.
settings.register_profile("medner", deadline=None)
settings.load_profile("medner")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of corpus files: $MEDNER_SHARED, or ../shared/data beside the repository. Skips where there is none."""
    folder = Path(os.environ.get("MEDNER_SHARED") or Path(__file__).parents[2] / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"no corpus files at {folder}; set MEDNER_SHARED to the folder that holds them")
    return folder
