"""What a pipeline is asked: from a text that a person types to a relation and a name, or the reason why there is none.

A question in any wording of any relation is understood; a text that is no question is a name.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from numbers import Integral
from typing import Any

from .names_minigpt import NameIndex
from .questions_minigpt import (
    NAME_CHARACTERS,
    NAME_WORDS,
    QUESTION_MARKS,
    is_other_question,
    normalise,
    strip_end_marks,
    strip_quotes,
)
from .relations_minigpt import Relation, match_relations
from .risk_control_minigpt import Certificate

MAX_LISTED = 5  # questions that a refusal names
CERTIFIED = "certified"  # the threshold that stands for each relation's own certificate
NO_NAMES = NameIndex("")


def iterate(inputs: Any) -> Iterator | None:
    """Return the items of an iterable, or of a map-style data set of torch; None for one input, whatever it is.

    Raises:
        ValueError: a table, or an array that has not one dimension.
    """
    if isinstance(inputs, (str, bytes, Mapping)):
        return None
    # The items of a table are the names of its columns, and those of an array of two dimensions are its rows.
    dimensions = getattr(inputs, "ndim", 1)
    if dimensions != 1:
        kind = type(inputs).__name__
        raise ValueError(f"texts must be in one column, found a {kind} of {dimensions} dimensions")
    # Never by index what can be iterated over: the index of a pandas Series is a label, not a position.
    if isinstance(inputs, Iterable):
        return iter(inputs)
    # A map-style data set need not end an iteration, so it is read by its length.
    if hasattr(inputs, "__getitem__") and hasattr(inputs, "__len__"):
        return (inputs[index] for index in range(len(inputs)))
    return None


def check_count(value: Any, what: str) -> int:
    """Return a whole number from 1, of numpy too; ValueError for anything else."""
    if not isinstance(value, Integral) or value < 1:
        raise ValueError(f"{what} must be a whole number from 1, found {value!r:.80}")
    return int(value)


def check_share(value: Any, what: str, wanted: str = "in [0, 1]") -> float:
    """Return a number in [0, 1], of numpy or torch too; ValueError for anything else."""
    try:
        share = float("nan") if isinstance(value, str) else float(value)
    # OverflowError: a whole number that no float has; RuntimeError: a tensor of several numbers.
    except (TypeError, ValueError, OverflowError, RuntimeError):
        share = float("nan")
    if not 0.0 <= share <= 1.0:
        raise ValueError(f"{what} must be {wanted}, found {value!r:.80}")
    return share


def check_threshold(threshold: Any) -> float | Certificate | str:
    """Return a threshold as the pipeline compares with it; ValueError for what is none."""
    if type(threshold).__name__ == Certificate.__name__:
        # Of another copy of the module, perhaps: a model's folder has its own.
        return Certificate(**vars(threshold))
    if isinstance(threshold, str) and threshold == CERTIFIED:
        return threshold
    return check_share(threshold, "threshold", f'in [0, 1], a certificate or "{CERTIFIED}"')


def explain_refusal(relations: Sequence[Relation]) -> str:
    """Return why a text that is neither a name nor a question of these relations gets no answer."""
    known = [f'"{relation.format("NAME")}"' for relation in relations]
    if len(known) > MAX_LISTED:
        known[MAX_LISTED:] = [f"another of the {len(known)} questions that the model knows"]
    return f"neither a name nor {' nor '.join(known)}"


def parse_question(
    text: object, relations: Sequence[Relation], wanted: Relation | None = None, names: NameIndex = NO_NAMES
) -> tuple[Relation, str]:
    """Return the relation that a text asks for, and the normalised name that it asks about.

    Args:
        text: a name, or a question as a person types it.
        relations: those that are known; a bare name is asked under the first.
        wanted: the relation to ask under, whatever the text could be otherwise.
        names: of training; one of these is a name, whatever words and marks it has.

    Raises:
        ValueError: the text is neither, or asks for another relation than the wanted one, or for two at once; the
            message is the reason.
    """
    if not isinstance(text, str):
        raise ValueError(f"not a text but {type(text).__name__}")
    refusal = explain_refusal(relations if wanted is None else [wanted])
    if "\n" in text.strip() or len(text) > 10 * NAME_CHARACTERS:  # several lines, or no name however it is folded
        raise ValueError(refusal)
    whole = normalise(text)
    line = strip_quotes(whole)
    bare = strip_quotes(strip_end_marks(line))
    # What ends with a question mark is a name only where the name of training does: "Guess Who?", not "Is Haq?".
    spellings = dict.fromkeys((whole, line) if set(line) & set(QUESTION_MARKS) else (whole, line, bare))
    if known := next(filter(names.has, spellings), None):
        return wanted or relations[0], known
    found = match_relations(relations, line, names.has)
    if wanted is not None and found:
        asked = [relation.name for relation, _ in found]
        found = [match for match in found if match[0] == wanted]
        if not found:
            raise ValueError(f'a question of the relation "{asked[0]}", asked under "{wanted.name}"')
    if len(found) > 1:
        raise ValueError(f"a question of several relations: {', '.join(relation.name for relation, _ in found)}")
    relation = found[0][0] if found else wanted or relations[0]
    name = found[0][1] if found else bare
    if found and names.has(name):
        return relation, name
    if not any(character.isalpha() for character in name):
        raise ValueError("no name in it")
    # Whatever ends with a question mark is a question, in languages too whose words are not listed here.
    is_other = not found and (set(line) & set(QUESTION_MARKS) or is_other_question(name))
    if is_other or len(name) > NAME_CHARACTERS or len(name.split()) > NAME_WORDS:
        raise ValueError(refusal)
    return relation, name
