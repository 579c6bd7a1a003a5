"""Checkpoints as people have them: converted as meant, or refused in one line."""

import collections

import pytest
import torch

from modeling_minigpt import cli_minigpt
from modeling_minigpt.convert_mingpt_checkpoint_to_hf import ConversionError, convert

WIDTH, HEADS, LAYERS, VOCABULARY, CONTEXT = 8, 2, 2, 11, 6


def practical() -> dict[str, torch.Tensor]:
    """Return a state dict in the practical's layout."""
    torch.manual_seed(0)
    shapes = {"tok_emb.weight": (VOCABULARY, WIDTH), "pos_emb": (1, CONTEXT, WIDTH)}
    for layer in range(LAYERS):
        block = f"blocks.{layer}."
        for name in ("ln1", "ln2"):
            shapes |= {f"{block}{name}.weight": (WIDTH,), f"{block}{name}.bias": (WIDTH,)}
        for name in ("query", "key", "value", "proj"):
            shapes |= {f"{block}attn.{name}.weight": (WIDTH, WIDTH), f"{block}attn.{name}.bias": (WIDTH,)}
        for name, rows, columns in (("0", 4 * WIDTH, WIDTH), ("2", WIDTH, 4 * WIDTH)):
            shapes |= {f"{block}mlp.{name}.weight": (rows, columns), f"{block}mlp.{name}.bias": (rows,)}
    shapes |= {"ln_f.weight": (WIDTH,), "ln_f.bias": (WIDTH,), "head.weight": (VOCABULARY, WIDTH)}
    return {name: torch.randn(shape) for name, shape in shapes.items()}


def nanogpt() -> dict[str, torch.Tensor]:
    """Return a state dict in nanoGPT's layout, without biases."""
    torch.manual_seed(0)
    shapes = {"transformer.wte.weight": (VOCABULARY, WIDTH), "transformer.wpe.weight": (CONTEXT, WIDTH)}
    for layer in range(LAYERS):
        block = f"transformer.h.{layer}."
        shapes |= {f"{block}ln_1.weight": (WIDTH,), f"{block}ln_2.weight": (WIDTH,)}
        shapes |= {f"{block}attn.c_attn.weight": (3 * WIDTH, WIDTH), f"{block}attn.c_proj.weight": (WIDTH, WIDTH)}
        shapes |= {f"{block}mlp.c_fc.weight": (4 * WIDTH, WIDTH), f"{block}mlp.c_proj.weight": (WIDTH, 4 * WIDTH)}
    shapes |= {"transformer.ln_f.weight": (WIDTH,), "lm_head.weight": (VOCABULARY, WIDTH)}
    return {name: torch.randn(shape) for name, shape in shapes.items()}


def logits(model) -> torch.Tensor:
    with torch.no_grad():
        return model(torch.arange(CONTEXT)[None]).logits


WRAPPED = {
    "compiled": lambda name: f"_orig_mod.{name}",
    "parallel": lambda name: f"module.{name}",
    "compiled, then parallel": lambda name: f"module._orig_mod.{name}",
    "parallel, then compiled": lambda name: f"_orig_mod.module.{name}",
    "blocks compiled": lambda name: name.replace("0.", "0._orig_mod.", 1),
    "sharded": lambda name: f"_fsdp_wrapped_module.{name}".replace("1.", "1._checkpoint_wrapped_module.", 1),
}


@pytest.mark.row("M17")
@pytest.mark.parametrize("wrap", WRAPPED.values(), ids=WRAPPED)
@pytest.mark.parametrize("layout", [practical, nanogpt])
def test_a_wrapped_model_s_checkpoint_converts_like_the_plain_one(tmp_path, layout, wrap):
    torch.save(layout(), tmp_path / "plain.pt")
    torch.save({wrap(name): weight for name, weight in layout().items()}, tmp_path / "wrapped.pt")
    plain, wrapped = (convert(tmp_path / f"{name}.pt", HEADS) for name in ("plain", "wrapped"))
    assert wrapped.config.to_dict() == plain.config.to_dict()
    assert torch.equal(logits(wrapped), logits(plain))


