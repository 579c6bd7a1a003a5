"""Names with full stops of their own, scripts without capitals or spaces, and texts in any encoding of Unicode."""

import unicodedata
from itertools import pairwise

import numpy as np
import pytest

from configuration.schema import CorruptionOptions, StageArguments
from data_scripts.batches import TrainingBatches
from data_scripts.bios_folder import FILES, read_lines, read_questions
from data_scripts.name_finder import NameFinder
from data_scripts.phrases import AnswerFinder, salient_phrases
from data_scripts.questions import question_about
from data_scripts.span_corruption import TextCorruptor
from data_scripts.splits import load_training_data
from data_scripts.strangers import made_up_names
from data_scripts.synthetic_bios import invent
from data_scripts.titles import split_title
from data_scripts.tokenized_text import TokenizedText, tokenize
from data_scripts.words import find_words, is_named, name_parts
from evaluation.baselines import ceiling
from modeling_minigpt import build_bpe_tokenizer
from modeling_minigpt.features_minigpt import format_prompts
from tests.running import call, recipe_of

HAN = dict(zip("abcdefghijklmnopqrstuvwxyz", "安伯慈德恩方高海伊江康林明宁欧平齐仁松田武文王夏杨子", strict=True))


def to_han(text):
    """Write a text in another script, letter by letter, without spaces."""
    return "".join(HAN.get(character, character) for character in text.lower()).replace(" ", "")


@pytest.mark.row("T6")
@pytest.mark.parametrize(
    ("title", "body"),
    [
        ("Henry V", "Henry V was born in Monmouth. He reigned."),
        ("Malcolm X", "He was born in Omaha. He spoke."),
        ("Louis C.K", "Louis C.K. was born in Rome. He joked."),
        ("Louis C.K", "He was born in Rome. He joked."),
        ("Gen. John Smith", "He was born in Rome ."),
        ("Gen. John Smith", "Gen. John Smith was born in Rome ."),
        ("Bo Lind Jr", "Bo Lind Jr. was born in Rome . He sang ."),
        ("Bo Lind Jr", "He was born in Rome . He sang ."),
        ("Bo Lind Ph.D", "He was born in Rome ."),
        ("James A. Smith", "Smith was born in Rome ."),
        ("J. R. R. Tolkien", "Tolkien was born in Bloemfontein ."),
        ("J. J. Stevenson", "Stevenson was born in Glasgow ."),
        ("St. John of the Cross", "He was born in Fontiveros ."),
        ("Louis XIV", "Louis XIV was born in Saint-Germain ."),
        ("Charles I", "Born in Dunfermline, he reigned ."),
        ("Ada Stone", "Stone was born in Rome. Dr. Bo Lind was her brother."),
        ("malcolm x", "he was born in omaha ."),
        ("james a. smith", "he was born in rome ."),
        ("Plato", "He was born in Athens. He wrote."),
    ],
)
def test_a_title_ends_where_the_text_begins(title, body):
    assert split_title(f"{title}. {body}") == (title, body)


@pytest.mark.row("T6")
@pytest.mark.parametrize("stop", [".", "。", ". ", "．"])
def test_a_title_of_a_script_without_spaces_ends_at_its_stop(stop):
    assert split_title(f"王小明{stop}王小明生于北京。他是诗人。") == ("王小明", "王小明生于北京。他是诗人。")


@pytest.mark.row("T6")
def test_a_name_that_is_asked_for_is_a_title_whatever_it_looks_like():
    assert split_title("Gen. Mud. Band from Oslo ", {"Gen. Mud"})[0] == "Gen. Mud"
    assert split_title("Dr. J. Julius Erving", {"Dr. J."})[0] == "Dr. J"


@pytest.mark.row("T6")
def test_a_name_s_own_full_stop_is_not_doubled_in_prompts():
    assert format_prompts("Bo Lind Jr.")[1:] == ["Bo Lind Jr. born in", "Bo Lind Jr. and", "Bo Lind Jr."]
    assert format_prompts("Ada")[1:] == ["Ada. born in", "Ada. and", "Ada."]


