"""A page that asks a MiniGPT where people were born and shows why it answers so; a Hugging Face Space, or at home:

    python space/app.py runs/quickstart/finetune      # a folder, or an id on the Hub; opens on http://127.0.0.1:7860

In a Space the variable MINIGPT_MODEL names the model. Needs gradio, matplotlib, torch and transformers, no checkout.
"""

import argparse
import os
from pathlib import Path

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")

import gradio
import torch
from matplotlib.figure import Figure
from transformers import AutoModelForCausalLM, pipeline

TRUST = {"trust_remote_code": True}
MAX_NEW_TOKENS = 64


class Demo:
    """What the page shows, computed by one model.

    Args:
        model: a folder with a finetuned MiniGPT, or its id on the Hub.
    """

    def __init__(self, model: str):
        self.name = "/".join(Path(model).parts[-2:])  # of a folder too, as on the Hub
        self.ask_model = pipeline("birthplace-qa", model=model, **TRUST)
        self.tokenizer = self.ask_model.tokenizer
        self.model = AutoModelForCausalLM.from_pretrained(model, attn_implementation="eager", **TRUST)  # has weights

    def ask(self, name: str) -> tuple[str, dict[str, float], Figure | None]:
        """Answer about a name: in Markdown, the candidates with their chances, and the attention to the name."""
        result = self.ask_model(name or "", top_k=5)
        if result["abstained"]:
            answer = f"## I don't know\n\n{result['reason']}"
        else:
            chance = "chance to be right" if result["calibrated"] else "probability, not calibrated"
            answer = f"## {result['answer']}\n\n{result['score']:.1%} {chance}"
        candidates = {one["answer"] or "(nothing)": one["score"] for one in result["candidates"]}
        return answer, candidates, self.attention(result["question"]) if candidates else None

    def attention(self, question: str) -> Figure:
        """Draw how strongly each head looks from where the answer begins to each token of the question."""
        encoded = self.tokenizer(question + self.tokenizer.mask_token, return_tensors="pt")
        with torch.no_grad():
            layers = self.model(**encoded, output_attentions=True).attentions
        weights = torch.cat([layer[0, :, -1] for layer in layers])  # (layers · heads, T)
        tokens = [self.tokenizer.decode([token]) for token in encoded.input_ids[0].tolist()]
        figure = Figure(figsize=(0.45 * len(tokens) + 2, 0.16 * len(weights) + 1.4), layout="constrained")
        axes = figure.subplots()
        image = axes.imshow(weights.float().numpy(), aspect="auto", cmap="cividis", vmin=0.0)
        axes.set_xticks(range(len(tokens)), tokens, rotation=60, ha="right")
        heads = layers[0].shape[1]
        axes.set_yticks([heads * index + heads / 2 - 0.5 for index in range(len(layers))], range(1, len(layers) + 1))
        axes.set(ylabel="layer, with its heads", title="Attention from the answer to the question")
        figure.colorbar(image, label="weight")
        return figure

    def complete(self, text: str, new_tokens: int, temperature: float) -> str:
        """Go on writing a text; temperature 0 takes the most probable token each time."""
        if not (text or "").strip():
            return ""
        encoded = self.tokenizer(text, return_tensors="pt")
        room = self.model.config.max_position_embeddings - encoded.input_ids.shape[1]
        if room < 1:
            raise gradio.Error(f"The text is longer than the {self.model.config.max_position_embeddings} tokens read.")
        how = {"do_sample": True, "temperature": temperature, "top_k": 0} if temperature > 0 else {"do_sample": False}
        written = self.ask_model.model.generate(**encoded, max_new_tokens=min(int(new_tokens), room), **how)
        return self.tokenizer.decode(written[0], skip_special_tokens=False)

    def page(self) -> gradio.Blocks:
        """Lay out the page."""
        with gradio.Blocks(title="MiniGPT") as page:
            gradio.Markdown(f"# Where was NAME born?\n\n`{self.name}` answers from its weights alone, or says so.")
            with gradio.Tab("Ask"):
                name = gradio.Textbox(label="Name or question", placeholder="Ada Stone", autofocus=True)
                ask = gradio.Button("Ask", variant="primary")
                with gradio.Row():
                    answer = gradio.Markdown(elem_id="answer", min_height=90)
                    candidates = gradio.Label(label="Candidates", num_top_classes=5, elem_id="candidates")
                attention = gradio.Plot(label="Attention", elem_id="attention")
                parts = [answer, candidates, attention]
                gradio.on([ask.click, name.submit], self.ask, name, parts, show_progress_on=attention)
            with gradio.Tab("Complete"):
                text = gradio.Textbox(label="Text", placeholder="Ada Stone. Ada Stone was born in")
                new_tokens = gradio.Slider(1, MAX_NEW_TOKENS, value=24, step=1, label="New tokens")
                temperature = gradio.Slider(0.0, 2.0, value=0.0, step=0.1, label="Temperature")
                complete = gradio.Button("Complete", variant="primary")
                written = gradio.Textbox(label="Written", elem_id="written", lines=4)
                gradio.on([complete.click, text.submit], self.complete, [text, new_tokens, temperature], written)
        return page


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    model = os.environ.get("MINIGPT_MODEL")
    parser.add_argument("model", nargs="?", default=model, help="a folder or an id on the Hub ($MINIGPT_MODEL)")
    parser.add_argument("--host", default="0.0.0.0" if "SPACE_ID" in os.environ else "127.0.0.1", help="%(default)s")
    parser.add_argument("--port", type=int, default=7860, help="%(default)s")
    arguments = parser.parse_args()
    if not arguments.model:
        parser.error("which model? name a folder or an id on the Hub, or set MINIGPT_MODEL")
    try:
        demo = Demo(arguments.model)
    except (OSError, ValueError, KeyError) as error:
        parser.error(f"{arguments.model}: no MiniGPT that can be loaded: {' '.join(str(error).split())[:200]}")
    demo.page().launch(server_name=arguments.host, server_port=arguments.port)


if __name__ == "__main__":
    main()
