"""What tests share: the real data folder where there is one, and a tiny folder in the same layout."""

import os
from pathlib import Path

import pytest

from data_scripts.bios_folder import FILES

CLEAN_FILES = {
    "wiki.txt": "Ada Stone. Ada Stone was born in Rome .\nBéla Nagy. Nagy was born in Győr .\n",
    "birth_places_train.tsv": "Where was Ada Stone born?\tRome\n",
    "birth_dev.tsv": "Where was Béla Nagy born?\tGyőr\n",
    "birth_test_inputs.tsv": "Where was Cyd Moss born?\nWhere was Dee Finn born?\n",
}


@pytest.fixture(scope="session")
def cs224n() -> Path:
    """Return the folder of the real data: `MINIGPT_CS224N`, else `shared/cs224n` beside the checkout."""
    folder = Path(os.environ.get("MINIGPT_CS224N") or Path(__file__).parents[2] / "shared" / "cs224n")
    missing = [name for name in FILES.values() if not (folder / name).is_file()]
    if missing:
        pytest.skip(f"needs the cs224n data: {folder} holds no {', '.join(missing)}; set MINIGPT_CS224N")
    return folder


@pytest.fixture
def tiny_folder(tmp_path: Path) -> Path:
    """Return a fresh folder that holds the four files of the layout, a line or two each."""
    folder = tmp_path / "tiny"
    folder.mkdir()
    for name, text in CLEAN_FILES.items():
        (folder / name).write_text(text, encoding="utf-8", newline="")
    return folder
