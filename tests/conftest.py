"""What tests share: the real data where there are any, a tiny folder in the same layout, and a finished tiny run."""

import logging
import os
import signal
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState

from data_scripts.bios_folder import FILES
from data_scripts.synthetic_bios import invent
from modeling_minigpt import MiniGPTConfig, MiniGPTForCausalLM, build_bpe_tokenizer
from tests.loopback_hub import LoopbackHub
from tests.running import RECIPE, call
from training.interruption import STOP_SIGNALS
from training.machine_speed import Speeds

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


@pytest.fixture(autouse=True)
def full_precision(monkeypatch):
    """Let all be in full precision on every machine: Accelerate lets a process have one precision alone."""
    monkeypatch.setattr("training.precision.measure_recipe", lambda recipe, device: Speeds())


@pytest.fixture(autouse=True)
def library_warnings():
    """Let transformers warn in every test: the `minigpt` command silences it for its process."""
    yield
    logger = logging.getLogger("transformers")
    logger.propagate = True
    logger.setLevel(logging.WARNING)


@pytest.fixture
def any_precision():
    """Return a function after which Accelerate takes another precision, else a process's for good."""

    def forget():
        AcceleratorState._reset_state(reset_partial_state=True)

    yield forget
    forget()


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A Hub on loopback, the only one that this process and a token of its know."""
    hub = LoopbackHub()
    with hub.serve() as address:
        monkeypatch.setenv("HF_TOKEN", "hf_test")
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
        template = f"{address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"  # made of the endpoint at import
        monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr("transformers.utils.hub._hf_api", None)  # a client that remembers its address
        monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "no-token"))
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)  # between its tries
        yield hub


@pytest.fixture
def datasets_hub(hub, monkeypatch, tmp_path):
    """The same Hub, for the package `datasets` too, and caches of its own."""
    monkeypatch.setattr("datasets.config.HF_ENDPOINT", hub.address)
    template = f"{hub.address}/datasets/{{repo_id}}/resolve/{{revision}}/{{path}}"
    monkeypatch.setattr("datasets.config.HUB_DATASETS_URL", template)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "datasets")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    return hub


@pytest.fixture(scope="session")
def data(tmp_path_factory) -> Path:
    """Return a folder with 40 invented people."""
    folder = tmp_path_factory.mktemp("bios")
    invent(40, seed=1).write(folder)
    return folder


@pytest.fixture(scope="session")
def recipe(tmp_path_factory) -> Path:
    """Return the file of a recipe that trains in seconds."""
    path = tmp_path_factory.mktemp("recipes") / "tiny.yaml"
    path.write_text(RECIPE)
    return path


@pytest.fixture(scope="session")
def run(data, recipe, tmp_path_factory) -> Path:
    """Return the folder of a finished run of that recipe."""
    output = tmp_path_factory.mktemp("runs") / "finished"
    assert call("all", recipe, data, output) == 0
    return output


@pytest.fixture(scope="session")
def bios():
    """Forty invented people."""
    return invent(40, seed=0)


@pytest.fixture(scope="session")
def tokenizer(bios):
    """A tokenizer of their biographies."""
    return build_bpe_tokenizer(bios.documents, 400, 64)


@pytest.fixture
def tiny_model(tokenizer):
    """Return a function that makes the same tiny model each time."""

    def make(**changes):
        torch.manual_seed(0)
        fields = {
            "vocab_size": len(tokenizer),
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "max_position_embeddings": 64,
            "pad_token_id": tokenizer.pad_token_id,
            "eos_token_id": tokenizer.eos_token_id,
        }
        return MiniGPTForCausalLM(MiniGPTConfig(**{**fields, **changes}))

    return make


@pytest.fixture
def plain_signals():
    """Let every signal have its default handler: the suite itself may run under nohup."""
    before = {each: signal.getsignal(each) for each in STOP_SIGNALS}
    for each in STOP_SIGNALS:
        signal.signal(each, signal.default_int_handler if each == signal.SIGINT else signal.SIG_DFL)
    yield
    for each, handler in before.items():
        signal.signal(each, handler)
