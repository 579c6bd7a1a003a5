"""A converted model computes what its source does: minGPT's two layouts, nanoGPT's, and the library's GPT-2."""

import pickle
import warnings

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config, GPT2LMHeadModel

from modeling_minigpt import MiniGPTForCausalLM, build_bpe_tokenizer, cli_minigpt
from modeling_minigpt import convert_mingpt_checkpoint_to_hf as from_mingpt
from modeling_minigpt.convert_mingpt_checkpoint_to_hf import ConversionError

VOCABULARY, CONTEXT, WIDTH, HEADS, LAYERS = 50, 16, 24, 3, 2
IDS = torch.randint(VOCABULARY, (2, CONTEXT), generator=torch.Generator().manual_seed(0))


class SourceBlock(nn.Module):
    """One block of the source models, its submodules named as in either layout."""

    def __init__(self, fused: bool, bias: bool, gelu: nn.Module):
        super().__init__()
        self.fused = fused
        first, second = nn.Linear(WIDTH, 4 * WIDTH, bias=bias), nn.Linear(4 * WIDTH, WIDTH, bias=bias)
        self.attn = nn.Module()
        if fused:
            self.ln_1, self.ln_2 = nn.LayerNorm(WIDTH, bias=bias), nn.LayerNorm(WIDTH, bias=bias)
            self.attn.c_attn = nn.Linear(WIDTH, 3 * WIDTH, bias=bias)
            self.attn.c_proj = nn.Linear(WIDTH, WIDTH, bias=bias)
            self.attn.register_buffer("bias", torch.ones(1, 1, CONTEXT, CONTEXT).tril())
            self.mlp = nn.ModuleDict({"c_fc": first, "act": gelu, "c_proj": second})
        else:
            self.ln1, self.ln2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
            for name in ("query", "key", "value", "proj"):
                setattr(self.attn, name, nn.Linear(WIDTH, WIDTH))
            self.attn.register_buffer("mask", torch.ones(1, 1, CONTEXT, CONTEXT).tril())
            self.mlp = nn.Sequential(first, gelu, second)

    def forward(self, x):
        normed = (self.ln_1 if self.fused else self.ln1)(x)
        if self.fused:
            projected = self.attn.c_attn(normed).split(WIDTH, dim=2)
        else:
            projected = [getattr(self.attn, name)(normed) for name in ("query", "key", "value")]
        query, key, value = (part.unflatten(2, (HEADS, -1)).transpose(1, 2) for part in projected)
        scores = query @ key.mT / (WIDTH // HEADS) ** 0.5
        future = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).triu(1)
        mixed = (scores.masked_fill(future, -torch.inf).softmax(-1) @ value).transpose(1, 2).flatten(2)
        x = x + (self.attn.c_proj if self.fused else self.attn.proj)(mixed)
        normed = (self.ln_2 if self.fused else self.ln2)(x)
        layers = self.mlp.values() if self.fused else self.mlp
        for layer in layers:
            normed = layer(normed)
        return x + normed


class PracticalSource(nn.Module):
    """The practical's model, minGPT before its rewrite."""

    def __init__(self):
        super().__init__()
        self.tok_emb = nn.Embedding(VOCABULARY, WIDTH)
        self.pos_emb = nn.Parameter(torch.randn(1, CONTEXT, WIDTH))
        self.blocks = nn.Sequential(*(SourceBlock(False, True, nn.GELU()) for _ in range(LAYERS)))
        self.ln_f = nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, VOCABULARY, bias=False)

    def forward(self, ids):
        return self.head(self.ln_f(self.blocks(self.tok_emb(ids) + self.pos_emb[:, : ids.shape[1]])))


class FusedSource(nn.Module):
    """Today's minGPT, or nanoGPT."""

    def __init__(self, bias=True, tied=False, gelu="tanh"):
        super().__init__()
        blocks = nn.ModuleList(SourceBlock(True, bias, nn.GELU(approximate=gelu)) for _ in range(LAYERS))
        self.transformer = nn.ModuleDict(
            {
                "wte": nn.Embedding(VOCABULARY, WIDTH),
                "wpe": nn.Embedding(CONTEXT, WIDTH),
                "h": blocks,
                "ln_f": nn.LayerNorm(WIDTH, bias=bias),
            }
        )
        self.lm_head = nn.Linear(WIDTH, VOCABULARY, bias=False)
        if tied:
            self.lm_head.weight = self.transformer["wte"].weight

    def forward(self, ids):
        x = self.transformer["wte"](ids) + self.transformer["wpe"](torch.arange(ids.shape[1]))
        for block in self.transformer["h"]:
            x = block(x)
        return self.lm_head(self.transformer["ln_f"](x))


def spread(model):
    """Give a source model weights large enough that a wrong place would show."""
    torch.manual_seed(0)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    return model.eval()


