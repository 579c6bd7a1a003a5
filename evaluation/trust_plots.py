"""Plots of how far answers can be trusted: risk and coverage, reliability, strangers, what can be certified.

Curves differ in marker or dashes as well as in colour, so that they can be told apart in print and by everybody.
"""

from collections.abc import Sequence
from pathlib import Path

from evaluation.plots import BLUE, GREEN, ORANGE, PINK, error_bars, label_percent, new_figure, save_figure
from evaluation.popularity import wilson_interval
from evaluation.trust import EvaluatedAnswers
from evaluation.trust_metrics import risk_coverage

GROUPS = {  # group: label, colour, dashes
    "known": ("known", BLUE, "-"),
    "made_up": ("made-up", ORANGE, "--"),
    "withheld": ("withheld", GREEN, ":"),
}
HEADS = {"correct": (BLUE, "o"), "known": (ORANGE, "s")}
RISK_STYLES = ((BLUE, "o", "-"), (ORANGE, "s", "--"), (GREEN, "^", ":"))
FREE = 1.25  # of an axis from 0 to 1: room for the legend above the curves


def plot_trade(axes, rows: Sequence[dict]) -> None:
    """Draw how many people can be answered against how many strangers may be, a line for each risk."""
    for number, risk in enumerate(sorted({row["risk"] for row in rows})):
        points = [(row["stranger_rate"], row["answered"]) for row in rows if row["risk"] == risk]
        rates, answered = zip(*((rate, 0.0 if share is None else share) for rate, share in points), strict=True)
        color, marker, dashes = RISK_STYLES[number % len(RISK_STYLES)]
        label = f"at most {100 * risk:g} % wrong"
        axes.plot(rates, answered, color=color, marker=marker, linestyle=dashes, label=label)
    ticks = sorted({row["stranger_rate"] for row in rows})
    axes.set(xscale="log", xlabel="strangers who may get an answer", ylabel="people answered", ylim=(0, 1.02))
    axes.set_xticks(ticks, [f"{100 * rate:g} %" for rate in ticks], fontsize="small")
    label_percent(axes.yaxis)
    axes.minorticks_off()
    axes.legend(frameon=False)


def plot_risk(axes, asked: EvaluatedAnswers, trust: dict) -> None:
    """Draw risk against coverage, and what the certified thresholds answer, with the 95 % interval of its risk."""
    axes.plot(*risk_coverage(asked.chances("known", "score"), asked.right), color=BLUE, label="most confident first")
    if trust["answered"]:
        risk = 1.0 - trust["answered_right"]
        given = round(trust["answered"] * len(asked.right))
        error = error_bars([risk], [wilson_interval(round(risk * given), given)])
        axes.axvline(trust["answered"], color=ORANGE, linestyle="--")
        axes.errorbar(
            trust["answered"], risk, error, color=ORANGE, marker="D", markeredgecolor="black", capsize=3,
            label=f"certified thresholds:\n{given} answers, {100 * risk:.1f} % wrong",
        )  # fmt: skip
    else:
        why = "no threshold is certified" if trust["certificate"] is None else "the thresholds answer nothing"
        axes.plot([], [], linestyle="none", label=why)
    if trust["certificate"] is not None:
        limit = trust["certificate"]["risk"]
        axes.axhline(limit, color="0.5", linestyle=":", label=f"certified risk: {100 * limit:g} %")
    axes.set(
        title="Risk–coverage curve",
        xlabel="coverage (fraction of questions answered)",
        ylabel="risk (fraction of answers that are wrong)",
        xlim=(0, 1.02),
    )
    axes.set_ylim(0, axes.get_ylim()[1] * FREE)
    label_percent(axes.xaxis, axes.yaxis)
    axes.legend(frameon=False, loc="upper left", fontsize="small")


def plot_reliability(axes, diagrams: dict[str, dict]) -> None:
    """Draw the observed frequency in each bin of predicted probabilities, its 95 % interval and number of questions.

    Args:
        diagrams: of `reliability`.
    """
    axes.plot([0, 1], [0, 1], color="0.5", linestyle=":", label="perfectly calibrated")
    counts = axes.twinx()
    counts.spines["top"].set_visible(False)
    for head, bins in diagrams.items():
        color, marker = HEADS[head]
        axes.errorbar(
            bins["chance"], bins["true"], error_bars(bins["true"], bins["interval"]), color=color, marker=marker,
            markersize=5, capsize=2, linewidth=1, label=f"{head}: {count_bins(bins['questions'])}",
        )  # fmt: skip
        counts.vlines(bins["chance"], 0, bins["questions"], color=color, linewidth=4, alpha=0.35)
    most = max(max(bins["questions"]) for bins in diagrams.values())
    counts.set(ylim=(0, 5 * most), yticks=[0, most])
    counts.set_ylabel("questions per bin", loc="bottom")
    axes.set(
        title="Reliability diagram", xlabel="predicted probability", ylabel="observed frequency", xlim=(0, 1.02),
        ylim=(0, FREE), yticks=[0, 0.2, 0.4, 0.6, 0.8, 1.0],
    )  # fmt: skip
    label_percent(axes.xaxis, axes.yaxis)
    axes.legend(frameon=False, loc="upper left", fontsize="small")


def count_bins(questions: Sequence[int]) -> str:
    """Say how many bins there are, of how many questions each."""
    low, high = min(questions), max(questions)
    bins = "1 bin" if len(questions) == 1 else f"{len(questions)} bins"
    return f"{bins} of {low}" if low == high else f"{bins} of {low} – {high}"


def plot_groups(axes, asked: EvaluatedAnswers) -> None:
    """Draw the distribution of the probability "known" for the people asked about and for both kinds of strangers."""
    for group, (label, color, dashes) in GROUPS.items():
        if chances := asked.chances(group, "known"):
            axes.hist(
                chances, bins=20, range=(0, 1), histtype="step", linewidth=1.5, color=color, linestyle=dashes,
                label=f"{label}: {len(chances)}",
            )  # fmt: skip
    if asked.certificate is not None:
        threshold = asked.certificate.known_threshold
        axes.axvline(threshold, color=PINK, linestyle="-.", label=f"threshold: {threshold:.3f}")
    axes.set(
        title="Known people and strangers",
        xlabel="probability of being known" if asked.has_heads else "confidence",
        ylabel="questions",
        yscale="log",
    )
    axes.legend(facecolor="white", edgecolor="none", framealpha=1.0, loc="upper center", fontsize="small")


def plot_trust(asked: EvaluatedAnswers, trust: dict, path: Path) -> None:
    """Draw risk against coverage, reliability, the probability of being known by group, and what can be certified.

    Args:
        asked: the answers.
        trust: their `confidence_metrics`.
        path: of the picture.
    """
    figure, _ = new_figure(2, 2, width=9.0, height=7.4)
    risk, chances, groups, certified = figure.axes
    plot_risk(risk, asked, trust)
    plot_reliability(chances, trust["reliability"])
    plot_groups(groups, asked)
    certified.set_title("What can be certified")
    if trust["trade"]:
        plot_trade(certified, trust["trade"])
    else:
        certified.set_axis_off()
        certified.text(0.5, 0.5, "nothing: the model is not calibrated", ha="center", transform=certified.transAxes)
    save_figure(figure, path)
