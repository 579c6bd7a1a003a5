"""The pipeline among threads, tokenizers in use, what people type and data sets of any kind."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from datasets import Dataset
from transformers.pipelines.pt_utils import KeyDataset

from modeling_minigpt import BirthplacePipeline, build_bpe_tokenizer
from modeling_minigpt.inputs_minigpt import parse_question
from modeling_minigpt.relations_minigpt import BIRTHPLACE
from tests.outside.pipeline_parts import LINES, NAMES, PLACES, random_parts


@pytest.fixture(scope="module")
def parts():
    """The parts of a pipeline around a model of random weights."""
    return random_parts()


@pytest.mark.row("M1")
def test_threads_get_what_one_thread_gets_bit_for_bit(parts):
    ask = BirthplacePipeline(**parts, candidates=PLACES)
    questions = [name + " Stone" * (index % 3) for index, name in enumerate(NAMES * 4)]
    lists = [questions[first : first + 8] for first in range(0, 64, 8)]
    expected = [ask(question) for question in questions]
    expected_lists = [ask(one) for one in lists]

    def disturb(texts):
        """Use the same tokenizer as other code of the same server may."""
        return [parts["tokenizer"](texts, padding=True, truncation=True, max_length=9) for _ in range(50)]

    with ThreadPoolExecutor(16) as pool:
        others = [pool.submit(disturb, one) for one in lists[:2]]
        assert list(pool.map(ask, questions)) == expected
        assert list(pool.map(ask, lists)) == expected_lists
    assert all(other.exception() is None for other in others)


@pytest.mark.row("M1")
def test_an_error_of_the_program_is_not_taken_for_an_unknown_character(parts, monkeypatch):
    ask = BirthplacePipeline(**parts)

    def fail(*arguments, **settings):
        raise RuntimeError("Already borrowed")

    monkeypatch.setattr(type(ask.encoder), "__call__", fail)
    with pytest.raises(RuntimeError, match="Already borrowed"):
        ask("Ada Stone")


@pytest.mark.row("M1")
@pytest.mark.parametrize("settings", [{"padding": True}, {"truncation": True, "max_length": 3}], ids=["pads", "cuts"])
def test_how_the_tokenizer_was_last_used_changes_no_answer(parts, tmp_path, settings):
    expected = BirthplacePipeline(**parts, candidates=PLACES)(NAMES)
    tokenizer = build_bpe_tokenizer(LINES, 320, 128)
    tokenizer(["Ada", "Ada Stone of Rome"], **settings)
    assert BirthplacePipeline(**{**parts, "tokenizer": tokenizer}, candidates=PLACES)(NAMES) == expected


BELA = "Béla Nagy"


@pytest.mark.row("H5")
@pytest.mark.parametrize(
    "typed",
    [
        "Be\u0301la Nagy",
        "Bé\u00adla Nagy",
        "Béla\u200b Nagy",
        "\ufeffBéla Nagy\u200e",
        "Béla\u00a0Nagy",
        "Béla \t Nagy",
        "Where was Be\u0301la\u2009Nagy born?",
        "“Béla Nagy”",
        "'Where was Béla Nagy born?'",
    ],
)
def test_a_name_is_read_however_it_is_encoded(parts, typed):
    ask = BirthplacePipeline(**parts, candidates=PLACES)
    assert ask(typed) == ask(BELA)
    assert ask(typed)["question"] == "Where was Béla Nagy born?"


@pytest.mark.row("H6")
@pytest.mark.parametrize(
    "typed",
    [
        "where was béla nagy born",
        "Where was  Béla Nagy\u00a0born?",
        "Where was Béla Nagy born??",
        "Where was Béla Nagy born？",
        "Where was Béla Nagy born.",
        "Where was Béla Nagy born ?!",
        '"Where was Béla Nagy born"',
        "Béla Nagy.",
    ],
)
def test_the_question_may_end_as_people_end_it(typed):
    assert parse_question(typed, [BIRTHPLACE])[1].casefold() == "béla nagy"


@pytest.mark.row("H6")
@pytest.mark.parametrize("end", ["", "?", ".", " ??", "。"])
@pytest.mark.parametrize(
    "question",
    [
        "When was {} born",
        "Where was {} buried",
        "where did {} die",
        "Who is {}",
        "Who was the mother of {}",
        "How old is {}",
        "Why is {} famous",
        "Was {} born in Rome",
        "Is {} from Rome",
        "Did {} marry",
        "{} is a liar",
        "{} was born in Rome",
        "Tell me about {}",
        "Can you tell me where {} comes from",
        "Where was When was {} born born",
        "Where was {} born and when did he die",
        "{} died in Rome",
        "birthplace of {}",
        "birth place of {}",
        "nationality of {}",
    ],
)
def test_another_question_is_refused_whatever_its_punctuation(parts, question, end):
    result = BirthplacePipeline(**parts, candidates=PLACES)(question.format("Ada Stone") + end)
    assert (result["answer"], result["abstained"]) == (None, True)
    assert result["reason"] == 'neither a name nor "Where was NAME born?"'


@pytest.mark.row("H6")
@pytest.mark.parametrize(
    "name",
    ["Will Smith", "Can Yaman", "Do Muoi", "Are Kalvø", "Max Born", "Alby Why", "Bo Lind Jr.", "Louis C.K.", "Henry V",
     "James A. Garfield", "D'Arcy O'Neil", "Ivan the Terrible", "van Gogh", "al-Hakim",
     "bell hooks", "d'Arcy Stone", "J. R. R. Tolkien", 'Bo "Red" Lind', "王小明"],
)  # fmt: skip
def test_names_are_not_taken_for_questions(name):
    for typed in (name, f"where was {name} born??"):
        assert parse_question(typed, [BIRTHPLACE]) == (BIRTHPLACE, name)


@pytest.mark.row("H7")
def test_any_set_of_rows_gives_a_result_for_each(parts):
    ask = BirthplacePipeline(**parts, candidates=PLACES)
    expected = ask(NAMES)
    rows = Dataset.from_dict({"name": NAMES})

    class MapStyle(torch.utils.data.Dataset):
        """A data set that has a length and rows, and no end."""

        def __len__(self):
            return len(NAMES)

        def __getitem__(self, index):
            return NAMES[index % len(NAMES)]

    for many in (KeyDataset(rows, "name"), rows["name"], MapStyle(), iter(NAMES)):
        assert list(ask(many)) == expected
    assert len(list(ask(KeyDataset(rows, "name"), num_workers=2, batch_size=5))) == len(NAMES)
    assert [result["abstained"] for result in ask(rows)] == [True] * len(NAMES)  # a row is no text


@pytest.mark.row("H7")
@pytest.mark.parametrize("size", [-1, 0, 2.5, "4"])
def test_a_batch_size_that_is_none_is_refused(parts, size):
    with pytest.raises(ValueError, match="batch_size must be a whole number from 1"):
        BirthplacePipeline(**parts)("Ada Stone", batch_size=size)