def write_gpt2(folder, **fields):
    """Write a small GPT-2 of random weights, without a tokenizer."""
    sizes = {"vocab_size": VOCABULARY, "n_positions": CONTEXT, "n_embd": WIDTH, "n_layer": 1, "n_head": HEADS}
    GPT2LMHeadModel(GPT2Config(**sizes, bos_token_id=None, eos_token_id=0, **fields)).save_pretrained(folder)


SOURCES = {
    "practical": (PracticalSource, lambda state: state, ["--num_attention_heads", "3"]),
    "mingpt": (FusedSource, lambda state: state, ["--num_attention_heads", "3"]),
    "nanogpt": (
        lambda: FusedSource(bias=False, tied=True, gelu="none"),
        lambda state: {
            "model": {f"_orig_mod.{name}": weight for name, weight in state.items()},
            "model_args": {"n_head": HEADS, "n_layer": LAYERS, "bias": False},
            "iter_num": 7,
        },
        [],
    ),
    "nanogpt-bare": (
        lambda: FusedSource(tied=True, gelu="none"),
        lambda state: state,
        ["--num_attention_heads", "3", "--hidden_act", "gelu"],
    ),
}


@pytest.mark.parametrize("name", SOURCES)
def test_logits_are_the_source_s_after_saving_and_loading(name, tmp_path):
    make, wrap, options = SOURCES[name]
    source = spread(make())
    torch.save(wrap(source.state_dict()), tmp_path / "model.params")
    assert (
        cli_minigpt.main(["convert", "mingpt", str(tmp_path / "model.params"), str(tmp_path / "out"), *options]) == 0
    )
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    with torch.no_grad():
        torch.testing.assert_close(model(IDS).logits, source(IDS), atol=1e-5, rtol=1e-5)
    assert model.config.tie_word_embeddings == name.startswith("nanogpt")
    assert model.config.use_bias == (name != "nanogpt")
    assert model.generate(IDS[:, :4], max_new_tokens=3).shape == (2, 7)


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_a_gpt2_s_logits_stay(tied, tmp_path):
    tokenizer = build_bpe_tokenizer(["Ada Stone was born in Rome ."], 270, CONTEXT)
    config = GPT2Config(
        vocab_size=len(tokenizer), n_positions=CONTEXT, n_embd=WIDTH, n_layer=LAYERS, n_head=HEADS, n_inner=40,
        tie_word_embeddings=tied, bos_token_id=None, eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    source = spread(GPT2LMHeadModel(config))
    source.save_pretrained(tmp_path / "gpt2")
    tokenizer.save_pretrained(tmp_path / "gpt2")
    assert cli_minigpt.main(["convert", "gpt2", str(tmp_path / "gpt2"), str(tmp_path / "out")]) == 0
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert model.config.model_type == "minigpt"
    assert model.config.tie_word_embeddings == tied
    with torch.no_grad():
        torch.testing.assert_close(model(IDS).logits, source(IDS).logits, atol=1e-5, rtol=1e-5)
    again = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert again("Ada")["input_ids"] == tokenizer("Ada")["input_ids"]


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        pytest.param(lambda s: s, [], "give --num_attention_heads", id="no-heads"),
        pytest.param(lambda s: s, ["5"], "5 attention heads do not divide the width of 24", id="odd-heads"),
        pytest.param(
            lambda s: {**s, "blocks.0.attn.rope_cache": torch.ones(1)},
            ["3"],
            "unknown weight blocks.0.attn.rope_cache",
            id="unknown",
        ),
        pytest.param(
            lambda s: {k: v for k, v in s.items() if k != "blocks.1.mlp.2.bias"},
            ["3"],
            "model.layers.1.mlp.down_proj.bias",
            id="missing",
        ),
        pytest.param(
            lambda s: {k: v for k, v in s.items() if k != "pos_emb"},
            ["3"],
            "found no embed_positions",
            id="no-positions",
        ),
        pytest.param(lambda s: {"model": 3}, ["3"], "no state dict in it", id="no-state"),
        pytest.param(lambda s: {}, ["3"], "no state dict in it", id="empty"),
    ],
)
def test_what_cannot_be_converted_is_refused_in_a_line(change, options, message, tmp_path, capsys):
    path = tmp_path / "model.params"
    torch.save(change(dict(spread(PracticalSource()).state_dict())), path)
    heads = ["--num_attention_heads", *options] if options else []
    assert cli_minigpt.main(["convert", "mingpt", str(path), str(tmp_path / "out"), *heads]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {path}: ")
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


class Code:
    """What would run code when unpickled."""

    def __reduce__(self):
        return print, ("this ran",)


def test_a_pickle_with_code_is_not_run(tmp_path, capsys):
    path = tmp_path / "evil.pt"
    torch.save({"tok_emb.weight": Code()}, path)
    with pytest.raises(ConversionError, match=r"no checkpoint that can be read safely: .*, found print$"):
        from_mingpt.convert(path, 3)
    with pytest.raises(ConversionError, match="cannot be read: No such file"):
        from_mingpt.convert(tmp_path / "nothing.pt", 3)
    assert "this ran" not in capsys.readouterr().out


@pytest.mark.parametrize(
    "content", [b"hello world\n", b"", pickle.dumps({"tok_emb.weight": Code()})], ids=["text", "empty", "code"]
)
def test_what_cannot_be_read_safely_is_refused_without_the_advice_to_read_it_otherwise(content, tmp_path, capsys):
    path = tmp_path / "notes.txt"
    path.write_bytes(content)
    with warnings.catch_warnings(action="error"):  # a warning would be more lines
        assert cli_minigpt.main(["convert", "mingpt", str(path), str(tmp_path / "out")]) == 2
    said = capsys.readouterr()
    wanted = "no checkpoint that can be read safely: wanted plain tensors in a file of torch.save"
    assert said.err == f"error: {path}: {wanted}\n"
    assert "this ran" not in said.out


def test_a_gpt2_that_a_minigpt_cannot_be_is_refused(tmp_path, capsys):
    write_gpt2(tmp_path / "gpt2", scale_attn_by_inverse_layer_idx=True)
    for folder, message in (("gpt2", "scale_attn_by_inverse_layer_idx is True"), ("nothing", "no GPT-2 there")):
        assert cli_minigpt.main(["convert", "gpt2", str(tmp_path / folder), str(tmp_path / "out")]) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_gpt2_without_a_tokenizer_gets_none(tmp_path, capsys):
    write_gpt2(tmp_path / "gpt2")
    assert cli_minigpt.main(["convert", "gpt2", str(tmp_path / "gpt2"), str(tmp_path / "out")]) == 0
    assert capsys.readouterr().out.endswith(" parameters, without a tokenizer, since none is there\n")
    assert not list((tmp_path / "out").glob("*token*"))


@pytest.mark.parametrize("kind", ["mingpt", "gpt2"])
def test_a_folder_with_anything_in_it_is_refused_before_the_checkpoint_is_read(kind, tmp_path, capsys):
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "facts.json").write_text("{}")
    (tmp_path / "file").write_text("a file")
    for target, message in (
        (mine, f"{mine}: has facts.json in it, wanted a new or an empty folder"),
        (tmp_path / "file", f"{tmp_path / 'file'}: is a file, wanted a folder to write the model to"),
        (tmp_path / "file" / "out", f"{tmp_path / 'file'}: is a file, wanted a folder to write the model to"),
    ):
        assert cli_minigpt.main(["convert", kind, str(tmp_path / "no-checkpoint"), str(target)]) == 2
        assert capsys.readouterr().err == f"error: {message}\n"
    assert [path.name for path in mine.iterdir()] == ["facts.json"]


