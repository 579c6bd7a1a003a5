"""What a pipeline is asked: from a text that a person types to a relation and a name, or the reason why there is none.

A question in any wording of any relation is understood; a text that is no question is a name.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

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

MAX_LISTED = 5  # questions that a refusal names


def iterate(inputs: Any) -> Iterator | None:
    """Return the items of an iterable, or of a map-style data set of torch or datasets; None for anything else."""
    # A map-style data set need not end an iteration, so it is read by its length.
    if hasattr(inputs, "__getitem__") and hasattr(inputs, "__len__"):
        return (inputs[index] for index in range(len(inputs)))
    return iter(inputs) if isinstance(inputs, Iterable) else None


def explain_refusal(relations: Sequence[Relation]) -> str:
    """Return why a text that is neither a name nor a question of these relations gets no answer."""
    known = [f'"{relation.format("NAME")}"' for relation in relations]
    if len(known) > MAX_LISTED:
        known[MAX_LISTED:] = [f"another of the {len(known)} questions that the model knows"]
    return f"neither a name nor {' nor '.join(known)}"


def parse_question(
    text: object, relations: Sequence[Relation], wanted: Relation | None = None
) -> tuple[Relation, str]:
    """Return the relation that a text asks for, and the normalised name that it asks about.

    Args:
        text: a name, or a question as a person types it.
        relations: those that are known; a bare name is asked under the first.
        wanted: the relation to ask under, whatever the text could be otherwise.

    Raises:
        ValueError: the text is neither, or asks for another relation than the wanted one, or for two at once; the
            message is the reason.
    """
    if not isinstance(text, str):
        raise ValueError(f"not a text but {type(text).__name__}")
    refusal = explain_refusal(relations if wanted is None else [wanted])
    if "\n" in text.strip() or len(text) > 10 * NAME_CHARACTERS:  # several lines, or no name however it is folded
        raise ValueError(refusal)
    line = strip_quotes(normalise(text))
    found = match_relations(relations, line)
    if wanted is not None and found:
        names = [relation.name for relation, _ in found]
        found = [match for match in found if match[0] == wanted]
        if not found:
            raise ValueError(f'a question of the relation "{names[0]}", asked under "{wanted.name}"')
    if len(found) > 1:
        raise ValueError(f"a question of several relations: {', '.join(relation.name for relation, _ in found)}")
    relation = found[0][0] if found else wanted or relations[0]
    name = found[0][1] if found else strip_quotes(strip_end_marks(line))
    if not any(character.isalpha() for character in name):
        raise ValueError("no name in it")
    # Whatever ends with a question mark is a question, in languages too whose words are not listed here.
    is_other = not found and (set(line) & set(QUESTION_MARKS) or is_other_question(name))
    if is_other or len(name) > NAME_CHARACTERS or len(name.split()) > NAME_WORDS:
        raise ValueError(refusal)
    return relation, name
