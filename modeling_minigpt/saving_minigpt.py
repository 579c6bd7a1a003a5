"""What is saved beside a model's weights, and the upload of a saved folder once everything is in it."""

import copy
import inspect
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi
from transformers import PreTrainedModel
from transformers.utils import logging
from transformers.utils.hub import create_and_tag_model_card

from .source_minigpt import SourceError, find_pipeline_code, reset_modes

logger = logging.get_logger(__name__)
COMMIT_SETTINGS = ("commit_message", "commit_description", "create_pr", "revision")


def save_beside_weights(model: PreTrainedModel, folder: str | os.PathLike) -> None:
    """Add to a folder, into which the library has saved a model, the pipeline's code where the config names it.

    Without that code, the saved config does not name it either.
    """
    if getattr(model, "_hf_peft_config_loaded", False):  # an adapter's files alone, with no config of the model
        reset_modes(folder, like="adapter_config.json")
        return
    reset_modes(folder)
    if not getattr(model.config, "custom_pipelines", None):
        return
    # After the weights: the code of a model from the Hub may have to be downloaded, which can fail.
    code: dict[str, str] = {}
    try:
        code = find_pipeline_code(getattr(model, "weights_source", None))
    except SourceError as error:
        logger.warning(f"{folder}: saved without the code of its pipeline: {error}")
    for name, text in code.items():
        Path(folder, name).write_text(text, encoding="utf-8")
    if not code:  # a name without its file would not load
        config = copy.deepcopy(model.config)
        del config.custom_pipelines
        config.save_pretrained(folder)


@contextmanager
def upload_afterwards(
    model: PreTrainedModel, folder: str | os.PathLike, push_to_hub: bool, settings: dict[str, Any]
) -> Iterator[None]:
    """Upload what the block has written into a folder, in one commit; the block alone if not `push_to_hub`.

    The library's own `save_pretrained` uploads before a subclass can add its files.

    Args:
        model: whose tags the card gets.
        folder: its name is the repository's, unless the settings have a `repo_id`.
        push_to_hub: whether to upload.
        settings: those of `save_pretrained`; the settings of the upload are removed.

    Raises:
        NotADirectoryError: the folder is a file.
        TypeError: a setting that there is not, before anything is created.
        HfHubHTTPError: before anything is written if the repository cannot be created, or at the upload.
    """
    # The library only logs it and returns, as if the model were saved.
    if os.path.lexists(folder) and not os.path.isdir(folder):
        raise NotADirectoryError(f"{os.fspath(folder)}: a file, wanted a folder to save into")
    if not push_to_hub:
        yield
        return
    of_creation = inspect.signature(HfApi.create_repo).parameters.keys() - {"self"}
    of_saving = inspect.signature(PreTrainedModel.save_pretrained).parameters.keys() - {"self", "kwargs"}
    # Saving drops what it does not know without a word: `privat=True` would publish the model.
    for name in settings.keys() - of_creation - of_saving - {*COMMIT_SETTINGS}:
        raise TypeError(f"save_pretrained() got an unexpected keyword argument {name!r}")
    token = settings.pop("token", None)
    commit = {name: settings.pop(name) for name in COMMIT_SETTINGS if name in settings}
    settings.setdefault("repo_id", Path(folder).resolve().name)
    creation = {name: settings.pop(name) for name in of_creation & settings.keys()}
    repository = HfApi().create_repo(**{**creation, "token": token, "exist_ok": True}).repo_id
    os.makedirs(folder, exist_ok=True)
    before = model._get_files_timestamps(folder)
    yield
    card = create_and_tag_model_card(repository, model.model_tags, token=token)
    card.save(Path(folder, "README.md"))
    model._upload_modified_files(folder, repository, before, token=token, **commit)