def test_missing_and_empty_folders_are_written_as_they_are(tmp_path):
    write_gpt2(tmp_path / "gpt2")
    (tmp_path / "empty").mkdir()
    inode = (tmp_path / "empty").stat().st_ino  # a shell may be in it
    for target in (tmp_path / "a" / "b", tmp_path / "empty"):
        assert cli_minigpt.main(["convert", "gpt2", str(tmp_path / "gpt2"), str(target)]) == 0
        assert AutoModelForCausalLM.from_pretrained(target).config.vocab_size == VOCABULARY
        assert target.stat().st_mode == (tmp_path / "gpt2").stat().st_mode
        assert not list(tmp_path.rglob(".convert*"))
    assert (tmp_path / "empty").stat().st_ino == inode


@pytest.mark.parametrize(("error", "status"), [(KeyboardInterrupt(), 130), (Exception("No space left"), 2)])
def test_a_conversion_that_ends_early_leaves_nothing(error, status, tmp_path, monkeypatch, capsys):
    def fail(model, folder):
        save_pretrained(model, folder)
        raise error

    save_pretrained = MiniGPTForCausalLM.save_pretrained
    monkeypatch.setattr(MiniGPTForCausalLM, "save_pretrained", fail)
    write_gpt2(tmp_path / "gpt2")
    (tmp_path / "empty").mkdir()
    for target in (tmp_path / "out", tmp_path / "empty"):
        assert cli_minigpt.main(["convert", "gpt2", str(tmp_path / "gpt2"), str(target)]) == status
        assert status == 130 or capsys.readouterr().err == f"error: {target}: cannot be written: No space left\n"
    assert {path.name for path in tmp_path.iterdir()} == {"gpt2", "empty"}
    assert not list((tmp_path / "empty").iterdir())
