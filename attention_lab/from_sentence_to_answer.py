# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # From a sentence to an answer
#
# A language model reads sentences about people. Later somebody asks "Where was this person born?", without showing it
# any sentence. How does a fact get from the text into the weights, and out again?
#
# This notebook follows one biography all the way: its corrupted spans, its tokens and labels, the loss, training, the
# answer, and which of its tokens Linformer, BigBird and selected-block attention would read. Training and scoring are
# those of `train.py`; only the model is smaller, so that the whole notebook takes about a minute on one core. It needs
# no network. The people are invented.
#
# To open it: `pip install -e ".[lab]"`, then `jupyter lab attention_lab/from_sentence_to_answer.ipynb`.

# %%
import importlib.util
import sys
import warnings
from pathlib import Path


class SetupError(ImportError):
    """Say in one line what is missing; a notebook shows that line alone, without a traceback."""

    def _render_traceback_(self):
        return [f"SetupError: {self}"]


# The checkout is this folder or one above it, or where `pip install -e` has found the package.
folders = [Path.cwd(), *Path.cwd().parents]
package = importlib.util.find_spec("modeling_minigpt")
if package is not None and package.origin is not None:
    folders.append(Path(package.origin).parents[1])
checkout = next((folder for folder in folders if (folder / "attention_lab" / "toy_model.py").is_file()), None)
if checkout is None:
    raise SetupError(f"no MiniGPT checkout in {Path.cwd()} or above it: open this notebook inside a checkout")
needed = ("accelerate", "datasets", "matplotlib", "scipy", "torch", "transformers")
missing = [name for name in needed if importlib.util.find_spec(name) is None]
if missing:
    raise SetupError(f"not installed: {', '.join(missing)}; run pip install -e '.[lab]' in {checkout}")
sys.path.insert(0, str(checkout))
warnings.filterwarnings("ignore", message="IProgress not found")  # progress bars are not needed here

# %%
import math
import tempfile
from dataclasses import replace
from itertools import islice

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.colors import ListedColormap, PowerNorm
from matplotlib.patches import Patch
from matplotlib.ticker import PercentFormatter

from attention_lab.patterns import tokens_read, with_attention
from attention_lab.structure import attention_matrices, far_part
from configuration.recipe import build_config, load_recipe
from configuration.recipe_names import find_recipe
from configuration.schema import CorruptionOptions
from data_scripts.span_corruption import TextCorruptor
from data_scripts.splits import made_up_people
from evaluation.answers import answer_questions, exact_matches
from evaluation.baselines import ceiling, popular_places
from evaluation.plots import BLUE, GREEN, ORANGE, PINK
from evaluation.trained_on import TrainedOn
from training.loop import train_stage
from training.pipelines import build_pipeline
from training.preview import mark_targets
from training.run_context import build_run, init_model, training_batches

