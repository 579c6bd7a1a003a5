"""What the recipes wikipedia cost: made-up articles for `data_scaling`, extrapolation, and a training step of each."""

from collections.abc import Mapping
from pathlib import Path

from benchmarks.harness import Point, Results, section, successes, write_number
from benchmarks.measurement import exponent
from benchmarks.training_steps import TrainingSteps
from benchmarks.wikipedia_rows import ARTICLES_A_PERSON, write_wikipedia
from configuration.recipe import load_recipe
from configuration.recipe_names import find_recipe
from configuration.schema import Recipe
from data_scripts.sources.wikidata import Facts

WIKIPEDIA = "wikipedia"
JOIN = "join"  # the phase, part of the preparation, that joins statements with labels
STEP = "step"  # the subject of points that time a training step
PEOPLE = {"wikipedia": 100_000, "wikipedia-1.5m": 1_500_000}  # of each recipe, one in five articles
# (recipe, number format): rows of the steps that are timed. 2,048 rows of the larger model would take minutes: their
# time is extrapolated from two smaller steps, as the optimizer takes the same for any number of rows.
TIMED = {("wikipedia", "no"): (256,), ("wikipedia", "bf16"): (256,), ("wikipedia-1.5m", "bf16"): (32, 128)}
STEPS = 3
GROWING = ("prepare", "tokenizer", "tokens", "statistics")  # phases whose cost depends on the number of people
STATEMENT_BYTES = 11e9  # of the statements and labels of RichardDelome/wikidata_truthy


