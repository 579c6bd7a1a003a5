"""The variant that docs/adding_an_attention.md builds is a full member, and one that is incomplete is refused by name.

All parametrised attention tests run it as well, since `tests.attention_variants` takes it from the page.
"""

import pytest
import torch

from benchmarks import attention_recall, attention_scaling
from benchmarks.attention_subjects import measure_point
from modeling_minigpt import MiniGPTForCausalLM, make_cache
from modeling_minigpt.attention_base_minigpt import LinearTimeAttention
from modeling_minigpt.attention_minigpt import ATTENTION_CLASSES
from tests.attention_variants import PAGE, VARIANTS, draw_tokens, tiny_config, tiny_model


def test_the_page_builds_a_variant_that_every_attention_test_runs():
    assert "running_mean" in VARIANTS
    assert type(tiny_model("running_mean").model.layers[0].self_attn).__name__ == "RunningMeanAttention"
    code = PAGE.read_text(encoding="utf-8").split("```python\n")[1].split("```")[0]
    assert len([line for line in code.splitlines() if line.strip()]) < 50  # it stays an example


def test_the_variant_of_the_page_learns():
    torch.manual_seed(0)
    model = MiniGPTForCausalLM(tiny_config("running_mean"))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    ids, losses = draw_tokens(4, 20), []
    for _ in range(30):
        loss = model(ids, labels=ids, use_cache=False).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def test_both_attention_benchmarks_measure_the_variant_of_the_page(tmp_path):
    arguments = attention_scaling.parse_arguments(["--subjects", "running_mean", "--lengths", "64", "--device", "cpu"])
    points = attention_scaling.plan(arguments)
    assert {point.task for point in points} == {"layer", "step", "decode"}
    for point in points:
        found = measure_point(point, "cpu", threads=1)
        assert all(measured["seconds"] > 0 for measured in found.values())
    options = ["--length", "256", "--tokens", "256", "--steps", "1", "1", "1", "1", "1", "--contexts", "1"]
    words = ["--subjects", "running_mean", *options, "--threads", "1", "--output", str(tmp_path / "recall.json")]
    assert attention_recall.main(words) == 0
    assert "running_mean" in (tmp_path / "recall.md").read_text(encoding="utf-8")


class WithoutCache(LinearTimeAttention):
    """A variant that names no cache layer: every token reads its own value."""

    def attend(self, query, key, value, *, state=None, lengths=None):
        return value


def test_a_class_that_names_no_cache_layer_raises_instead_of_decoding_with_anothers(monkeypatch):
    monkeypatch.setitem(ATTENTION_CLASSES, "without_cache", WithoutCache)
    model = tiny_model("without_cache", attention_type="without_cache")
    ids = draw_tokens(1, 6)
    assert model(ids, use_cache=False).logits.isfinite().all()
    for decode in (
        lambda: make_cache(model.config),
        lambda: model(ids, use_cache=True),
        lambda: model.generate(ids, max_new_tokens=2),
    ):
        with pytest.raises(NotImplementedError, match="WithoutCache names no cache layer"):
            decode()
