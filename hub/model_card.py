"""The model card of a finished run: what it is, what it was trained on, how good it is and how to use it.

Everything in it is read from the run's `results.json` and `recipe.json`; the metrics also stand in the metadata, as
the `model-index` that the Hub renders.
"""

from huggingface_hub import EvalResult, ModelCardData

from evaluation.report import accuracy_rows, trust_section
from evaluation.tables import markdown_table, percent
from hub.local_paths import is_hub_id

METRICS = {  # key in results["trust"]: the metric's type, and its name
    "auroc_correct": ("roc_auc", "AUROC, right over wrong answers"),
    "auroc_made_up": ("roc_auc", "AUROC, known over made-up people"),
    "coverage_at_precision_90": ("coverage", "Coverage at 90 % precision"),
    "ece": ("ece", "Expected calibration error"),
}


def card_data(results: dict, repo_id: str) -> ModelCardData:
    """Return the card's metadata."""
    dataset = {
        "dataset_type": "minigpt-birthplaces",
        "dataset_name": results["dataset"],
        "dataset_split": results["split"],
    }
    task = {"task_type": "question-answering", "task_name": "Where was NAME born?"}
    scores = [("exact_match", "Exact match", results[results["split"]]["accuracy"])]
    scores += [(kind, name, results["trust"][key]) for key, (kind, name) in METRICS.items() if key in results["trust"]]
    start_from = results.get("start_from")
    return ModelCardData(
        language="en",
        license="apache-2.0",
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=["minigpt", "custom_code", "closed-book-question-answering"],
        base_model=start_from if start_from and is_hub_id(start_from) else None,
        model_name=repo_id.split("/")[-1],
        eval_results=[
            EvalResult(**task, **dataset, metric_type=kind, metric_name=name, metric_value=round(value, 4))
            for kind, name, value in scores
            if value is not None
        ],
    )


def usage(repo_id: str) -> str:
    """Return the three ways to use the model."""
    return f"""## How to use

Ask for a birthplace; below the model's threshold it says that it does not know:

```python
from transformers import pipeline

ask = pipeline("birthplace-qa", model="{repo_id}", trust_remote_code=True)
print(ask("Where was NAME born?"))
```

Complete text, as in any causal language model:

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("{repo_id}", trust_remote_code=True)
model = AutoModelForCausalLM.from_pretrained("{repo_id}", trust_remote_code=True)
prompt = tokenizer("Where was NAME born?" + tokenizer.mask_token, return_tensors="pt")
print(tokenizer.decode(model.generate(**prompt)[0]))
```

Take the weights into attention whose time is linear in the context, to train on:

```python
model = AutoModelForCausalLM.from_pretrained("{repo_id}", attention_type="linformer", trust_remote_code=True)
```
"""


def model_card(results: dict, recipe: dict, repo_id: str, pictures: list[str]) -> str:
    """Return the card's text.

    Args:
        results, recipe: of the run.
        repo_id: USER/NAME.
        pictures: those of the run's plots that lie beside the card.
    """
    scored = results[results["split"]]
    shares = accuracy_rows(results)
    stages = ", ".join(
        f"{stage.replace('_', ' ')} {minutes:.1f}" for stage, minutes in results["train_minutes"].items()
    )
    trust = [part for part in trust_section(results["trust"]) if not part.startswith("![")]
    captions = {
        "losses.png": "Loss against steps, by stage",
        "trust.png": "Risk and coverage, reliability, confidences",
    }
    return "\n".join(
        [
            f"---\n{card_data(results, repo_id).to_yaml()}\n---\n",
            f"# {repo_id.split('/')[-1]}\n",
            f'A MiniGPT of {results["parameters"]:,} parameters that answers "Where was NAME born?" from its weights '
            f"alone: {scored['correct']} of {scored['total']} {results['split']} questions of {results['dataset']} "
            "right, by exact match.\n",
            markdown_table(["model", "accuracy"], [[name, percent(share)] for name, share in shares]),
            usage(repo_id),
            "## Training\n",
            f"Pretrained on biographies by span corruption ({recipe['corruption']['policy']}) and finetuned on "
            "questions; "
            f"{recipe['model']['preset']} preset, {recipe['tokenizer']['type']} tokenizer, seed {results['seed']}"
            + (f"; minutes: {stages}.\n" if stages else ".\n"),
            *trust,
            *(f"![{captions[name]}]({name})\n" for name in pictures),
            "## Limits\n",
            "It knows only the people of its biographies, and those not all. An answer about anybody else is a guess, "
            "which the threshold is there to hold back; scores are true for people like those it was calibrated on. "
            "It speaks English and one form of question. Do not decide about people by it.\n",
        ]
    )
