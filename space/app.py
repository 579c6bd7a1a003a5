"""A page that asks a MiniGPT about people and shows how it arrives at its answers; a Hugging Face Space, or locally:

    python space/app.py runs/quickstart/finetune      # a folder, or an id on the Hub; opens on http://127.0.0.1:7860

In a Space the variable MINIGPT_MODEL names the model. Needs gradio, matplotlib, torch and transformers, no checkout.
"""

import argparse
import html
import os
import re
from functools import partial
from pathlib import Path

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")

import gradio
import torch
from matplotlib.figure import Figure
from transformers import AutoConfig, AutoModelForCausalLM, pipeline

TRUST = {"trust_remote_code": True}
TASK = "closed-book-qa"
CHANCES = {"known": "The person is in the training texts", "correct": "If so, the answer is right"}
NOBODY = "Ada Stone"  # in boxes of models that have no names
MAX_NEW_TOKENS = 64
MAX_QUESTION = 1000  # characters; a name has fewer than a tenth, and the pipeline says why
MAX_TITLE = 3  # questions in the title
SEARCHED = 60  # names from the training texts that are tried as examples
MAX_WAITING = 32  # people whose questions wait for the model, which answers one at a time
ONE_AT_A_TIME = {"concurrency_limit": 1, "concurrency_id": "model"}
# Gradio's own choice for bold text is a file with half of the letters; the others would be of another font.
FONT = gradio.themes.utils.fonts.LocalFont("Source Sans Pro", weights=(400, 700))
CSS = "#chances .html-container, #candidates .html-container { padding: 0 }"  # in line with the answer
THEME = gradio.themes.Default(font=(FONT, "ui-sans-serif", "system-ui", "sans-serif"))


def plain(text: object) -> str:
    """Write a text so that Markdown shows it as it is, on one line: no HTML, link, formula or heading in it is one."""

    def escape(mark: re.Match) -> str:
        named = html.escape(mark[0])
        return named if named != mark[0] else f"&#{ord(mark[0])};"

    # As references to characters: what is written so is text to Markdown, even at the start of a line.
    return re.sub(r"[!-/:-@\[-`{-~]", escape, " ".join(str(text).split()))


def format_chance(chance: float) -> str:
    """Write a chance as people say it: in whole percent, and never as a certainty that it is not."""
    if chance < 0.005:
        return "less than 1 %"
    return "more than 99 %" if chance >= 0.995 else f"{100 * chance:.0f} %"


def draw_bars(shares: dict[str, float]) -> str:
    """Draw shares of 1 as labelled bars, in HTML that shows every label as it is."""
    bars = []
    for label, share in shares.items():
        width = f"{100 * min(1.0, max(0.0, share)):.1f}%"
        bars.append(
            f'<div style="margin: 4px 0"><div>{html.escape(" ".join(label.split()))}'
            f'<span style="float: right">{format_chance(share)}</span></div>'
            f'<div style="height: 8px; border-radius: 4px; background: rgba(127, 127, 127, 0.25)">'
            f'<div style="height: 8px; border-radius: 4px; width: {width}; background: #3b6fb6"></div></div></div>'
        )
    return "".join(bars)


def mix_names(names: list[str], known: set[str]) -> list[str]:
    """Return made-up names, each a first name with another person's last name, without those that are known."""
    firsts = [name.split()[0] for name in names]
    lasts = [name.split()[-1] for name in names]
    mixed = [f"{first} {last}" for first, last in zip(firsts, lasts[1:] + lasts[:1], strict=True)]
    return [name for name in dict.fromkeys(mixed) if name not in known]


def find_task(model: str) -> str | None:
    """Return the task that a model's folder names; where it names several, the one of any question."""
    known = getattr(AutoConfig.from_pretrained(model, **TRUST), "custom_pipelines", None) or {}
    return TASK if TASK in known else next(iter(known), None)


