"""The table by which to choose a variant: it is what the committed results give, and a dash is what they lack."""

from benchmarks.attention_scaling import SDPA
from benchmarks.choosing_attention import PAGE, choosing_table, main, page_with_table


def read(length, recall, scaling="none"):
    """Return an invented score."""
    found = {"questions": 40, "recall": recall, "plus_minus": 0.05}
    return {"length": length, "scaling": scaling, **found, "by_distance": [{"above": 0, "to": length, **found}]}


def recalled(subject, *reads, seed=0, task="people"):
    """Return an invented point of the recall benchmark."""
    return {"subject": subject, "task": task, "seed": seed, "rounds": [{"loss": 0.1, "reads": list(reads)}]}


def timed(subject, power, cache_power):
    """Return invented points of the scaling benchmark: values that are powers of the length."""
    points = []
    for length in (512, 1024, 2048, 4096, 8192, 16384):
        layer = {"seconds": 1e-3 * (length / 512) ** power, "bytes": 2**20 * length / 512}
        points.append(
            {
                "subject": subject,
                "task": "layer",
                "size": length,
                "rounds": [{"forward": layer, "forward+backward": layer}],
            }
        )
        decode = {"seconds": 0.002, "bytes": 2**20 * (length / 512) ** cache_power}
        points.append({"subject": subject, "task": "decode", "size": length, "rounds": [{"decode": decode}]})
    return points


def rows_of(recall, scaling):
    """Return the cells of the table's rows, by their first."""
    header, _, *lines = choosing_table({"length": 128, "points": recall}, {"points": scaling}).strip().splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return header, {row[0].strip("`"): row[1:] for row in rows}


def test_a_row_has_recall_speed_exponents_and_what_a_cache_does():
    reads = (read(128, 0.9), read(512, 0.2), read(512, 0.5, "yarn"))
    recall = [
        recalled("selected", *reads),
        recalled("selected", read(128, 0.8), read(512, 0.2), read(512, 0.5, "yarn"), seed=1),
        recalled("vanilla", *reads),
        recalled("vanilla", read(128, 0.1), task="mqar"),
    ]
    header, rows = rows_of(recall, [*timed(SDPA, 2, 1), *timed("selected", 1, 0)])
    assert list(rows) == ["vanilla", "selected"]
    found = ["85.0 % (80.0–90.0)", "20.0 % (20.0–20.0)", "50.0 % (50.0–50.0)"]
    assert rows["selected"] == [*found, "32.0", "1.00", "1.00", "2.0", "1, constant"]
    assert rows["vanilla"] == [
        "90.0 % ± 5.0",
        "20.0 % ± 5.0",
        "50.0 % ± 5.0",
        "1.0",
        "2.00",
        "1.00",
        "2.0",
        "32, grows",
    ]
    for words in ("recall at 128 tokens", "at 512", "fast as vanilla at 16,384", "after 16,384"):
        assert words in header


def test_what_was_not_measured_is_a_dash():
    header, rows = rows_of([recalled("linformer", read(128, 0.1))], [])
    assert rows == {"vanilla": ["–"] * 8, "linformer": ["10.0 % ± 5.0", *["–"] * 7]}
    assert "beyond" in header


def test_the_page_shows_what_the_committed_results_say():
    text = PAGE.read_text(encoding="utf-8")
    assert page_with_table(text) == text
    assert main(["--check"]) == 0