NAN = torch.full((WIDTH,), torch.nan)
BAD_WEIGHTS = {
    "no dimensions": ("ln_f.weight", torch.tensor(1.0)),
    "embedding of no dimensions": ("tok_emb.weight", torch.tensor(1.0)),
    "positions of no dimensions": ("pos_emb", torch.tensor(1.0)),
    "positions without a batch": ("pos_emb", torch.randn(CONTEXT, WIDTH)),
    "two batches of positions": ("pos_emb", torch.randn(2, CONTEXT, WIDTH)),
    "matrix as a vector": ("blocks.0.attn.key.weight", torch.randn(WIDTH * WIDTH)),
    "vector as a matrix": ("blocks.1.mlp.0.bias", torch.randn(1, 4 * WIDTH)),
    "other width": ("blocks.1.attn.key.weight", torch.randn(WIDTH, WIDTH + 1)),
    "empty": ("tok_emb.weight", torch.zeros(0, WIDTH)),
    "NaN": ("ln_f.bias", NAN),
    "one infinity": ("blocks.1.mlp.2.bias", torch.tensor([*[0.0] * (WIDTH - 1), torch.inf])),
    "beyond float32": ("ln_f.bias", torch.full((WIDTH,), 1e300, dtype=torch.float64)),
    "whole numbers": ("ln_f.bias", torch.ones(WIDTH, dtype=torch.int64)),
    "flags": ("ln_f.bias", torch.ones(WIDTH, dtype=torch.bool)),
    "complex": ("ln_f.bias", torch.ones(WIDTH, dtype=torch.complex64)),
    "float8": ("ln_f.bias", torch.ones(WIDTH).to(torch.float8_e4m3fn)),
    "quantised": ("head.weight", torch.quantize_per_tensor(torch.ones(VOCABULARY, WIDTH), 0.1, 0, torch.qint8)),
    "sparse": ("head.weight", torch.eye(VOCABULARY, WIDTH).to_sparse()),
    "sparse rows": ("head.weight", torch.eye(VOCABULARY, WIDTH).to_sparse_csr()),
    "meta": ("head.weight", torch.empty(VOCABULARY, WIDTH, device="meta")),
    "huge meta": ("head.weight", torch.empty(10**9, 10**9, device="meta")),
    "expanded": ("head.weight", torch.ones(1).expand(VOCABULARY, WIDTH)),
    "hugely expanded": ("tok_emb.weight", torch.ones(1).expand(10**8, 10**8)),
    "wide": ("tok_emb.weight", torch.ones(1, 10**6)),
}


def refusal(path, heads: int | None = HEADS) -> str:
    """Return the one line with which a conversion is refused."""
    with pytest.raises(ConversionError) as caught:
        convert(path, heads)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert message.isprintable()
    assert len(message) <= 600
    return message


@pytest.mark.row("M17")
@pytest.mark.parametrize(("name", "weight"), BAD_WEIGHTS.values(), ids=BAD_WEIGHTS)
def test_a_weight_that_is_none_is_refused_by_its_name(tmp_path, name, weight):
    torch.save({**practical(), name: weight}, tmp_path / "model.pt")
    # Of a width alone it cannot be known which of two weights is wrong.
    named = {"other width": "k_proj.weight is of shape (8, 9), wanted (8, 8)", "wide": "wanted (6, 1000000)"}
    kind = next(kind for kind, case in BAD_WEIGHTS.items() if case[1] is weight)
    assert named.get(kind, f"weight {name} ") in refusal(tmp_path / "model.pt")


@pytest.mark.row("M17")
@pytest.mark.parametrize("heads", [None, HEADS])
@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (None, "model_args is of type NoneType"),
        ([2], "model_args is of type list"),
        (3, "model_args is of type int"),
        ({"n_head": HEADS, "n_layer": LAYERS + 1}, "n_layer is 3, the weights have 2"),
        ({"n_head": HEADS, "n_embd": [8]}, "n_embd is [8], the weights have 8"),
        ({"n_head": HEADS, "block_size": torch.ones(3)}, "block_size is tensor"),
        ({"n_head": HEADS, "bias": True}, "bias is True, the weights have False"),
    ],
)
def test_arguments_that_are_none_or_contradict_the_weights_are_refused(tmp_path, arguments, complaint, heads):
    torch.save({"model": nanogpt(), "model_args": arguments}, tmp_path / "ckpt.pt")
    assert complaint in refusal(tmp_path / "ckpt.pt", heads)


@pytest.mark.row("M17")
@pytest.mark.parametrize("heads", ["2", 2.0, True, [2], 0, -2, 3, 10**30])
def test_a_number_of_heads_that_is_none_is_refused(tmp_path, heads):
    torch.save({"model": nanogpt(), "model_args": {"n_head": heads}}, tmp_path / "ckpt.pt")
    assert "heads" in refusal(tmp_path / "ckpt.pt", None)
    torch.save(nanogpt(), tmp_path / "bare.pt")
    assert "heads" in refusal(tmp_path / "bare.pt", heads)


def without_layer(state: dict, layer: int) -> dict:
    return {name: weight for name, weight in state.items() if not name.startswith(f"blocks.{layer}.")}


