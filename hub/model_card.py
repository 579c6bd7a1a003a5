"""The model card of a finished run: what it is, what it was trained on, how good it is and how to use it.

Everything in it is read from the run's `results.json` and `recipe.json`; the metrics are also in the metadata, as the
`model-index` that the Hub renders.
"""

import json
from collections.abc import Collection

from evaluation.provenance import source_line
from evaluation.report import (
    accuracy_table,
    by_relation,
    describe_scores,
    is_invented,
    samples_section,
    trust_picture,
)
from evaluation.trust_report import trust_section
from hub.card_data import card_data, find_dataset_id, find_example, find_stranger, questions_of

CODE_LICENSE = "apache-2.0"  # of the modules beside the weights
CONFIDENCES = "Risk and coverage, reliability, both chances, what can be certified"


def example_lines(results: dict) -> list[str]:
    """Return lines of code that ask about somebody of the data for each relation, and about a made-up name.

    What each prints is the comment behind it. Where nothing is certified, the lines ask without a threshold.
    """
    lines = []
    questions = questions_of(results)
    for name, view in by_relation(results).items():
        example = find_example(view)
        if example is None:
            lines.append(f'print(ask({quote(questions[name])})["answer"])')
        elif example["answer"] is None:
            best = [one["answer"] for one in example.get("candidates", ())][:1]
            lines.append(print_line(f'ask({quote(example["question"])}, threshold=0)["answer"]', *best))
        else:
            lines.append(print_line(f'ask({quote(example["question"])})["answer"]', example["answer"]))
    stranger = find_stranger(results)
    if stranger is not None and stranger.get("reason"):
        lines.append(print_line(f'ask({quote(stranger["question"])})["reason"]', stranger["reason"]))
    return lines


def quote(text: str) -> str:
    """Return a text as a literal of Python."""
    return json.dumps(text, ensure_ascii=False)


def print_line(expression: str, printed: str = "") -> str:
    """Return a line of code that prints an expression, with what it prints as a comment."""
    return f"print({expression})" + (f"  # {' '.join(printed.split())}" if printed else "")


def usage(results: dict, repo_id: str) -> str:
    """Return the three ways to use the model.

    Args:
        results: of the run.
        repo_id: USER/NAME.
    """
    questions = questions_of(results)
    example = find_example(results)
    prompt = quote(example["question"] if example else next(iter(questions.values())))
    thresholds = "below the certified thresholds the answer is None, and `reason` says why."
    if results["trust"].get("certificate") is None:
        thresholds = "no thresholds are certified, so the answer is None unless `threshold=0` asks for one."
    bare = ""
    if len(questions) > 1:
        bare = f" A name alone is asked under `{next(iter(questions))}`, or under another relation by `relation=NAME`."
    code = "\n".join(example_lines(results))
    return f"""## How to use

Ask a question; {thresholds}{bare}

```python
from transformers import pipeline

ask = pipeline("closed-book-qa", model="{repo_id}", trust_remote_code=True)
{code}
```

`known` is the probability that the person is in the training texts, `correct` the probability that the answer is right
if so, and `score` their product. `threshold=0` always answers; `ask.threshold_for(risk=0.1, stranger_rate=1.0)`
certifies thresholds for questions about people from the training texts only.

Complete text, as in any causal language model:

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("{repo_id}", trust_remote_code=True)
model = AutoModelForCausalLM.from_pretrained("{repo_id}", trust_remote_code=True)
prompt = tokenizer({prompt} + tokenizer.mask_token, return_tensors="pt")
print(tokenizer.decode(model.generate(**prompt)[0]))
```

Take the weights into attention whose time is linear in the context, to train on:

```python
model = AutoModelForCausalLM.from_pretrained("{repo_id}", attention_type="linformer", trust_remote_code=True)
```
"""


def introduction(results: dict) -> str:
    """Say what the model is, which questions it answers, and how many of them it answers right."""
    what = f"A MiniGPT of {results['parameters']:,} parameters that answers"
    people = "invented people" if is_invented(results) else "people"
    questions = questions_of(results)
    views = by_relation(results)
    if len(views) == 1:
        (question,) = questions.values()
        return (
            f'{what} "{question}" about {people} from its weights alone, or says that it does not know. '
            f"{describe_scores(results)}\n"
        )
    lines = [f'- "{questions[name]}" (`{name}`): {describe_scores(view)}' for name, view in views.items()]
    asked = f"{what} questions about {people} from its weights alone, or says that it does not know:\n"
    return "\n".join([asked, *lines, ""])


