"""The page for choosing a variant: its table is what the results say, and its words about other libraries are true."""

from contextlib import nullcontext

import pytest
import torch

from benchmarks import variant_table
from benchmarks.variant_table import PAGE, TYPES, choosing_table, with_table
from tests.attention_variants import draw_tokens, tiny_model
from tests.neighbours.test_inference_libraries import WITHOUT_ONNX

LENGTHS = [64, 128, 256, 512, 1024]


def recall(*points):
    """Return an invented record of recall, of models trained on 128 tokens."""
    return {"length": 128, "points": list(points)}


def recalled(subject, seed, **by_length):
    """Return an invented point; keyword `at_128` has the recall in contexts of 128 tokens, `yarn_512` by YaRN."""
    reads = []
    for name, share in by_length.items():
        scaling, length = name.split("_")
        read = {"length": int(length), "scaling": "none" if scaling == "at" else scaling}
        reads.append({**read, "questions": 40, "recall": share, "by_distance": []})
    return {"subject": subject, "task": "people", "seed": seed, "rounds": [{"reads": reads}]}


def scaling(subject, seconds, cache, lengths=tuple(LENGTHS)):
    """Return invented points: seconds of training and bytes of the cache at each length, by two functions of it."""
    points = []
    for size in lengths:
        training = {"forward+backward": {"seconds": seconds(size), "bytes": 1000 * size}}
        decoding = {"decode": {"seconds": 0.002, "bytes": cache(size)}}
        for task, found in (("layer", training), ("decode", decoding)):
            points.append({"subject": subject, "task": task, "size": size, "rounds": [found, found, found]})
    return points


def cells(text, label):
    """Return the cells of a row by their headings."""
    heading, _, *lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()]
    (row,) = [line for line in lines if line[0] == label]
    return dict(zip(heading, row, strict=True))


def test_the_page_shows_the_committed_results():
    text = PAGE.read_text(encoding="utf-8")
    assert with_table(text) == text


def test_an_outdated_page_is_noticed_and_written_again(tmp_path, monkeypatch):
    page = tmp_path / "attention.md"
    page.write_text(PAGE.read_text(encoding="utf-8").replace("| `window` |", "| `windows` |"), encoding="utf-8")
    monkeypatch.setattr(variant_table, "PAGE", page)
    assert variant_table.main(["--check"]) == 1
    assert variant_table.main([]) == 0
    assert variant_table.main(["--check"]) == 0
    assert "| `window` |" in page.read_text(encoding="utf-8")


def test_a_row_has_recall_over_seeds_and_costs_against_causal_sdpa():
    points = [
        *scaling("vanilla, SDPA", lambda n: 1e-6 * n**2, lambda n: n * 2**20),
        *scaling("window", lambda n: 1e-4 * n, lambda n: 2**19),
    ]
    text = choosing_table(
        recall(
            recalled("window", 0, at_128=0.2, at_512=0.1, yarn_512=0.3),
            recalled("window", 1, at_128=0.4, at_512=0.1, yarn_512=0.3),
            recalled("window above vanilla", 0, at_128=0.9),
        ),
        {"points": points},
    )
    window = cells(text, "`window`")
    assert window["recall, 128 tokens"] == "30.0 % (20.0–40.0)"
    assert window["recall, 512"] == "10.0 % (10.0–10.0)"
    assert window["recall, 512, YaRN"] == "30.0 % (30.0–30.0)"
    assert window["training time over SDPA's at 1,024"] == "0.0977"
    assert (window["its exponent"], window["exponent of memory"]) == ("1.00", "1.00")
    assert window["decoding at 1,024, ms per token"] == "2"
    assert (window["cache, MiB"], window["constant"]) == ("0.5", "yes")
    vanilla = cells(text, "`vanilla`")
    assert (vanilla["recall, 128 tokens"], vanilla["its exponent"]) == ("–", "2.00")
    assert (vanilla["cache, MiB"], vanilla["constant"]) == ("1,024", "no")
    hybrid = cells(text, "window above vanilla")
    assert hybrid.pop("recall, 128 tokens") == "90.0 % (76.9–96.0)"
    assert set(list(hybrid.values())[1:]) == {"–"}


def test_costs_are_compared_at_the_longest_length_that_all_variants_reach():
    points = [
        *scaling("vanilla, SDPA", lambda n: 1e-6 * n**2, lambda n: n),
        *scaling("selected", lambda n: 1e-4 * n, lambda n: n, lengths=[64, 128]),
        *scaling("transformers' BigBird (leaks)", lambda n: n, lambda n: n, lengths=[64]),
    ]
    text = choosing_table(recall(), {"points": points})
    row = cells(text, "`selected`")
    assert row["training time over SDPA's at 128"] == "0.781"
    assert row["its exponent"] == "–"
    assert "recall, 128 tokens" in row
    assert "BigBird (leaks)" not in text


def test_without_results_every_variant_is_a_row_of_dashes():
    text = choosing_table(recall(), {"points": []})
    for variant in TYPES:
        assert set(list(cells(text, f"`{variant}`").values())[1:]) == {"–"}


def support(variant):
    """Return the page's row on other libraries of a variant."""
    text = PAGE.read_text(encoding="utf-8")
    return cells(text[text.index("| `attention_type` | packed rows") :].split("\n\n")[0], f"`{variant}`")


@pytest.mark.parametrize("variant", TYPES)
def test_the_page_says_what_works_with_a_variant(variant):
    row = support(variant)
    model = tiny_model(variant)
    packed = torch.tensor([[0, 1, 2, 3, 0, 1, 2, 3]])  # two texts
    refused = pytest.raises(ValueError, match="packed examples need")
    with nullcontext() if row["packed rows"] == "yes" else refused:
        model(draw_tokens(1, 8), position_ids=packed, use_cache=False)
    assert row["ONNX"] == ("no" if variant in WITHOUT_ONNX else "yes")
    assert row["assisted decoding"].startswith("no") == model._is_stateful


def test_bigbird_is_assisted_with_random_rows_alone():
    assert support("bigbird")["assisted decoding"] == "with random rows"
    assert tiny_model("bigbird-reservoir")._is_stateful
