"""The report and the figure of `block_choice`, from its results alone."""

from pathlib import Path
from statistics import fmean

from benchmarks.harness import results_of, section, write_report
from benchmarks.measurement import name_machine
from evaluation.plots import new_figure, save_figure
from evaluation.tables import percent

RULES = {"best": "most attention", "box": "boxes of keys", "mean": "mean keys", "random": "random (BigBird's)"}
COLORS = {"best": "black", "box": "C0", "mean": "C1", "random": "C2"}


def values_of(rows: list[dict], **wanted) -> dict[str, dict]:
    """Return the rows with some values, each by its rule."""
    return {row["rule"]: row for row in rows if all(row[name] == value for name, value in wanted.items())}


def heads_of(rows: list[dict]) -> list[tuple[int, int]]:
    """Return layer and head of every head."""
    return sorted({(row["layer"], row["head"]) for row in rows})


def finding_head(rows: list[dict], layer: int) -> int:
    """Return the head of a layer whose attention finds the fact most often, over all numbers of blocks."""
    shares = {
        head: fmean(row["found"] for row in rows if (row["layer"], row["head"], row["rule"]) == (layer, head, "best"))
        for one, head in heads_of(rows)
        if one == layer
    }
    return max(shares, key=lambda head: shares[head])


def tables(name: str, rows: list[dict]) -> list[str]:
    """Return a section for each number of blocks: mass and facts found by rule, head by head."""
    counts = sorted({row["blocks"] for row in rows})
    columns = ["layer.head", *(f"mass, {rule}" for rule in RULES), *(f"found, {rule}" for rule in RULES)]
    sections = []
    for count in counts:
        lines = []
        for layer, head in heads_of(rows):
            by_rule = values_of(rows, layer=layer, head=head, blocks=count)
            cells = [percent(by_rule[rule][what]) for what in ("mass", "found") for rule in RULES]
            lines.append([f"{layer}.{head}", *cells])
        heading = f"{name}: the window and {count} block{'' if count == 1 else 's'}"
        sections.append(section(heading, columns, lines))
    return sections


def report(content: dict) -> str:
    """Return the results as Markdown."""
    sections = []
    for point, (found,) in results_of(content).items():
        about = f"**{point}**: {found['questions']} questions in {found['texts']} texts"
        if found.get("right") is not None:
            about += f", {percent(found['right'])} of all answers in them right"
        sections += [f"{about}.", *tables(str(point), found["rows"])]
    rules = "; ".join(f"{rule}: {what}" for rule, what in RULES.items())
    introduction = (
        f"Full attention, and what of it is in the window of {content['window']} blocks of {content['block']} tokens "
        f"and in as many blocks before as a rule chooses ({rules}). Mass: the share of a head's weights, over queries "
        f"with more blocks to choose from than {max(content['counts'])}. Found: how often the block with the fact is "
        f"chosen where its answer is read, of facts before the window. {name_machine(content['machine'])}."
    )
    return write_report("What a choice of blocks finds", introduction, *sections)


def draw(content: dict, path: Path) -> None:
    """Draw mass, a mean over heads, and facts found, by the head that finds most, against blocks, layer by layer."""
    ((found,),) = results_of(content).values()
    rows = found["rows"]
    layers = sorted({row["layer"] for row in rows})
    counts = sorted({row["blocks"] for row in rows})
    figure, axes = new_figure(2, len(layers), width=3.6 * len(layers) + 1.6, height=6.4)
    for (above, below), layer in zip(axes.reshape(2, -1).T, layers, strict=True):
        head = finding_head(rows, layer)
        for rule, label in RULES.items():
            own = [row for row in rows if row["layer"] == layer and row["rule"] == rule]
            masses = [100 * fmean(row["mass"] for row in own if row["blocks"] == count) for count in counts]
            shares = [100 * row["found"] for count in counts for row in own
                      if (row["head"], row["blocks"]) == (head, count)]  # fmt: skip
            above.plot(counts, masses, "o-", color=COLORS[rule], label=label, ms=4)
            below.plot(counts, shares, "o-", color=COLORS[rule], ms=4)
        above.set(title=f"layer {layer}", ylabel="mass, %, mean over heads", ylim=(-3, 103))
        below.set(xlabel="blocks chosen", ylabel=f"facts found by head {layer}.{head}, %", ylim=(-3, 103))
        for plot in (above, below):
            plot.grid(alpha=0.3)
    figure.legend(
        *axes.flat[0].get_legend_handles_labels(), loc="outside right upper", frameon=False, fontsize="small"
    )
    save_figure(figure, path)
