"""What tests share: invented corpus files, and real ones, which are for tests and not the project's to ship."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import settings

# How long an example takes says more of a busy machine than of the code.
settings.register_profile("medner", deadline=None)
settings.load_profile("medner")


FILES = Path(__file__).parent / "files"


class Corpus(NamedTuple):
    """One corpus as PubTator and as BioC, and articles as rows in the user's form."""

    pubtator: Path
    bioc: Path
    rows: Path


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The demo's training first: with two processes, nothing then waits for it at the end."""
    items.sort(key=lambda item: item.path.name != "test_demo.py")


@pytest.fixture(scope="session", params=["invented", pytest.param("shared", marks=pytest.mark.slow)])
def corpus(request) -> Corpus:
    """Eight invented articles in BC5CDR's form; and BC5CDR itself with the user's rows, where the shared folder is there."""
    if request.param == "invented":
        return Corpus(FILES / "invented.PubTator.txt", FILES / "invented.BioC.xml", FILES / "invented.rows.jsonl")
    folder = request.getfixturevalue("shared_data")
    names = ("CDR_DevelopmentSet.PubTator.txt", "CDR_DevelopmentSet.BioC.xml", "both_rel_instruct_all.jsonl")
    return Corpus(*(folder / name for name in names))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of corpus files: $MEDNER_SHARED, or ../shared/data beside the repository. Skips where there is none."""
    folder = Path(os.environ.get("MEDNER_SHARED") or Path(__file__).parents[2] / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"no corpus files at {folder}; set MEDNER_SHARED to the folder that holds them")
    return folder