torch.set_num_threads(1)  # the matrices are so small that more threads would only wait for each other
plt.rcParams.update({"figure.dpi": 90, "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False})

# %% [markdown]
# ## 1. People, sentences, questions
#
# The recipe is [`quickstart`](../configuration/recipes/quickstart.yaml), with fewer people and a smaller model. It
# invents people; each has a few sentences that begin with the name as a title. Half of the people also have a question
# with its answer to train on. The other half is what counts: **their answers are in the sentences only.** We follow
# one of them.

# %%
output = tempfile.TemporaryDirectory()
sizes = {
    "data": {"people": 120, "calibration_questions": 0, "withheld_people": 0},
    "tokenizer": {"vocab_size": 500},
    "model": {"hidden_size": 64, "num_hidden_layers": 2, "max_position_embeddings": 64},
    **{stage: {"batch_size": 32, "muon_bfloat16": "false"} for stage in ("pretrain", "finetune", "no_pretraining")},
    "run": {"mixed_precision": "no", "trackers": "[]"},
}
settings = [f"{section}.{key}={value}" for section, values in sizes.items() for key, value in values.items()]
settings.append(f"output={output.name}")
recipe = load_recipe(find_recipe("quickstart"), settings)
run = build_run(recipe)
tokenizer = run.tokenizer
documents = list(run.data.documents)
dev_questions = list(run.data.open_scored())

question = dev_questions[0]
numbers = [number for number, text in enumerate(documents) if text.startswith(f"{question.name}. ")]
print(f"{len(documents)} sentences, {len(run.data.train)} questions to train on, {len(dev_questions)} to score")
print(f"\nquestion: {question.text}\nanswer:   {question.answer}\n")
print(*(documents[number] for number in numbers), sep="\n")

# %% [markdown]
# ## 2. Corrupted spans
#
# Predicting sentences from left to right is a poor preparation for questions: a birthplace often comes before the
# words that ask for it. **Span corruption** takes a span out of a sentence, leaves a sentinel ⁇ in its place, and puts
# the span after the text. The model has to restore it.
#
# The first policy is the one of Stanford's CS224N practical: any span of the sentence, `prefix⁇suffix⁇span`. The
# second, which the recipe uses, prefers names and places (*salient spans*) and usually cuts the sentence down to its
# title, a few characters of context and the span, which looks much like a question and its answer.

# %%
places = frozenset(other.answer for other in run.data.train)
for options in (CorruptionOptions(policy="random-span"), recipe.corruption):
    corruptor = TextCorruptor([documents[numbers[0]]], options, places)
    texts = corruptor.corrupt(recipe.seed, range(5), [0] * 5, tokenizer.mask_token)  # of five epochs
    print(f"{options.policy}:", *texts, sep="\n    ")

# %% [markdown]
# Below are the first rows of pretraining that are about our person, in the order in which the model sees them, and the
# training question of another person, which is one of its rows, too. Each epoch corrupts a sentence in another way.
# **Brackets mark the tokens in the loss.** The title is in the loss in only a quarter of the rows, because nothing
# before it says who comes next; of a question, only the answer is in the loss.


# %%
def rows_about(batches, examples):
    """Yield (step, row) for each time that pretraining sees one of these examples, each row alone."""
    for step in range(len(batches)):
        for place in np.flatnonzero(np.isin(batches.rows(step).examples, examples)):
            yield step, batches.rows(step, np.array([place]))


batches = training_batches(run, "pretrain")
seen = list(islice(rows_about(batches, numbers), 10))
for step, row in seen:
    print(f"step {step:2}:  {mark_targets(run, row).plain.strip()}")
_, asked = next(rows_about(batches, [batches.documents]))  # questions are numbered after the documents
print(f"question: {mark_targets(run, asked).plain.strip()}")

# %% [markdown]
# ## 3. Tokens, ids and labels
#
# The model reads numbers. Byte-level BPE has learned 500 tokens from these sentences: frequent words are one token, a
# rare name is several. The `labels` repeat the ids, except at tokens outside the loss: there they are -100, which
# PyTorch's cross-entropy ignores. Position t predicts the label of position t + 1; the shift is made inside the loss.

# %%
# The longest of these whose title is not in the loss.
example = max((row for _, row in seen if not row.targets[0]), key=lambda row: len(row.ids))
batch = batches.tensors(example)
tokens = [tokenizer.decode([token]) for token in example.ids]
print("position  token          id   label")
for position, (token, label) in enumerate(zip(tokens, batch["labels"][0].tolist(), strict=True)):
    print(f"{position:8}  {token!r:12} {example.ids[position]:4}  {label:6}")

# %% [markdown]
# ## 4. The loss
#
# The loss is the mean, over all target tokens, of -log p(token | the tokens before it), in nats. A model that has
# learned nothing gives each of V tokens the probability 1/V, and its loss is log V. Both claims are checked here.


# %%
@torch.inference_mode()
def surprise(model, ids):
    """Return -log p of each token of one row but the first, given those before it, (T - 1,), in nats."""
    logits = model(input_ids=ids).logits[0, :-1].float()
    return torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="none")


untrained = init_model(run).eval()
counts = batch["labels"][0, 1:] != -100
by_hand = surprise(untrained, batch["input_ids"])[counts].mean().item()
loss = untrained(**batch).loss.item()
print(f"loss of the untrained model: {loss:.4f}; by hand: {by_hand:.4f}; log V: {math.log(len(tokenizer)):.4f}")
assert math.isclose(loss, by_hand, rel_tol=1e-4)
assert abs(loss - math.log(len(tokenizer))) < 0.2

# %% [markdown]
# ## 5. Training, with and without pretraining
#
# Two models of the same size for each number of steps:
#
# - **with pretraining**: that many steps on corrupted sentences, a fifth of the rows being training questions; then
#   two epochs of finetuning on training questions;
# - **without**: that many steps on the training questions alone, which never mention the people that are scored.
#
# Each run has a learning rate that decays to zero at its own last step, so each point of a curve is a run of its own.


# %%
def train(stage, model, **changes):
    """Train a model through a stage of the recipe with some settings changed; return it and its loss curve."""
    arguments = replace(getattr(recipe, stage), **changes)
    batches = training_batches(replace(run, recipe=replace(recipe, **{stage: arguments})), stage)
    with tempfile.TemporaryDirectory() as checkpoints:
        model, progress = train_stage(stage, model, batches, arguments, recipe.run, run.accelerator, Path(checkpoints))
    return model.eval(), progress.history


def accuracy(model, questions):
    """Return the share of questions whose greedy answer is exactly right."""
    answers = answer_questions(model, tokenizer, [one.text for one in questions], max_new_tokens=16)
    return np.mean(exact_matches([answer.text for answer in answers], questions))


steps = (100, 200, 400)
curves = {}
scores = {"with pretraining": [], "without": []}
print("steps                    loss  training questions  other people's")
for count in steps:
    model, curves["with pretraining"] = train("pretrain", init_model(run), steps=count)
    model, _ = train("finetune", model)
    baseline, curves["without"] = train("no_pretraining", init_model(run), epochs=None, steps=count)
    for trained, (name, found) in zip((model, baseline), scores.items(), strict=True):
        found.append(accuracy(trained, dev_questions))
        learned = accuracy(trained, run.data.train)
        print(f"{count:5}  {name:16} {curves[name][-1][1]:6.2f} {learned:19.0%} {found[-1]:15.0%}")

# %%
popular = popular_places(one.answer for one in run.data.train)[0]
always_popular = np.mean([popular in one.answers for one in dev_questions])
figure, (left, right) = plt.subplots(1, 2, figsize=(11, 3.4), layout="constrained")
for name, color, marker, line in (("with pretraining", BLUE, "o", "-"), ("without", ORANGE, "s", "--")):
    left.plot(*zip(*curves[name], strict=True), color=color, linestyle=line, label=name)
    right.plot(steps, scores[name], color=color, marker=marker, linestyle=line, label=name)
left.axhline(math.log(len(tokenizer)), color="black", linestyle=":", label="log V")
left.set(xlabel="step", ylabel="nats per target token", title="Training loss", ylim=(0, None))
left.legend()
right.axhline(ceiling(documents, dev_questions), color="black", linestyle=":", label="upper bound: in a sentence")
right.axhline(always_popular, color=GREEN, linestyle="-.", label="always the most popular place")
right.set(xlabel="steps", ylabel="right answers", ylim=(0, 1.02), xticks=steps)
right.set_title(f"{len(dev_questions)} people without a training question")
right.yaxis.set_major_formatter(PercentFormatter(xmax=1))
figure.legend(*right.get_legend_handles_labels(), loc="outside right center", fontsize="small")
plt.show()

# %% [markdown]
# Without pretraining the model learns its training questions by heart: a loss near zero, every training answer right,
# and nothing about anybody else. Nothing in its data could. With pretraining, questions about the *other* people are
# answered from sentences that were seen in training, although no question ever asked about these people. The losses of
# the two are not comparable: a place, once known, is easier to predict than the words of a sentence.
#
# A run of a minute shows the effect, not its size. The score is a mean over few questions, from one seed; near 50 %
# its standard error is 7 points. The [README](../README.md#results) has the results of full recipes.
#
# ## 6. What pretraining has changed
#
# The same row as in part 3, token by token, before and after training.

# %%
figure, axes = plt.subplots(figsize=(10, 3.4), layout="constrained")
place = np.arange(len(tokens) - 1)
for shift, which, color in ((-0.2, untrained, ORANGE), (0.2, model, BLUE)):
    shades = [(color, 1.0 if is_counted else 0.3) for is_counted in counts]
    axes.bar(place + shift, surprise(which, batch["input_ids"]), 0.4, color=shades)
axes.set_xticks(place, [token.strip() or "_" for token in tokens[1:]], rotation=45, ha="right")
axes.set(xlabel="token (pale: not in the loss)", ylabel="-log p, nats", title="How surprising each token is")
figure.legend([Patch(color=ORANGE), Patch(color=BLUE)], ["untrained", "trained"], loc="outside right center")
plt.show()

# %% [markdown]
# Tokens that do not follow from what is before them remain surprising: the words after the title, or a year that few
# rows asked for. The place, which most rows ask for, has become certain.
#
# ## 7. The answer
#
# The pipeline ranks the places that answer some training question by the probability of the whole answer. There are
# three cases: the pretrained model is asked about our person; the model without pretraining is asked about the same
# person; and the pretrained model is asked about a person who does not exist.

# %%
stranger = made_up_people(run.data, "calibration", 1)[0]
names = (question.name, question.name, stranger)
titles = ("with pretraining", "without pretraining", "a stranger, with pretraining")
figure, plots = plt.subplots(1, 3, figsize=(11, 2.6), sharex=True, layout="constrained")
for plot, name, title, which in zip(plots, names, titles, (model, baseline, model), strict=True):
    ask, _ = build_pipeline(run, "finetune", which, TrainedOn())
    found = ask(name, threshold=0, top_k=5)["candidates"]
    bars = [BLUE if one["answer"] in question.answers and name == question.name else ORANGE for one in found]
    plot.barh([one["answer"] for one in found], [one["score"] for one in found], color=bars)
    plot.invert_yaxis()
    plot.set(xlim=(0, 1), xlabel="probability", title=f"{name}\n{title}")
figure.legend([Patch(color=BLUE), Patch(color=ORANGE)], ["right", "wrong"], loc="outside right center")
plt.show()

# %% [markdown]
# The model without pretraining is as confident as the other, and wrong. The stranger gets an answer, too, and its
# probability alone does not show that it is worthless. How a MiniGPT decides which people it knows, and when to say "I
# don't know", is the subject of [docs/trust.md](../docs/trust.md).
#
# ## 8. Which tokens see each other
#
# In full attention each token reads itself and all tokens before it: O(T²) products for a text of T tokens. Three
# variants read less. Their sizes are those of their recipes, small enough to matter in a sentence (each row of a plot
# is a token that reads, each column a token that is read):
#
# - **Linformer** reads its own segment of 8 tokens and the one before exactly, earlier ones as 8 mixtures (*slots*);
# - **BigBird** reads blocks of 4 tokens: the last two, the first (*global*), and one at random for each head;
# - **selected-block attention** reads the last two blocks, and the two others whose keys promise the largest scores.
#
# All four use the weights that were trained above with full attention; only the weights of Linformer's slots are new,
# and random. The head is the one of the last layer that attends furthest back. The upper plots show what it may read,
# the lower ones its attention weights α, with the mean loss of the sentence; on a single sentence, a difference of a
# tenth of a nat means little.

# %%
ids = tokenizer(max((documents[number] for number in numbers), key=len), return_tensors="pt")["input_ids"]  # (1, T)
readers = {}
for kind in ("full", "linformer", "bigbird", "selected"):
    sibling = load_recipe(find_recipe("quickstart" if kind == "full" else f"quickstart-{kind}"), settings)
    special = {name: getattr(run.config, name) for name in ("vocab_size", "pad_token_id", "eos_token_id")}
    readers[kind] = with_attention(model, build_config(sibling, **special))

layer = run.config.num_hidden_layers - 1
head = int(far_part(attention_matrices(readers["full"], ids)[layer, 0], 8).sum((-2, -1)).argmax())
colors = {"exact": BLUE, "window": BLUE, "slots": ORANGE, "global": ORANGE, "random": PINK, "selected": GREEN}
labels = [tokenizer.decode([token]).strip() or "_" for token in ids[0]]
figure, grid = plt.subplots(2, 4, figsize=(13, 7), layout="constrained", sharex=True, sharey=True)
for (kind, reader), above, below in zip(readers.items(), *grid, strict=True):
    masks = tokens_read(reader, ids, layer, head)
    part = sum(number * mask for number, mask in enumerate(masks.values(), start=1))  # (T, T), 0 where nothing is read
    above.imshow(part, cmap=ListedColormap(["white", *(colors[name] for name in masks)]), vmin=0, vmax=len(masks))
    above.legend([Patch(color=colors[name]) for name in masks], masks, loc="upper right", fontsize="small")
    above.set_title(f"{kind}: what is read")
    weights = attention_matrices(reader, ids)[layer, 0, head]  # (T, T)
    # White where nothing is read; the square root brings out small weights.
    image = below.imshow(weights.where(part > 0, torch.nan), cmap="cividis", norm=PowerNorm(0.5, vmin=0, vmax=1))
    below.set_title(f"α; {surprise(reader, ids).mean():.2f} nats per token")
    below.set_xticks(range(len(labels)), labels, rotation=90, fontsize=6)
for plot in grid[:, 0]:
    plot.set_yticks(range(len(labels)), labels, fontsize=6)
figure.colorbar(image, ax=grid[1], label=f"α of head {head + 1}, layer {layer + 1}")
plt.show()
