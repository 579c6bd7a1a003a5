"""The model's forward and backward: causality, masks, kernels, the loss, positions, tied weights, initialisation."""

import pytest
import torch
from torch.testing import assert_close

from modeling_minigpt import MiniGPTForCausalLM

CLOSE = {"atol": 1e-5, "rtol": 1e-5}
KERNELS = ["eager", "sdpa"]


def pad_left(rows: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Stack rows of token ids into (B, T), zeros on the left, with their attention mask."""
    ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_side="left")
    return ids, (ids != 0).long()


def loss_and_gradients(model: MiniGPTForCausalLM, **inputs) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Return the loss and the gradient of every parameter."""
    model.zero_grad()
    loss = model(**inputs).loss
    loss.backward()
    return loss.detach(), {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("start", [1, 5, 10])
def test_later_tokens_do_not_reach_earlier_logits(model, tokens, start):
    ids = tokens(2, 11)
    changed = ids.clone()
    changed[:, start:] = (ids[:, start:] - 2 + 7) % 62 + 2
    before, after = model(ids).logits, model(changed).logits
    assert_close(after[:, :start], before[:, :start], **CLOSE)
    assert (after[:, start:] - before[:, start:]).abs().amax(-1).min() > 1e-2


def test_order_of_earlier_tokens_matters(model, tokens):
    ids = tokens(1, 8)
    swapped = ids[:, [1, 0, *range(2, 8)]]
    assert (model(swapped).logits[:, -1] - model(ids).logits[:, -1]).abs().max() > 1e-3


@pytest.mark.parametrize("kernel", KERNELS)
def test_left_padding_changes_no_real_logits(model, tokens, kernel):
    model.set_attn_implementation(kernel)
    rows = [tokens(length, seed=length) for length in (3, 6, 9)]
    ids, mask = pad_left(rows)
    for row, logits in zip(rows, model(ids, attention_mask=mask).logits, strict=True):
        assert_close(logits[-len(row) :], model(row[None]).logits[0], **CLOSE)


def test_right_padding_without_mask_changes_no_earlier_logits(model, tokens):
    ids = tokens(2, 7)
    padded = torch.nn.functional.pad(ids, (0, 4), value=0)
    assert_close(model(padded).logits[:, :7], model(ids).logits, **CLOSE)


@pytest.mark.parametrize("padded", [False, True], ids=["full", "left-padded"])
def test_eager_and_sdpa_agree(model, tokens, padded):
    ids, mask = pad_left([tokens(11), tokens(4 if padded else 11, seed=1)])
    labels = ids.masked_fill(mask.cumsum(-1) < 2, -100)  # nothing real predicts a row's first token
    found = {}
    for kernel in KERNELS:
        model.set_attn_implementation(kernel)
        logits = model(ids, attention_mask=mask).logits[mask == 1]
        found[kernel] = (logits, *loss_and_gradients(model, input_ids=ids, attention_mask=mask, labels=labels))
    assert_close(found["eager"], found["sdpa"], **CLOSE)


def test_gradient_checkpointing_changes_no_gradient(tiny_model, tokens, variant):
    model = tiny_model(variant, residual_dropout=0.1, attention_dropout=0.1).train()
    forwards = []
    model.model.layers[0].mlp.register_forward_hook(lambda *_: forwards.append(1))
    ids = tokens(2, 9)
    torch.manual_seed(1)
    plain = loss_and_gradients(model, input_ids=ids, labels=ids)
    assert len(forwards) == 1
    model.gradient_checkpointing_enable()
    torch.manual_seed(1)
    checkpointed = loss_and_gradients(model, input_ids=ids, labels=ids)
    assert len(forwards) == 3
    assert_close(checkpointed, plain, **CLOSE)


@pytest.mark.parametrize("keep", [1, 3, torch.tensor([0, 4, 5])], ids=["last", "last-three", "indices"])
def test_logits_to_keep_selects_positions(model, tokens, keep):
    ids = tokens(2, 8)
    wanted = model(ids).logits[:, -keep:] if isinstance(keep, int) else model(ids).logits[:, keep]
    assert_close(model(ids, logits_to_keep=keep).logits, wanted, **CLOSE)


@pytest.mark.parametrize("items", [None, 40], ids=["mean", "sum-over-40"])
def test_loss_is_shifted_cross_entropy_over_real_labels(model, tokens, items):
    ids = tokens(2, 9)
    labels = ids.clone()
    labels[0, :4] = -100
    labels[1, 6] = -100
    log_probabilities = model(ids).logits.log_softmax(-1)
    terms = [
        -log_probabilities[row, place - 1, labels[row, place]]
        for row in range(2)
        for place in range(1, 9)
        if labels[row, place] != -100
    ]
    assert len(terms) == 12
    extra = {} if items is None else {"num_items_in_batch": items}
    assert_close(model(ids, labels=labels, **extra).loss, torch.stack(terms).sum() / (items or len(terms)), **CLOSE)


def test_hidden_states_and_attentions_are_recorded(model, tokens):
    model.set_attn_implementation("eager")
    ids = tokens(2, 7)
    outputs = model(ids, output_hidden_states=True, output_attentions=True)
    assert [states.shape for states in outputs.hidden_states] == [(2, 7, 32)] * 3
    assert_close(model.lm_head(outputs.hidden_states[-1]), outputs.logits, **CLOSE)
    assert [weights.shape for weights in outputs.attentions] == [(2, 4, 7, 7)] * 2
    for weights in outputs.attentions:
        assert_close(weights.sum(-1), torch.ones(2, 4, 7), **CLOSE)
        assert weights.triu(1).abs().max() == 0
    plain = model(ids)
    assert (plain.hidden_states, plain.attentions) == (None, None)


def test_outputs_come_as_a_tuple_on_request(model, tokens):
    ids = tokens(1, 5)
    assert_close(model(ids, return_dict=False)[0], model(ids).logits, **CLOSE)


def test_embeddings_may_be_given_instead_of_ids(model, tokens):
    ids = tokens(2, 7)
    assert_close(model(inputs_embeds=model.get_input_embeddings()(ids)).logits, model(ids).logits, **CLOSE)


@pytest.mark.parametrize("both", [False, True], ids=["neither", "both"])
def test_exactly_one_input_is_demanded(model, tokens, both):
    ids = tokens(1, 4)
    inputs = {"input_ids": ids, "inputs_embeds": model.get_input_embeddings()(ids)} if both else {}
    with pytest.raises(ValueError, match="exactly one"):
        model(**inputs)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(
    ("training", "extra"),
    [
        pytest.param(False, {"use_cache": False}, id="no-cache"),
        pytest.param(False, {}, id="as-called"),
        pytest.param(True, {}, id="training"),
    ],
)
def test_packed_examples_do_not_see_each_other(model, tokens, kernel, training, extra):
    model.set_attn_implementation(kernel)
    model.train(training)
    first, second = tokens(1, 4), tokens(1, 5, seed=1)
    positions = torch.tensor([[0, 1, 2, 3, 0, 1, 2, 3, 4]])
    logits = model(torch.cat((first, second), dim=1), position_ids=positions, **extra).logits
    assert_close(logits[:, :4], model(first).logits, **CLOSE)
    assert_close(logits[:, 4:], model(second).logits, **CLOSE)


def test_learned_positions_end_at_their_limit(tiny_model, tokens):
    model = tiny_model("learned")
    assert model(tokens(1, 32)).logits.isfinite().all()
    with pytest.raises(ValueError, match=r"end at 32 tokens, found position 32"):
        model(tokens(1, 33))


def test_learned_position_ids_past_the_limit_are_refused(tiny_model, tokens):
    with pytest.raises(ValueError, match="32"):
        tiny_model("learned")(tokens(1, 2), position_ids=torch.tensor([[31, 32]]))


def test_rotary_positions_go_on_past_the_training_context(tiny_model, tokens):
    model = tiny_model("rotary")
    ids = tokens(1, 40)
    logits = model(ids).logits
    assert logits.isfinite().all()
    assert_close(logits[:, :32], model(ids[:, :32]).logits, **CLOSE)


def test_rotary_attention_depends_on_distances_only(tiny_model, tokens):
    model = tiny_model("rotary")
    ids = tokens(1, 8)
    moved = model(ids, position_ids=torch.arange(5, 13)[None]).logits
    assert_close(moved, model(ids).logits, **CLOSE)


def test_tied_weights_stay_one_through_saving(tiny_model, tokens, tmp_path, variant):
    model = tiny_model(variant, tie_word_embeddings=True)
    assert model.num_parameters() == tiny_model(variant).num_parameters() - 64 * 32
    model.save_pretrained(tmp_path)
    reloaded = MiniGPTForCausalLM.from_pretrained(tmp_path)
    assert reloaded.lm_head.weight is reloaded.model.embed_tokens.weight
    ids = tokens(2, 6)
    assert torch.equal(reloaded(ids).logits, model(ids).logits)


def test_reload_is_bitwise_equal(model, tokens, tmp_path):
    model.save_pretrained(tmp_path)
    reloaded = MiniGPTForCausalLM.from_pretrained(tmp_path)
    assert not reloaded.training
    for kind in ("named_parameters", "named_buffers"):
        saved, loaded = dict(getattr(model, kind)()), dict(getattr(reloaded, kind)())
        assert saved.keys() == loaded.keys()
        assert [name for name in saved if not torch.equal(saved[name], loaded[name])] == []
    ids = tokens(2, 9)
    assert torch.equal(reloaded(ids).logits, model(ids).logits)


def test_weights_absent_from_a_checkpoint_are_initialised(tiny_config, variant):
    config = tiny_config(variant, zero_init_residual=False)
    model = MiniGPTForCausalLM.from_pretrained(None, config=config, state_dict={})
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            assert (parameter == 0).all(), name
        elif name.endswith("norm.weight"):
            assert (parameter == 1).all(), name
        elif "embed_positions" not in name:
            assert 0.018 < parameter.std() < 0.022, name
    for name, buffer in model.named_buffers():
        assert_close(buffer, 10000.0 ** -(torch.arange(4) / 4), msg=name)


@pytest.fixture(params=["constructed", "absent-from-checkpoint"])
def fresh(request):
    """Make a model with initial weights, by its constructor or as loading does for weights that a folder lacks."""

    def make(config):
        if request.param == "constructed":
            return MiniGPTForCausalLM(config).eval()
        return MiniGPTForCausalLM.from_pretrained(None, config=config, state_dict={})

    return make


def test_learned_positions_start_as_no_information(fresh, tiny_config):
    assert (fresh(tiny_config("learned")).model.embed_positions.weight == 0).all()


def test_zero_init_residual_starts_as_the_identity(fresh, tiny_config, tokens, variant):
    model = fresh(tiny_config(variant, zero_init_residual=True))
    embedded, after_first, last = model(tokens(2, 6), output_hidden_states=True).hidden_states
    assert torch.equal(after_first, embedded)
    assert_close(last, model.model.norm(embedded), **CLOSE)


def test_blocks_work_from_the_start_without_zero_init(fresh, tiny_config, tokens, variant):
    model = fresh(tiny_config(variant, zero_init_residual=False))
    embedded, after_first, _ = model(tokens(2, 6), output_hidden_states=True).hidden_states
    assert not torch.equal(after_first, embedded)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("field", ["embedding_dropout", "attention_dropout", "residual_dropout"])
def test_dropout_acts_in_training_only(tiny_model, tokens, field, kernel):
    ids = tokens(2, 9)
    model, plain = tiny_model(**{field: 0.3}), tiny_model()
    model.set_attn_implementation(kernel)
    assert_close(model(ids).logits, plain(ids).logits, **CLOSE)
    assert_close(plain.train()(ids).logits, plain.eval()(ids).logits, **CLOSE)
    assert (model.train()(ids).logits - plain(ids).logits).abs().max() > 1e-2


@pytest.mark.parametrize("silenced", ["o_proj", "down_proj"], ids=["mlp", "attention"])
def test_residual_dropout_acts_on_both_branches(tiny_model, tokens, silenced):
    model = tiny_model(residual_dropout=0.3)
    for name, parameter in model.named_parameters():
        if silenced in name:
            torch.nn.init.zeros_(parameter)
    ids = tokens(2, 9)
    evaluated = model(ids).logits
    assert (model.train()(ids).logits - evaluated).abs().max() > 1e-2


def test_only_safetensors_are_saved(model, tmp_path):
    model.save_pretrained(tmp_path)
    files = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert {"config.json", "model.safetensors"} <= files
    assert {name.rsplit(".", 1)[-1] for name in files} <= {"json", "safetensors", "py"}


def test_bfloat16_is_finite_and_close(model, tokens):
    ids = tokens(2, 9)
    wanted = model(ids).logits
    outputs = model.to(torch.bfloat16)(ids, labels=ids)
    assert outputs.logits.dtype == torch.bfloat16
    assert outputs.loss.isfinite()
    assert (outputs.logits.float() - wanted).abs().max() < 0.05 * wanted.abs().max()


def test_compiled_forward_equals_eager(model, tokens):
    ids = tokens(2, 9)
    torch.compiler.reset()
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    with torch.no_grad():
        assert_close(compiled(ids, use_cache=False).logits, model(ids).logits, **CLOSE)
