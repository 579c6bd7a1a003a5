"""How far answers can be trusted, as people read it: the table of metrics, the plots, the section of the report."""

from collections.abc import Sequence
from pathlib import Path

from evaluation.plots import ORANGE, new_figure, save_figure
from evaluation.tables import markdown_table, number, percent
from evaluation.trust import EvaluatedAnswers
from evaluation.trust_metrics import risk_coverage
from modeling_minigpt.confidence_minigpt import describe_promise
from modeling_minigpt.risk_control_minigpt import Certificate

ROWS = {  # key: what it says, and whether it is a share
    "auroc_correct": ("AUROC of the chance to be right, right over wrong answers", False),
    "auroc_made_up": ("AUROC of the chance to be known, known over made-up people", False),
    "auroc_withheld": ("AUROC of the chance to be known, known over withheld people", False),
    "coverage_at_precision_90": ("questions answered when 90 % of the answers must be right", True),
    "coverage_at_precision_80": ("questions answered when 80 % of the answers must be right", True),
    "aurc": ("area under the risk–coverage curve (AURC)", False),
    "augrc": ("area under the generalised risk–coverage curve (AUGRC)", False),
    "ece_known": ("expected calibration error of the chance to be known", False),
    "ece_correct": ("expected calibration error of the chance to be right", False),
    "brier": ("Brier score of the chance to be right", False),
    "threshold_known": ("threshold of the chance to be known", False),
    "threshold_correct": ("threshold of the chance to be right", False),
    "answered": ("questions answered at the thresholds", True),
    "answered_right": ("right among those", True),
    "made_up_answered": ("made-up people given an answer at the thresholds", True),
    "withheld_answered": ("withheld people given an answer at the thresholds", True),
    "popular_share_on_strangers": ("answers about strangers that are one of the two most popular answers", True),
}
HEADINGS = {  # key: what a column of it is called, and whether it is a share
    "auroc_correct": ("right over wrong (AUROC)", False),
    "auroc_made_up": ("known over made-up (AUROC)", False),
    "auroc_withheld": ("known over withheld (AUROC)", False),
    "coverage_at_precision_90": ("answered at 90 % precision", True),
    "ece_known": ("calibration error, known", False),
    "ece_correct": ("calibration error, correct", False),
    "answered": ("answered at the certified thresholds", True),
    "answered_right": ("right among those", True),
    "made_up_answered": ("made-up people answered", True),
    "withheld_answered": ("withheld people answered", True),
}
GROUPS = {"known": "asked for", "made_up": "made-up", "withheld": "withheld"}


def trust_table(trust: dict) -> str:
    """Return the metrics as a Markdown table; a dash for those that results of older versions lack."""
    rows = []
    for key, (label, is_share) in ROWS.items():
        value = (percent if is_share else number)(trust.get(key))
        interval = trust.get(f"{key}_interval")
        if interval and trust.get(key) is not None:
            value += f" ({number(interval[0])} – {number(interval[1])})"
        rows.append([label, value])
    return markdown_table(
        ["confidence, calibrated" if trust["calibrated"] else "confidence, not calibrated", ""], rows
    )


def promise(trust: dict) -> str:
    """Say in one sentence what is certified, or that nothing is and why."""
    certificate = trust["certificate"]
    if certificate is None:
        return describe_promise(None, trust["calibrated"], trust.get("refusal"))
    if "threshold" in certificate:  # of before there were two heads
        rest = {name: value for name, value in certificate.items() if name != "threshold"}
        certificate = {"known_threshold": 0.0, "correct_threshold": certificate["threshold"], **rest}
    return describe_promise(Certificate(**certificate), True, None)


def capitalised(text: str) -> str:
    """Return a text with its first letter in upper case, and the others as they are."""
    return text[:1].upper() + text[1:]


def promise_line(trust: dict) -> str:
    """Return what is certified, or why nothing is, as a sentence."""
    return f"{capitalised(promise(trust))}."