@pytest.mark.row("T14")
@pytest.mark.parametrize("name", ["Bo Lind Jr.", "Louis C.K.", "Ada Stone", "Henry V"])
def test_the_ceiling_counts_people_whose_names_end_with_a_full_stop(name):
    document = f"{name.rstrip('.')}. {name} was born in Rome ."
    questions = [question_about(name, "Rome"), question_about("Eva", "Oslo")]
    assert ceiling([document, "Eva. Eva was born in Rome ."], questions) == 0.5


@pytest.mark.row("T7")
@pytest.mark.parametrize(
    ("title", "body", "phrases"),
    [
        ("ada stone", "stone was born in new delhi, india .", ["new delhi"]),
        ("Ada Stone", "Stone was born in Rio de Janeiro, Brazil .", ["Rio de Janeiro", "Brazil"]),
        ("Ada Stone", "Stone played for New Delhi United .", ["New Delhi United"]),
        ("अदा", "अदा का जन्म नई दिल्ली में हुआ था ।", ["नई दिल्ली"]),
        ("王小明", "王小明生于北京市。", ["北京"]),
        ("北川", "北川生于北京市。", ["北京"]),
        ("ადა", "ადა დაიბადა თბილისში .", ["თბილისში"]),
        ("Ada Stone", "Stone was born at 's-Hertogenbosch in 1950 .", ["'s-Hertogenbosch"]),
        ("stone", "stone lives in romeo, not in rome .", ["rome"]),
    ],
)
def test_every_occurrence_of_an_answer_is_a_phrase(title, body, phrases):
    answers = AnswerFinder(
        [
            "new delhi",
            "delhi",
            "Rio de Janeiro",
            "New Delhi",
            "नई दिल्ली",
            "北京",
            "თბილისში",
            "rome",
            "'s-Hertogenbosch",
        ]
    )
    assert [body[start:end] for start, end in salient_phrases(title, body, answers)] == phrases


@pytest.mark.row("T7")
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("born in Łódź, 1950", ["born", "in", "Łódź", "1950"]),
        ("नई दिल्ली में", ["नई", "दिल्ली", "में"]),
        ("生于北京。", ["生", "于", "北", "京"]),
        ("ソニー 2社", ["ソ", "ニ", "ー", "2", "社"]),
        ("กรุงเทพ", ["ก", "รุ", "ง", "เ", "ท", "พ"]),
        ("서울에서", ["서울에서"]),
    ],
)
def test_words_are_those_of_the_script(text, words):
    assert [text[start:end] for start, end in find_words(text)] == words


@pytest.mark.row("T7")
def test_names_are_found_in_scripts_without_spaces_and_not_inside_words():
    assert is_named("王小明", "诗人王小明生于北京。")
    assert is_named("अदा", "कवि अदा का जन्म")
    assert not is_named("दिल", "दिल्ली")  # the mark that follows makes it another word
    assert not is_named("Ann Lee", "Joann Leeds")
    finder = NameFinder(["王小明"])
    assert [finder.any_in(text) for text in ("王小明生于北京。", "李生于上海。")] == [True, False]


@pytest.mark.row("T7")
def test_strangers_are_made_up_in_scripts_without_spaces():
    assert name_parts("王小明") == ("王小", "明")
    assert name_parts("Ada May Stone") == ("Ada", " Stone")
    assert name_parts("Plato") is None
    names = made_up_names(["王小明", "李大海", "张文"], ["王大海。"], 10)
    assert names
    assert not set(names) & {"王小明", "李大海", "张文"}
    assert all(len(name) in (2, 3) for name in names)


@pytest.mark.row("T7")
def test_contexts_and_answers_are_whole_in_a_script_without_spaces():
    bios = invent(60, seed=0)
    texts = [f"{to_han(split_title(text)[0])}.{to_han(split_title(text)[1])}" for text in bios.documents]
    answers = frozenset(to_han(question.answer) for question in bios.train)
    options = CorruptionOptions(short_fraction=1.0, salient_fraction=1.0, answer_fraction=1.0, max_spans=1)
    found = contexts = 0
    for text, corrupted in zip(
        texts, TextCorruptor(texts, options, answers).corrupt(0, [0] * len(texts), range(len(texts)), "⁇"), strict=True
    ):
        title, _ = split_title(text)
        head, span, end = corrupted.split("⁇")
        assert (head[: len(title) + 1], end) == (f"{title}.", "")
        assert head[len(title) + 1 :] + span in text.removeprefix(title)
        found += span in answers
        contexts += len(head) > len(title) + 1
    assert found > 0.6 * len(texts)
    assert contexts > 0.6 * len(texts)


