"""A toy model that knows a dozen birthplaces by heart, in memory and as folders."""

import pytest

from attention_lab.toy_model import train_toy_model
from data_scripts.bios_folder import FILES


@pytest.fixture(scope="session")
def toy():
    """Return the model, its tokenizer, questions and biographies: trained in some four seconds."""
    return train_toy_model()


@pytest.fixture(scope="session")
def toy_folders(toy, tmp_path_factory):
    """Return the folder of the saved toy model and that of its data, whose dev and test files are empty."""
    model, data = tmp_path_factory.mktemp("toy"), tmp_path_factory.mktemp("toy-data")
    toy.model.save_pretrained(model)
    toy.tokenizer.save_pretrained(model)
    lines = {
        "documents": toy.documents,
        "train": [f"{question.text}\t{question.answer}" for question in toy.questions],
    }
    for key, name in FILES.items():
        (data / name).write_text("".join(f"{line}\n" for line in lines.get(key, ())), encoding="utf-8")
    return model, data