def wikipedia_recipe(folder: Path, rows: int, name: str = WIKIPEDIA, **changes: object) -> Recipe:
    """Return a recipe for made-up articles, which are written to the folder where they are not there yet.

    Args:
        folder: of this number of rows; the corpus goes there, too.
        rows: number of articles.
        name: of the recipe.
        changes: of further keys, `section__key`.
    """
    made_up = folder / "made-up"
    if not (made_up / "wikidata" / "labels.parquet").is_file():
        write_wikipedia(made_up, rows)
    data = {
        "max_people": rows,  # so all, and one corpus for both recipes
        "path": made_up / "articles" / "enwiki" / "data",
        "statements": made_up / "wikidata",
        "calibration_questions": min(300, rows // 50),
        "withheld_people": min(300, rows // 50),
    }
    overrides = [f"data.{key}={value}" for key, value in data.items()]
    overrides += [f"{key.replace('__', '.')}={value}" for key, value in changes.items()]
    return load_recipe(find_recipe(name), [*overrides, f"prepare.folder={folder / 'corpus'}"])


def stored(folder: Path, phase: str) -> int | None:
    """Return the bytes of the files that a phase has left, or the join has read; None for another phase."""
    patterns = {"prepare": "corpus/**/*.*", "tokens": "*.arrow", JOIN: "made-up/wikidata/*.parquet"}
    return sum(path.stat().st_size for path in folder.glob(patterns[phase])) if phase in patterns else None


def join(folder: Path, recipe: Recipe) -> None:
    """Join the statements of the recipe's properties with the labels."""
    Facts(Path(str(recipe.data.statements)), sorted(recipe.data.properties.values()))


def join_line(results: Results) -> str:
    """Return what the join takes of the real statements, by the bytes of the largest size; empty if not measured."""
    found = {point.size: successes(rounds) for point, rounds in results.items() if point.subject == JOIN}
    if not any(found.values()):
        return ""
    joined = found[max(size for size in found if found[size])][0]
    seconds = joined["seconds"]
    minutes = STATEMENT_BYTES / joined["stored"] * seconds / 60
    return (
        f"The join alone read {joined['stored'] / 1e6:,.0f} MB of statements and labels in {seconds:.2f} CPU seconds. "
        f"At this rate the recipe's {STATEMENT_BYTES / 1e9:.0f} GB take {write_number(minutes)} CPU minutes."
    )


def step_points() -> list[Point]:
    """Return the points that time a training step."""
    return [Point(STEP, f"{name} {precision}", rows) for (name, precision), timed in TIMED.items() for rows in timed]


def measure_step(point: Point, folder: Path, articles: int) -> dict:
    """Time steps of a recipe's pretraining on the corpus of `articles` articles, without compiling."""
    name, precision = str(point.task).split()
    recipe = wikipedia_recipe(
        folder,
        articles,
        name,
        output=folder / f"{name}-{precision}",
        pretrain__batch_size=point.size,
        run__mixed_precision=precision,
        run__compile="false",
        run__trackers="[]",
    )
    steps = TrainingSteps(recipe)
    tokens = [steps.batches[step]["input_ids"].numel() / point.size for step in range(recipe.pretrain.bucket_batches)]
    return {
        "step_seconds": min(steps.seconds(1, STEPS)),
        "parameters": steps.model.num_parameters(),
        "tokens": sum(tokens) / len(tokens),  # of a row, padding included
    }


def extrapolate(values: Mapping[int, float], size: float) -> float:
    """Return a cost at a larger size, by the slope between the two largest.

    A cost is a constant and something for each row. An exponent over all sizes would give too little, since at the
    small ones the constant is most.
    """
    before, last = sorted(values)[-2:]
    slope = (values[last] - values[before]) / (last - before)
    return values[last] + max(0.0, slope) * (size - last)


def extrapolate_by_exponent(values: Mapping[int, float], size: float) -> float:
    """Return peak memory at a larger size, by the exponent: it grows by ever less, until batches are full."""
    sizes = sorted(values)
    power = exponent(sizes, [max(1.0, values[one]) for one in sizes])[0]  # a phase may need no more than was in use
    return values[sizes[-1]] * (size / sizes[-1]) ** max(0.0, power)


def extrapolation_section(
    seconds: Mapping[str, Mapping[int, float]],
    memory: Mapping[str, Mapping[int, float]],
    stored: Mapping[str, Mapping[int, float]],
) -> str:
    """Return what the phases that grow with the articles are expected to take at the recipes' sizes.

    Args:
        seconds, memory, stored: by phase, the CPU seconds and bytes of each number of articles.
    """
    rows = []
    for what, table, scale, expect in (
        ("CPU minutes", seconds, 1 / 60, extrapolate),
        ("peak memory over the start, MB", memory, 1e-6, extrapolate_by_exponent),
        ("on the disk, MB", stored, 1e-6, extrapolate),
    ):
        for phase in GROWING:
            if len(values := table.get(phase, {})) > 2:
                sizes = [people * ARTICLES_A_PERSON for people in PEOPLE.values()]
                rows.append([phase, what, *(write_number(scale * expect(values, size)) for size in sizes)])
    columns = ["phase", "what", *(f"{people:,} people" for people in PEOPLE.values())]
    how = "Times and files by the slope between the two largest sizes, memory by the exponent p.\n\n"
    return section("Expected at the recipes' sizes", columns, rows).replace("|", f"{how}|", 1)


def step_section(results: Results) -> str:
    """Return what a training step takes, and all steps of its recipe; empty where none was timed."""
    timed: dict[str, dict[int, dict]] = {}
    for point, rounds in results.items():
        if point.subject == STEP and (found := successes(rounds)):
            timed.setdefault(str(point.task), {})[point.size or 0] = found[0]
    rows = []
    for task, by_rows in timed.items():
        name, precision = task.split()
        stage = load_recipe(find_recipe(name)).pretrain
        seconds = {size: result["step_seconds"] for size, result in by_rows.items()}
        if stage.batch_size not in seconds and len(seconds) < 2:  # the other one is still to be timed
            continue
        expected = seconds[stage.batch_size] if stage.batch_size in seconds else extrapolate(seconds, stage.batch_size)
        largest = by_rows[max(by_rows)]
        flop = 6 * largest["parameters"] * largest["tokens"] * stage.batch_size * stage.steps
        rows.append(
            [
                f"`{name}`",
                "float32" if precision == "no" else precision,
                f"{largest['parameters'] / 1e6:.1f} M",
                f"{largest['tokens']:.0f}",
                ", ".join(f"{size}: {write_number(value)}" for size, value in sorted(seconds.items())),
                write_number(expected),
                f"{stage.steps:,} of {stage.batch_size:,} rows",
                write_number(stage.steps * expected / 3600),
                f"{flop:.1e}",
            ]
        )
    columns = ["recipe", "format", "parameters", "tokens per row", "rows: seconds", "seconds per step", "steps"]
    return section("Training", [*columns, "hours", "FLOP"], rows)