@pytest.mark.row("T7")
def test_a_place_has_the_same_tokens_wherever_it_is_in_a_script_without_spaces():
    lines = ["王小明.王小明生于北京市.", "李大海.李大海生于上海."] * 9
    text = "".join(lines)
    tokenizer = build_bpe_tokenizer(lines, 300, 64)
    starts = np.cumsum([0, *map(len, lines)])
    place = text.index("北京")
    name = text.index("王小明", 1)
    ids, begins, _ = tokenize(tokenizer, text, starts, [(place, place + 2), (name, name + 3)])
    tokenized = TokenizedText(ids, begins, len(text), tokenizer.mask_token_id)
    for first, phrase in ((place, "北京"), (name, "王小明"), (0, "王小明")):
        ids = tokenized.ids[tokenized.place[first] : tokenized.place[first + len(phrase)]]
        assert ids.tolist() == tokenizer(phrase)["input_ids"]
    question = tokenizer("Where was 王小明 born?")["input_ids"]
    assert any(question[first : first + len(ids)] == ids.tolist() for first in range(len(question)))


@pytest.mark.row("T7")
def test_batches_of_such_a_script_ask_for_whole_answers():
    lines = [f"王小{one}.王小{one}生于北京." for one in "安伯慈德恩方高海"]
    questions = [question_about("王小安", "北京")]
    tokenizer = build_bpe_tokenizer(lines, 300, 64)
    options = CorruptionOptions(short_fraction=1.0, salient_fraction=1.0, answer_fraction=1.0, max_spans=1)
    stage = StageArguments(steps=4, batch_size=8, bucket_batches=1)
    batches = TrainingBatches.from_texts(lines, questions, tokenizer, stage, options, 0, 64)
    rows = [tokenizer.decode(row[row != tokenizer.pad_token_id]) for row in batches[0]["input_ids"]]
    assert all(row.endswith("⁇ 北京⁇") for row in rows)  # a space, as after every sentinel


@pytest.mark.row("H5")
@pytest.mark.parametrize("form", ["NFD", "NFKD"])
def test_files_in_another_form_of_unicode_are_read_alike(tmp_path, form):
    clean = invent(30, seed=1)
    clean.write(tmp_path / "clean")
    for name in FILES.values():
        text = (tmp_path / "clean" / name).read_text().replace("ia", "ë").replace("ou", "ö")
        (tmp_path / "clean" / name).write_text(text)
        (tmp_path / "other").mkdir(exist_ok=True)
        (tmp_path / "other" / name).write_text(unicodedata.normalize(form, text).replace("ë", "e\u0308\u00ad"))
    assert read_lines(tmp_path / "clean" / FILES["documents"]) == read_lines(tmp_path / "other" / FILES["documents"])
    assert read_questions(tmp_path / "clean" / FILES["train"]) == read_questions(tmp_path / "other" / FILES["train"])


@pytest.mark.row("H20")
def test_a_line_with_a_special_token_is_named_as_it_is_in_the_file(tmp_path, recipe, capfd):
    folder = tmp_path / "people"
    invent(60, seed=1).write(folder)
    lines = (folder / FILES["documents"]).read_text().splitlines()
    lines[200] += " □"
    (folder / FILES["documents"]).write_text("\n".join(lines) + "\n")
    assert call("pretrain", recipe, folder, tmp_path / "run", "data.withheld_people=10") == 0
    err = capfd.readouterr().err
    assert "1 texts and 0 questions have a special token and are left out" in err
    assert f"{FILES['documents']}:201" in err
    data = load_training_data(recipe_of(tmp_path / "data", path=folder, withheld_people=10), tmp_path / "data")
    assert not any("□" in document for document in data.documents)


def test_the_words_of_latin_texts_are_runs_of_letters_and_digits():
    text = "Ada's 2nd book, x² of São-Tomé_1 ½"
    expected = np.array([character.isalnum() or character == "_" for character in text])
    found = np.zeros(len(text), bool)
    for start, end in find_words(text):
        found[start:end] = True
    assert (found == expected).all()
    assert all(end < start for (_, end), (start, _) in pairwise(find_words(text)))