class Demo:
    """What the page shows, computed by one model.

    Args:
        model: a folder with a finetuned MiniGPT, or its id on the Hub.
    """

    def __init__(self, model: str):
        self.name = "/".join(Path(model).parts[-2:])  # of a folder too, as on the Hub
        self.ask_model = pipeline(find_task(model), model=model, **TRUST)
        # By their names; code of before there were several relations knows of none.
        known = getattr(self.ask_model, "relations", {})
        self.questions = {name: relation.format("NAME") for name, relation in known.items()}
        self.tokenizer = self.ask_model.tokenizer
        self.model = AutoModelForCausalLM.from_pretrained(model, attn_implementation="eager", **TRUST)  # has weights
        self.context = self.model.config.max_position_embeddings
        # No text above it can fit: the tokenizer would take seconds and gigabytes to count the tokens of megabytes.
        self.max_text = self.context * max(map(len, self.tokenizer.get_vocab()))
        self.examples = self.find_examples()

    def find_examples(self) -> dict[str, str]:
        """Return a name that this model knows well, an uncertain one and a made-up one, and which is which.

        A model of an older version has no names, and so no examples.
        """
        text = getattr(getattr(self.ask_model, "names", None), "text", "")
        names = [name for name in text.split("\n") if len(name.split()) > 1]
        names = names[:: max(1, len(names) // SEARCHED)][:SEARCHED]
        if not names:
            return {}
        scores = {
            name: result["score"] for name, result in zip(names, self.ask_model(names, threshold=0), strict=True)
        }
        strangers = mix_names(names, set(text.split("\n")))
        strange = dict(zip(strangers, self.ask_model(strangers, threshold=0), strict=True))
        surest = max(names, key=scores.__getitem__)
        half = min(names, key=lambda name: abs(scores[name] - 0.5))  # the nearest to an even chance
        unknown = sorted(strangers, key=lambda name: strange[name]["score"])[:1]
        examples = {surest: "known well"}
        examples.setdefault(half, "uncertain")
        return examples | dict.fromkeys(unknown, "made up")

    def ask(self, name: str, relation: str = "") -> tuple[str, str, str, Figure | None]:
        """Answer about a name: in Markdown, both chances and the candidates as bars, and the attention to the name.

        Args:
            relation: what to ask; by default what the text asks for, and of a name alone the model's first relation.
        """
        if len(name or "") > MAX_QUESTION:
            return (
                f"## I don't know\n\nneither a name nor a question: longer than {MAX_QUESTION} characters",
                "",
                "",
                None,
            )
        result = self.ask_model(name or "", top_k=5, **({"relation": relation} if relation else {}))
        if result["abstained"]:
            answer = f"## I don't know\n\n{plain(result['reason'])}"
        else:
            meaning = "probability of being right" if result["calibrated"] else "uncalibrated probability"
            answer = f"## {plain(result['answer'])}\n\n{format_chance(result['score'])} {meaning}"
        chances = {CHANCES[head]: result[head] for head in CHANCES if result.get(head) is not None}
        candidates = {one["answer"] or "(nothing)": one["score"] for one in result["candidates"]}
        # A headline beside "I don't know" would be an answer after all: all candidates are of one size.
        title = "What the model would have guessed" if result["abstained"] else "Candidates"
        listed = f"<div>{title}</div>{draw_bars(candidates)}" if candidates else ""
        return answer, draw_bars(chances), listed, self.attention(result["question"]) if candidates else None

    def show(self, name: str, relation: str = "") -> tuple[str, str, str, dict]:
        """Answer as `ask` does, for the page, which has a place for the picture where there is one."""
        *texts, figure = self.ask(name, relation)
        return (*texts, gradio.update(value=figure, visible=figure is not None))

    def show_example(self, name: str) -> tuple[str, str, str, str, dict]:
        """Answer about a name as `show` does, after the name itself."""
        return (name, *self.show(name))

    def attention(self, question: str) -> Figure:
        """Draw how strongly each head looks from where the answer begins to each token of the question."""
        encoded = self.tokenizer(question + self.tokenizer.mask_token, return_tensors="pt")
        with torch.no_grad():
            layers = self.model(**encoded, output_attentions=True).attentions
        weights = torch.cat([layer[0, :, -1] for layer in layers])  # (layers · heads, T)
        tokens = [self.tokenizer.decode([token]).strip() or "␣" for token in encoded.input_ids[0].tolist()]
        tokens[-1] = "(answer)"
        # Narrow enough to be read on a phone, where it fills the page's width.
        figure = Figure(figsize=(0.3 * len(tokens) + 1.2, 0.18 * len(weights) + 1.9), dpi=120, layout="constrained")
        axes = figure.subplots()
        image = axes.imshow(weights.float().numpy(), aspect="auto", cmap="cividis", vmin=0.0, vmax=1.0)
        axes.set_xticks(range(len(tokens)), tokens, rotation=60, ha="right", rotation_mode="anchor", parse_math=False)
        heads = layers[0].shape[1]
        numbers = [f"{layer + 1}.{head + 1}" for layer in range(len(layers)) for head in range(heads)]
        axes.set_yticks(range(len(numbers)), numbers, fontsize=7)
        for layer in range(1, len(layers)):
            axes.axhline(heads * layer - 0.5, color="white", linewidth=1)
        axes.set(ylabel="layer.head", title="Attention from the answer to the question")
        figure.colorbar(image, label="attention weight", orientation="horizontal", aspect=40, shrink=0.8)
        return figure

    def complete(self, text: str, new_tokens: int, temperature: float) -> str:
        """Continue a text; temperature 0 takes the most probable token each time."""
        if not (text or "").strip():
            return ""
        refusal = f"The text is too long for the model's context of {self.context} tokens."
        if len(text) > self.max_text:
            raise gradio.Error(refusal)
        encoded = self.tokenizer(text, return_tensors="pt")
        room = self.context - encoded.input_ids.shape[1]
        if room < 1:
            raise gradio.Error(refusal)
        how = {"do_sample": True, "temperature": temperature, "top_k": 0} if temperature > 0 else {"do_sample": False}
        limit = min(int(new_tokens), MAX_NEW_TOKENS, room)
        written = self.ask_model.model.generate(**encoded, max_new_tokens=limit, **how)
        return self.tokenizer.decode(written[0], skip_special_tokens=False)

    def page(self) -> gradio.Blocks:
        """Lay out the page."""
        with gradio.Blocks(title="MiniGPT") as page:
            title = " ".join(list(self.questions.values())[:MAX_TITLE]) or "Where was NAME born?"
            says = f"{plain(self.name)} answers from its weights alone, or says that it does not know."
            gradio.Markdown(f"# {plain(title)}\n\n{says}", latex_delimiters=[])
            with gradio.Tab("Ask"):
                self.lay_out_questions()
            with gradio.Tab("Complete"):
                self.lay_out_completion()
        # No request skips the queue.
        return page.queue(max_size=MAX_WAITING, api_open=False)

    @property
    def somebody(self) -> str:
        """A name to write into boxes that are empty."""
        return next(iter(self.examples), NOBODY)

    def lay_out_questions(self) -> None:
        """Lay out the box for a name, examples, and what is shown of an answer."""
        name = gradio.Textbox(
            label="Name or question", placeholder=self.somebody, autofocus=True, max_length=MAX_QUESTION
        )
        asked = [name]
        if len(self.questions) > 1:
            choices = [("detect from the text", ""), *((text, key) for key, text in self.questions.items())]
            asked.append(gradio.Dropdown(choices, value="", label="Question"))
        ask = gradio.Button("Ask", variant="primary")
        with gradio.Row(elem_id="examples"):
            buttons = [gradio.Button(f"{one} ({kind})", size="sm") for one, kind in self.examples.items()]
        with gradio.Row():
            with gradio.Column():
                answer = gradio.Markdown(elem_id="answer", latex_delimiters=[])
                chances = gradio.HTML(elem_id="chances")
            with gradio.Column():
                candidates = gradio.HTML(elem_id="candidates")
        attention = gradio.Plot(show_label=False, elem_id="attention", visible=False)
        parts = [answer, chances, candidates, attention]
        for button, example in zip(buttons, self.examples, strict=True):
            show = partial(self.show_example, example)
            button.click(show, None, [name, *parts], show_progress_on=answer, **ONE_AT_A_TIME)
        gradio.on([ask.click, name.submit], self.show, asked, parts, show_progress_on=answer, **ONE_AT_A_TIME)

    def lay_out_completion(self) -> None:
        """Lay out the box for a text, how to continue it, and the continued text."""
        begun = f"{self.somebody}. {self.somebody} was born in"
        text = gradio.Textbox(label="Text", placeholder=begun, max_length=self.max_text)
        new_tokens = gradio.Slider(1, MAX_NEW_TOKENS, value=24, step=1, label="New tokens")
        temperature = gradio.Slider(0.0, 2.0, value=0.0, step=0.1, label="Temperature")
        complete = gradio.Button("Complete", variant="primary")
        written = gradio.Textbox(label="Completed text", elem_id="written", lines=4)
        settings = [text, new_tokens, temperature]
        gradio.on([complete.click, text.submit], self.complete, settings, written, **ONE_AT_A_TIME)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    model = os.environ.get("MINIGPT_MODEL")
    parser.add_argument("model", nargs="?", default=model, help="a folder or an id on the Hub ($MINIGPT_MODEL)")
    host = "0.0.0.0" if "SPACE_ID" in os.environ else "127.0.0.1"
    parser.add_argument("--host", default=host, help="address to listen on (%(default)s)")
    parser.add_argument("--port", type=int, default=7860, help="port to listen on (%(default)s)")
    arguments = parser.parse_args()
    if not arguments.model:
        parser.error("no model is named: give a folder or an id on the Hub, or set MINIGPT_MODEL")
    try:
        demo = Demo(arguments.model)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        parser.error(f"{arguments.model}: not a MiniGPT that can be loaded: {' '.join(str(error).split())[:200]}")
    demo.page().launch(
        server_name=arguments.host,
        server_port=arguments.port,
        max_file_size="1kb",
        theme=THEME,
        css=CSS,
        footer_links=[],
    )


if __name__ == "__main__":
    main()
