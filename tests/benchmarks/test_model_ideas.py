"""Ideas that the ablations try: each changes what it says, decodes as it reads, and is gone afterwards."""

import pytest
import torch

from benchmarks.model_ideas import IDEAS, NgramEmbedding, ShortConvolution
from training import optimizers

KELLER_JORDAN = (3.4445, -4.775, 2.0315)
OF_MUON = ("Muon, four iterations", "Polar Express")
OF_THE_MODEL = [name for name in IDEAS if name not in OF_MUON]


def trained_a_little(model):
    """Return the model after some steps, so that what starts at zero no longer is."""
    ids = torch.arange(2, 26).reshape(2, 12)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(3):
        model(ids, labels=ids, use_cache=False).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model.eval()


@pytest.mark.parametrize("name", OF_THE_MODEL)
def test_an_idea_adds_weights_that_learn_and_are_saved_and_loaded(tiny_model, name, tmp_path):
    plain = sum(parameter.numel() for parameter in tiny_model().parameters())
    ids = torch.arange(2, 14)[None]
    with IDEAS[name]():
        model = trained_a_little(tiny_model())
        assert sum(parameter.numel() for parameter in model.parameters()) > plain
        model.save_pretrained(tmp_path)
        with torch.no_grad():
            expected = model(ids, use_cache=False).logits
            found = type(model).from_pretrained(tmp_path)(ids, use_cache=False).logits
    torch.testing.assert_close(found, expected)
    assert sum(parameter.numel() for parameter in tiny_model().parameters()) == plain


@pytest.mark.parametrize("name", OF_THE_MODEL)
@torch.no_grad()
def test_token_by_token_the_logits_are_those_of_the_whole_text(tiny_model, name):
    with IDEAS[name](), torch.enable_grad():
        model = trained_a_little(tiny_model())
    with IDEAS[name]():
        ids = torch.arange(2, 22).reshape(2, 10)
        expected = model(ids, use_cache=False).logits
        outputs = model(ids[:, :4], use_cache=True)
        logits = [outputs.logits]
        for column in range(4, 10):
            outputs = model(ids[:, column : column + 1], past_key_values=outputs.past_key_values, use_cache=True)
            logits.append(outputs.logits)
    torch.testing.assert_close(torch.cat(logits, dim=1), expected, rtol=1e-4, atol=1e-5)


def test_an_ngram_is_embedded_by_its_tokens_in_their_order():
    embedding = NgramEmbedding(50, 8, filler=0)
    ids = torch.tensor([[5, 6, 7, 9, 5, 6, 7], [6, 5, 7, 9, 4, 6, 7]])
    first, second = embedding(ids)
    torch.testing.assert_close(first[6], embedding(torch.tensor([[1, 5, 6, 7]]))[0, 3])
    assert not first[2].allclose(second[2])  # 5 6 7 is not 6 5 7
    assert not first[6].allclose(second[6])  # 5 6 7 is not 4 6 7


def test_a_short_convolution_starts_as_nothing_and_never_looks_ahead():
    convolution = ShortConvolution(8)
    states = torch.randn(2, 10, 8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(convolution(states), states)
    torch.nn.init.normal_(convolution.taps)
    changed = states.clone()
    changed[:, 6:] += 1.0
    torch.testing.assert_close(convolution(changed)[:, :6], convolution(states)[:, :6])
    assert not convolution(changed)[:, 6:].allclose(convolution(states)[:, 6:])


@pytest.mark.parametrize("shape", [(16, 16), (16, 64), (64, 16)], ids=str)
def test_polar_express_comes_nearer_to_an_orthogonal_matrix(shape):
    matrices = torch.randn(3, *shape, generator=torch.Generator().manual_seed(0))
    plain = optimizers.orthogonalize(matrices, KELLER_JORDAN, 5, 1e-7)
    with IDEAS["Polar Express"]():
        ours = optimizers.orthogonalize(matrices, KELLER_JORDAN, 5, 1e-7)
    distances = [(torch.linalg.svdvals(found) - 1).abs().mean() for found in (plain, ours)]
    assert distances[1] < 0.6 * distances[0]


def test_four_iterations_are_one_fewer_than_muons():
    matrices = torch.randn(2, 16, 40, generator=torch.Generator().manual_seed(0))
    four = optimizers.orthogonalize(matrices, KELLER_JORDAN, 4, 1e-7)
    with IDEAS["Muon, four iterations"]():
        assert torch.equal(optimizers.orthogonalize(matrices, KELLER_JORDAN, 5, 1e-7), four)
    assert not torch.equal(optimizers.orthogonalize(matrices, KELLER_JORDAN, 5, 1e-7), four)
