"""A digest of the weights that a model's folder stores, to tell whether a record beside them is still of these."""

import json
from contextlib import ExitStack

from safetensors import safe_open
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME

from modeling_minigpt.fingerprint_minigpt import digest_weights
from modeling_minigpt.source_minigpt import WeightsSource


def stored_weights_digest(source: WeightsSource) -> str | None:
    """Return a digest of the names, formats, shapes and values of stored weights; None where there are none.

    Read from the files: a model that starts from them with another attention has other weights. How they are divided
    into files makes no difference.

    Raises:
        SourceError, ValueError: as `WeightsSource.read_parsed`.
    """
    names = [SAFE_WEIGHTS_NAME]
    if source.find(SAFE_WEIGHTS_NAME) is None:
        names = source.read_parsed(SAFE_WEIGHTS_INDEX_NAME, lambda text: set(json.loads(text)["weight_map"].values()))
    paths = [source.find(name) for name in sorted(names or ())]
    if not paths or None in paths:
        return None
    with ExitStack() as stack:
        files = [stack.enter_context(safe_open(path, "pt")) for path in paths]
        places = {name: file for file in files for name in file.keys()}  # noqa: SIM118 (no mapping)
        return digest_weights((name, file.get_tensor(name)) for name, file in sorted(places.items()))
