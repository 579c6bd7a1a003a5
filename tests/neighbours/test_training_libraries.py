"""A MiniGPT trains unchanged in transformers' Trainer, with PEFT's LoRA and in TRL's SFTTrainer."""

import datasets
import pytest
import torch
from transformers import AutoModelForCausalLM, DataCollatorForLanguageModeling, Trainer, TrainingArguments

from tests.neighbours.conftest import VARIANTS

MATRICES = ["q_proj", "k_proj", "v_proj", "o_proj", "up_proj", "down_proj"]
QUIET = {"report_to": [], "use_cpu": True, "logging_steps": 1, "disable_tqdm": True, "max_steps": 6}


def losses(trainer):
    """Train; return the loss of each step."""
    trainer.train()
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


@pytest.mark.parametrize("variant", VARIANTS)
def test_trainer(load, variant, tokenizer, texts, tmp_path):
    rows = datasets.Dataset.from_dict({"text": texts}).map(
        lambda row: tokenizer(row["text"], truncation=True, max_length=48), remove_columns="text"
    )
    arguments = TrainingArguments(
        str(tmp_path), per_device_train_batch_size=4, learning_rate=1e-2, gradient_checkpointing=True,
        eval_strategy="steps", eval_steps=6, save_steps=6, **QUIET,
    )  # fmt: skip
    collator = DataCollatorForLanguageModeling(tokenizer, mlm=False)
    trainer = Trainer(
        load(variant), arguments, train_dataset=rows, eval_dataset=rows.select(range(8)), data_collator=collator,
        processing_class=tokenizer,
    )  # fmt: skip
    found = losses(trainer)
    assert found[-1] < found[0] - 0.3
    saved = AutoModelForCausalLM.from_pretrained(tmp_path / "checkpoint-6")
    assert torch.equal(saved.lm_head.weight, trainer.model.lm_head.weight)


@pytest.mark.parametrize("targets", [MATRICES, "all-linear"], ids=["matrices", "all-linear"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_lora_adapters(load, variant, targets, batch, tmp_path):
    from peft import LoraConfig, PeftModel, get_peft_model

    model = get_peft_model(load(variant), LoraConfig(task_type="CAUSAL_LM", r=4, target_modules=targets))
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    assert 0 < sum(parameter.numel() for parameter in trained) < model.num_parameters() / 2
    optimizer, found = torch.optim.AdamW(trained, lr=1e-2), []
    for _ in range(6):
        loss = model(**batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        found.append(loss.item())
    assert found[-1] < found[0] - 0.1
    model.save_pretrained(tmp_path)
    model.eval()
    loaded = PeftModel.from_pretrained(load(variant), tmp_path).eval()
    assert torch.equal(loaded(**batch).logits, model(**batch).logits)
    prompt = {name: batch[name] for name in ("input_ids", "attention_mask")}
    written = model.generate(**prompt, max_new_tokens=4, do_sample=False)
    merged = loaded.merge_and_unload()
    torch.testing.assert_close(merged(**batch).logits, model(**batch).logits, atol=1e-4, rtol=1e-4)
    assert torch.equal(merged.generate(**prompt, max_new_tokens=4, do_sample=False), written)


def test_an_adapter_of_the_model_itself_is_saved_alone(load, batch, tmp_path):
    from peft import LoraConfig

    model = load().eval()
    model.add_adapter(LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj"], init_lora_weights=False))
    model.save_pretrained(tmp_path)
    assert not (tmp_path / "config.json").exists()
    again = load().eval()
    again.load_adapter(str(tmp_path))
    assert torch.equal(again(**batch).logits, model(**batch).logits)
    assert not torch.equal(load().eval()(**batch).logits, model(**batch).logits)


@pytest.mark.parametrize("kind", ["text", "packed", "prompt-completion"])
def test_sft_trainer(load, kind, tokenizer, texts, tmp_path):
    from trl import SFTConfig, SFTTrainer

    questions = {"prompt": ["Where was Ada Stone born?"] * 32, "completion": ["Rome"] * 32}
    rows = datasets.Dataset.from_dict(questions if kind == "prompt-completion" else {"text": texts})
    arguments = SFTConfig(
        str(tmp_path), per_device_train_batch_size=4, learning_rate=1e-2, max_length=48, packing=kind == "packed",
        bf16=False, save_strategy="no", **QUIET,
    )  # fmt: skip
    found = losses(SFTTrainer(load(), args=arguments, train_dataset=rows, processing_class=tokenizer))
    assert found[-1] < found[0] - 0.3
