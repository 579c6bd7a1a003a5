"""The folder of a converted model: never one that has something in it, and complete or without a config."""

import os
import tempfile
from pathlib import Path

from transformers import PreTrainedModel, PreTrainedTokenizerBase

CONFIG = "config.json"
MAX_LENGTH = 600  # characters of a message


class ConversionError(ValueError):
    """A checkpoint that cannot be converted; the message is one line for the user."""

    def __init__(self, message: object):
        # Names in a checkpoint may be anything: line ends and what does not print are shown escaped.
        line = "".join(c if c.isprintable() else repr(c)[1:-1] for c in " ".join(str(message).split()))
        super().__init__(line[:MAX_LENGTH])


def check_folder(folder: Path) -> None:
    """Check that a conversion would overwrite nothing: the folder is missing or empty.

    Raises:
        ConversionError: it has something in it, is a file or in one, or cannot be listed.
    """
    try:
        found = sorted(os.listdir(folder))
    except FileNotFoundError:
        return
    except NotADirectoryError as error:
        file = next(path for path in (folder, *folder.parents) if path.exists())
        raise ConversionError(f"{file}: is a file, wanted a folder to write the model to") from error
    except OSError as error:
        raise ConversionError(f"{folder}: cannot be listed: {error.strerror}") from error
    # A model's other files (calibration, names, what it was trained on) would seem to be about the converted weights.
    if found:
        raise ConversionError(f"{folder}: has {found[0]} in it, wanted a new or an empty folder")


def save(model: PreTrainedModel, folder: Path, tokenizer: PreTrainedTokenizerBase | None = None) -> None:
    """Write a model, and a tokenizer if there is one, to a missing or an empty folder.

    All is written aside and moved when it is complete: an interrupted conversion leaves no folder that can be loaded.

    Raises:
        ConversionError: the folder is refused by `check_folder`, or cannot be written.
    """
    check_folder(folder)
    target = Path(os.path.realpath(folder))
    is_new = not target.exists()
    aside = target.parent if is_new else target
    try:
        aside.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".convert-", dir=aside) as temporary:
            whole = Path(temporary, "model")
            model.save_pretrained(whole)
            if tokenizer is not None:
                tokenizer.save_pretrained(whole)
            if is_new:
                whole.rename(target)
                return
            # An empty folder is not replaced, as it may be a mount point or a shell's; its config comes last.
            for path in sorted(whole.iterdir(), key=lambda path: path.name == CONFIG):
                path.rename(target / path.name)
    except Exception as error:  # at a full disk safetensors raises a kind of its own
        raise ConversionError(f"{folder}: cannot be written: {error}") from error