def trust_section(
    trust: dict,
    heading: str = "## Trust",
    picture: str = "trust.png",
    says_promise: bool = True,
    invented: bool = False,
) -> list[str]:
    """Return the report's lines on confidence, strangers and what is guaranteed; the last one shows the picture.

    Args:
        says_promise: whether what is guaranteed is among them.
        invented: whether the people of the data are not real.
    """
    said = f"{promise_line(trust)} " if says_promise else ""
    if trust.get("withheld_refusal"):
        said += f"Withheld people are not counted: {trust['withheld_refusal']}."
    withheld = f"{'invented' if invented else 'real'} people who were withheld from training"
    made_up = "made-up names" if invented else "made-up people"
    return [
        f"{heading}\n",
        f"Confidence on these questions, on {trust['made_up']} about {made_up}, and on {trust['withheld']} about "
        f"{withheld}. {said}".rstrip()
        + "\n",
        trust_table(trust),
        f"![Risk and coverage, reliability, both chances, what can be certified]({picture})\n",
    ]


def threshold_line(trust: dict) -> str:
    """Return the line of the terminal on what is answered, or why nothing is."""
    if trust.get("answered") is None:
        return promise_line(trust)
    pair = f"known {number(trust.get('threshold_known'))}, correct {number(trust.get('threshold_correct'))}"
    return (
        f"At the certified thresholds ({pair}): {percent(trust['answered'])} answered, "
        f"{percent(trust['answered_right'])} of that right; {percent(trust['made_up_answered'])} of made-up and "
        f"{percent(trust['withheld_answered'])} of withheld people get an answer"
    )


def plot_trade(axes, rows: Sequence[dict]) -> None:
    """Draw how many people can be answered against how many strangers may be, a line for each risk."""
    for risk in sorted({row["risk"] for row in rows}):
        points = [(row["stranger_rate"], row["answered"]) for row in rows if row["risk"] == risk]
        rates, answered = zip(*((rate, 0.0 if share is None else share) for rate, share in points), strict=True)
        axes.plot(rates, answered, marker="o", label=f"risk {risk:g}")
    ticks = sorted({row["stranger_rate"] for row in rows})
    axes.set(xscale="log", xlabel="strangers who may get an answer", ylabel="people answered", ylim=(0, 1.02))
    axes.set_xticks(ticks, [f"{100 * rate:g} %" for rate in ticks])
    axes.minorticks_off()
    axes.legend(frameon=False)


def draw_trade(rows: Sequence[dict], path: Path) -> None:
    """Write a picture of the trade alone."""
    figure, axes = new_figure(1, 1, width=6.4, height=3.6)
    plot_trade(axes, rows)
    save_figure(figure, path)


def plot_trust(asked: EvaluatedAnswers, trust: dict, path: Path) -> None:
    """Draw risk against coverage, reliability, the chances of each group, and what can be certified.

    Args:
        asked: the answers.
        trust: their `confidence_metrics`.
        path: of the picture.
    """
    has_trade = bool(trust["trade"])
    figure, axes = new_figure(1, 4 if has_trade else 3, width=14.0 if has_trade else 11.0, height=3.4)
    axes[0].plot(*risk_coverage(asked.chances("known", "score"), asked.right))
    if trust.get("answered"):
        axes[0].plot(trust["answered"], 1.0 - trust["answered_right"], "o", color=ORANGE, label="certified thresholds")
        axes[0].legend(frameon=False)
    axes[0].set(
        title="Fewer answers, fewer errors",
        xlabel="coverage: share answered, the surest first",
        ylabel="risk: share of those wrong",
    )
    axes[1].plot([0, 1], [0, 1], color="0.7", linestyle="--")
    for head, bins in trust["reliability"].items():
        axes[1].plot(bins["chance"], bins["true"], marker="o", label=head)
    axes[1].set(
        title="Are the chances true?", xlabel="chance", ylabel="how often it came true", xlim=(0, 1), ylim=(0, 1)
    )
    axes[1].legend(frameon=False)
    for group, label in GROUPS.items():
        if chances := asked.chances(group, "known"):
            axes[2].hist(chances, bins=20, range=(0, 1), histtype="step", label=label)
    if asked.certificate is not None:
        axes[2].axvline(asked.certificate.known_threshold, color="0.7", linestyle="--", label="threshold")
    axes[2].set(
        title="Who is known?",
        xlabel="chance to be known" if asked.has_heads else "confidence",
        ylabel="questions",
        yscale="log",
    )
    axes[2].legend(frameon=False)
    if has_trade:
        plot_trade(axes[3], trust["trade"])
        axes[3].set(title="What can be certified")
    save_figure(figure, path)
