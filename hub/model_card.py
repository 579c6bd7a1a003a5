"""The model card of a finished run: what it is, what it was trained on, how good it is and how to use it.

Everything in it is read from the run's `results.json` and `recipe.json`; the metrics also stand in the metadata, as
the `model-index` that the Hub renders.
"""

import json
from collections.abc import Iterable

from huggingface_hub import EvalResult, ModelCardData

from evaluation.report import (
    accuracy_table,
    by_relation,
    describe_scores,
    samples_section,
    source_line,
    trust_picture,
)
from evaluation.trust_report import trust_section
from hub.local_paths import is_hub_id
from modeling_minigpt.relations_minigpt import BIRTHPLACE

METRICS = {  # key in results["trust"]: the metric's type, and its name
    "auroc_correct": ("roc_auc", "AUROC, right over wrong answers"),
    "auroc_made_up": ("roc_auc", "AUROC, known over made-up people"),
    "coverage_at_precision_90": ("coverage", "Coverage at 90 % precision"),
    "auroc_withheld": ("roc_auc", "AUROC, known over withheld people"),
    "ece_known": ("ece", "Expected calibration error of the chance to be known"),
    "ece_correct": ("ece", "Expected calibration error of the chance to be right"),
    "ece": ("ece", "Expected calibration error"),  # of before there were two chances
}


def questions_of(results: dict) -> dict[str, str]:
    """Return the question of each relation, about NAME, by the relations' names as `by_relation` has them."""
    relations = results.get("relations", {})
    asked = {name: relations.get(name, {}).get("question", BIRTHPLACE.question) for name in by_relation(results)}
    return {name: question.replace("{name}", "NAME") for name, question in asked.items()}


def evaluation_results(results: dict) -> Iterable[EvalResult]:
    """Yield the metrics of each relation, for the card's metadata."""
    questions = questions_of(results)
    for name, view in by_relation(results).items():
        scores = [("exact_match", "Exact match", view[view["split"]]["accuracy"])]
        scores += [(kind, label, view["trust"][key]) for key, (kind, label) in METRICS.items() if key in view["trust"]]
        for kind, label, value in scores:
            if value is None:
                continue
            yield EvalResult(
                task_type="question-answering",
                task_name=questions[name],
                # The Hub joins the metrics of one type of data set.
                dataset_type="minigpt-birthplaces" if name in ("", BIRTHPLACE.name) else f"minigpt-{name}",
                dataset_name=results["dataset"],
                dataset_split=results["split"],
                metric_type=kind,
                metric_name=label,
                metric_value=round(value, 4),
            )


def card_data(results: dict, repo_id: str) -> ModelCardData:
    """Return the card's metadata."""
    start_from = results.get("start_from")
    source = results.get("source", {}).get("source")
    return ModelCardData(
        language="en",
        license="apache-2.0",
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=["minigpt", "custom_code", "closed-book-question-answering"],
        base_model=start_from if start_from and is_hub_id(start_from) else None,
        datasets=[source] if source and is_hub_id(source) else None,
        model_name=repo_id.split("/")[-1],
        eval_results=list(evaluation_results(results)),
    )


def usage(repo_id: str, questions: dict[str, str]) -> str:
    """Return the three ways to use the model.

    Args:
        repo_id: USER/NAME.
        questions: about NAME, by relation.
    """
    quoted = [json.dumps(question, ensure_ascii=False) for question in questions.values()]
    asked = "\n".join(f"print(ask({question}))" for question in quoted)
    bare = ""
    if len(questions) > 1:
        bare = f" A name alone is asked under `{next(iter(questions))}`, or under another relation by `relation=NAME`."
    return f"""## How to use

Ask a question; below the certified thresholds the answer is None, and `reason` says why.{bare}

```python
from transformers import pipeline

ask = pipeline("closed-book-qa", model="{repo_id}", trust_remote_code=True)
{asked}
```

`known` is the probability that the person is in the training texts, `correct` the probability that the answer is right
if so, and `score` their product. `threshold=0` always answers; `ask.threshold_for(risk=0.1, stranger_rate=1.0)`
certifies thresholds for questions about people from the training texts only.

Complete text, as in any causal language model:

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("{repo_id}", trust_remote_code=True)
model = AutoModelForCausalLM.from_pretrained("{repo_id}", trust_remote_code=True)
prompt = tokenizer({quoted[0]} + tokenizer.mask_token, return_tensors="pt")
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
    questions = questions_of(results)
    views = by_relation(results)
    if len(views) == 1:
        (question,) = questions.values()
        scored = results[results["split"]]
        return (
            f'{what} "{question}" from its weights alone: {scored["correct"]} of {scored["total"]} {results["split"]} '
            f"questions of {results['dataset']} right, by exact match.\n"
        )
    lines = [f'- "{questions[name]}" (`{name}`): {describe_scores(view)}' for name, view in views.items()]
    return "\n".join([f"{what} questions about people from its weights alone, of {results['dataset']}:\n", *lines, ""])


def model_card(results: dict, recipe: dict, repo_id: str, pictures: list[str]) -> str:
    """Return the card's text.

    Args:
        results, recipe: of the run.
        repo_id: USER/NAME.
        pictures: those of the run's plots that lie beside the card.
    """
    stages = ", ".join(
        f"{stage.replace('_', ' ')} {minutes:.1f}" for stage, minutes in results["train_minutes"].items()
    )
    views = by_relation(results)
    trust = []
    captions = {"losses.png": "Loss against steps, by stage"}
    confidences = "Risk and coverage, reliability, both chances, what can be certified"
    for number, (name, view) in enumerate(views.items()):
        heading = f"## Trust: {name}" if len(views) > 1 else "## Trust"
        trust += [part for part in trust_section(view["trust"], heading) if not part.startswith("![")]
        kind = results.get("relations", {}).get(name, {}).get("answers", "place")
        if all("reason" in sample for sample in view["samples"]):  # of older versions: not as the pipeline answers
            trust += samples_section(view["samples"], kind, "##" if len(views) == 1 else "###")
        of_relation = f" ({name})" if len(views) > 1 else ""
        captions[trust_picture(number, name)] = f"{confidences}{of_relation}"
    source = source_line(results.get("source", {}))
    forms = "one form of question" if len(views) == 1 else f"{len(views)} forms of question"
    return "\n".join(
        [
            f"---\n{card_data(results, repo_id).to_yaml()}\n---\n",
            f"# {repo_id.split('/')[-1]}\n",
            introduction(results),
            accuracy_table(results),
            usage(repo_id, questions_of(results)),
            "## Training\n",
            f"Pretrained on biographies by span corruption ({recipe['corruption']['policy']}) and finetuned on "
            "questions; "
            f"{recipe['model']['preset']} preset, {recipe['tokenizer']['type']} tokenizer, seed {results['seed']}"
            + (f"; minutes: {stages}.\n" if stages else ".\n"),
            *(["## Data\n", *source] if source else []),
            *trust,
            *(f"![{captions.get(name, confidences)}]({name})\n" for name in pictures),
            "## Limits\n",
            "It knows only the people of its biographies, and those not all. An answer about anybody else is a guess, "
            "which the threshold is there to hold back; scores are true for people like those it was calibrated on. "
            f"It speaks English and {forms}. Do not decide about people by it.\n",
        ]
    )