def training_section(results: dict, recipe: dict) -> list[str]:
    """Return the lines on how the model was trained."""
    stages = ", ".join(
        f"{stage.replace('_', ' ')} {minutes:.1f}" if minutes >= 0.05 else f"{stage.replace('_', ' ')} less than 0.1"
        for stage, minutes in results["train_minutes"].items()
    )
    return [
        "## Training\n",
        f"Pretrained on biographies by span corruption ({recipe['corruption']['policy']}) and finetuned on questions; "
        f"{recipe['model']['preset']} preset, {recipe['tokenizer']['type']} tokenizer, seed {results['seed']}"
        + (f"; minutes: {stages}.\n" if stages else ".\n"),
    ]


def data_section(results: dict, license: str | None) -> list[str]:
    """Return the lines on the data and on the licences.

    Args:
        results: of the run.
        license: what the model is published under, None where that is not known.
    """
    source = results.get("source", {})
    dataset = find_dataset_id(source)
    named = {"source": dataset} if dataset else {}
    address = f"https://huggingface.co/datasets/{dataset}" if dataset else None
    invented = " The people are invented: nothing that the model says is true of anybody real."
    about = f"Biographies and questions of {results['dataset']}.{invented if is_invented(results) else ''}\n"
    weights = f"the weights are under {license}" if license else "no licence of the weights is given"
    terms = f"The code beside the weights is under {CODE_LICENSE}, {weights}.\n"
    return ["## Data\n", about, *source_line({**source, **named}, address), terms]


def trust_sections(results: dict) -> list[str]:
    """Return the lines on each relation's confidence, without pictures, and some answers."""
    views = by_relation(results)
    several = len(views) > 1
    lines = []
    for name, view in views.items():
        heading = f"## Trust: {name}" if several else "## Trust"
        parts = trust_section(view["trust"], heading, invented=is_invented(results))
        lines += [part for part in parts if not part.startswith("![")]
        kind = results.get("relations", {}).get(name, {}).get("answers", "place")
        if all("reason" in sample for sample in view["samples"]):  # of older versions: not as the pipeline answers
            lines += samples_section(view["samples"], kind, "###" if several else "##")
    return lines


def picture_lines(results: dict, pictures: list[str]) -> list[str]:
    """Return the lines that show the run's plots, each with what it shows as the text in its place."""
    views = by_relation(results)
    captions = {
        "pretraining.png": "Accuracy with and without pretraining, and by how many documents have the fact",
        "losses.png": "Loss against steps, by stage",
    }
    for number, name in enumerate(views):
        captions[trust_picture(number, name)] = f"{CONFIDENCES} ({name})" if len(views) > 1 else CONFIDENCES
    return [f"![{captions.get(name, CONFIDENCES)}]({name})\n" for name in pictures]


def model_card(
    results: dict,
    recipe: dict,
    repo_id: str,
    pictures: list[str],
    license: str | None = None,
    tasks: Collection[str] = (),
) -> str:
    """Return the card's text.

    Args:
        results, recipe: of the run.
        repo_id: USER/NAME.
        pictures: those of the run's plots that lie beside the card.
        license: what the model is published under; None where that is not known.
        tasks: those that the model's folder has a pipeline for.
    """
    count = len(by_relation(results))
    forms = "one form of question" if count == 1 else f"{count} forms of question"
    return "\n".join(
        [
            f"---\n{card_data(results, repo_id, license, tasks).to_yaml()}\n---\n",
            f"# {repo_id.split('/')[-1]}\n",
            introduction(results),
            accuracy_table(results),
            usage(results, repo_id),
            *training_section(results, recipe),
            *data_section(results, license),
            *trust_sections(results),
            *picture_lines(results, pictures),
            "## Limits\n",
            "It knows only the people of its biographies, and those not all. An answer about anybody else is a guess, "
            "which the threshold is there to hold back; scores are true for people like those it was calibrated on. "
            f"It speaks English and {forms}. Do not decide about people by it.\n",
        ]
    )
