"""How far answers can be trusted, as people read it: the table of metrics, the section of the report."""

from evaluation.tables import markdown_table, number, percent
from modeling_minigpt.confidence_minigpt import describe_promise
from modeling_minigpt.risk_control_minigpt import Certificate

ROWS = {  # key: what it says, and whether it is a share
    "auroc_correct": ("AUROC of the chance to be right, right against wrong answers", False),
    "auroc_made_up": ("AUROC of the chance to be known, known against made-up people", False),
    "auroc_withheld": ("AUROC of the chance to be known, known against withheld people", False),
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
    "answered_right": ("right among these answers", True),
    "made_up_answered": ("made-up people given an answer at the thresholds", True),
    "withheld_answered": ("withheld people given an answer at the thresholds", True),
    "popular_share_on_strangers": ("answers about strangers that are one of the two most popular answers", True),
}
HEADINGS = {  # key: what a column of it is called, and whether it is a share
    "auroc_correct": ("AUROC: right against wrong answers", False),
    "auroc_made_up": ("AUROC: known against made-up people", False),
    "auroc_withheld": ("AUROC: known against withheld people", False),
    "coverage_at_precision_90": ("answered at 90 % precision", True),
    "ece_known": ("calibration error, known", False),
    "ece_correct": ("calibration error, correct", False),
    "answered": ("answered at the certified thresholds", True),
    "answered_right": ("right among these answers", True),
    "made_up_answered": ("made-up people answered", True),
    "withheld_answered": ("withheld people answered", True),
}


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