BAD_STATES = {
    "integer keys": ({0: torch.ones(2)}, "wanted names and tensors"),
    "one integer key": ({**practical(), 7: torch.ones(2)}, "7: Tensor; wanted names and tensors"),
    "tuple as a key": ({**practical(), ("a", 1): torch.ones(2)}, "wanted names and tensors"),
    "a number among the weights": ({**practical(), "step": 3}, "step: int; wanted names and tensors"),
    "a list of states": ([practical()], "no state dict"),
    "a tensor": (torch.ones(2), "no state dict"),
    "nothing": (None, "no state dict"),
    "model of nothing": ({"model": None, "model_args": {}}, "no state dict"),
    "no first layer": (without_layer(practical(), 0), "found no layers.0.mlp.up_proj"),
    "gap": (without_layer({**practical(), "blocks.2.ln1.weight": torch.ones(WIDTH)}, 1), "layer 1 is missing"),
    "layer far away": (
        {**practical(), "blocks.999999999.ln1.weight": torch.ones(WIDTH)},
        "layer 2 is missing among 3 layers; found 999999999",
    ),
    "layer of many digits": ({**practical(), f"blocks.{'9' * 5000}.ln1.weight": torch.ones(WIDTH)}, "layer 2 is miss"),
    "layer 01": ({**practical(), "blocks.01.ln1.weight": torch.ones(WIDTH)}, "layer 2 is missing among 3 layers"),
    "nearly empty layer": ({**practical(), "blocks.2.ln1.weight": torch.ones(WIDTH)}, "15 weights are missing"),
    "name of two lines": ({**practical(), "a\nb\x00\ud800": torch.ones(2)}, "unknown weight a b"),
    "long name": ({**practical(), "a" * 10**6: torch.ones(2)}, "unknown weight aaa"),
    "twice": ({**practical(), "module.pos_emb": torch.ones(1, CONTEXT, WIDTH)}, "pos_emb is there twice"),
    "a norm without its bias": (
        {name: weight for name, weight in practical().items() if name != "ln_f.bias"}, "model.norm.bias",
    ),
    "odd fused rows": ({**nanogpt(), "transformer.h.0.attn.c_attn.weight": torch.ones(2, WIDTH)}, "has 2 rows"),
}  # fmt: skip


@pytest.mark.row("M17")
@pytest.mark.parametrize(("state", "complaint"), BAD_STATES.values(), ids=BAD_STATES)
def test_what_is_no_whole_model_is_refused_in_one_line(tmp_path, state, complaint):
    torch.save(state, tmp_path / "model.pt")
    assert complaint in refusal(tmp_path / "model.pt")


@pytest.mark.row("M17")
def test_many_names_of_one_memory_are_refused_before_anything_is_copied(tmp_path):
    state = practical()
    shared = {name: state[name] for name in state if name.startswith("blocks.0.")}
    for layer in range(2, 200):
        state |= {name.replace("blocks.0.", f"blocks.{layer}."): weight for name, weight in shared.items()}
    torch.save(state, tmp_path / "model.pt")
    assert "bytes of memory" in refusal(tmp_path / "model.pt")


@pytest.mark.row("M17")
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_floating_point_numbers_convert(tmp_path, dtype):
    state = collections.OrderedDict((name, weight.to(dtype)) for name, weight in practical().items())
    torch.save(state, tmp_path / "model.pt")
    torch.save({name: weight.float() for name, weight in state.items()}, tmp_path / "float.pt")
    assert torch.equal(logits(convert(tmp_path / "model.pt", HEADS)), logits(convert(tmp_path / "float.pt", HEADS)))


@pytest.mark.row("M17")
def test_a_file_of_nan_ends_the_command_with_status_2(tmp_path, capsys):
    torch.save({name: torch.full_like(weight, torch.nan) for name, weight in practical().items()}, tmp_path / "nan.pt")
    command = ["convert", "mingpt", str(tmp_path / "nan.pt"), str(tmp_path / "out"), "--num_attention_heads", "2"]
    assert cli_minigpt.main(command) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith(f"error: {tmp_path / 'nan.pt'}: weight tok_emb.weight has values that are not fin")
    assert captured.out == ""
    assert not (tmp_path / "out").exists()


@pytest.mark.row("M17")
@pytest.mark.parametrize("broken", ["NaN", "missing"])
def test_a_broken_gpt2_is_refused(tmp_path, capsys, broken):
    """The library fills what is missing with random weights, and NaN is as good to it as any number."""
    from safetensors.torch import load_file, save_file
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(vocab_size=VOCABULARY, n_positions=CONTEXT, n_embd=WIDTH, n_layer=1, n_head=HEADS)
    GPT2LMHeadModel(config).save_pretrained(tmp_path / "gpt2")
    weights = load_file(tmp_path / "gpt2" / "model.safetensors")
    name = next(name for name in weights if name.endswith("mlp.c_fc.weight"))
    weights[name].fill_(torch.nan)
    if broken == "missing":
        del weights[name]
    save_file(weights, tmp_path / "gpt2" / "model.safetensors", {"format": "pt"})
    assert cli_minigpt.main(["convert", "gpt2", str(tmp_path / "gpt2"), str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert "mlp.c_fc.weight" in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.row("M17")
def test_a_file_in_the_place_of_the_folder_is_not_called_a_model(tmp_path, capsys):
    torch.save(practical(), tmp_path / "model.pt")
    (tmp_path / "out").write_text("mine")
    command = ["convert", "mingpt", str(tmp_path / "model.pt"), str(tmp_path / "out"), "--num_attention_heads", "2"]
    assert cli_minigpt.main(command) == 2
    assert "is a file" in capsys.readouterr().err
    assert (tmp_path / "out").read_text() == "mine"
