"""How much of a device's matrix rate a training step reaches, by batch size, and how fast answers are generated.

    python -m benchmarks.utilisation --peak 989 --output benchmarks/results/utilisation.cuda.json        # an H100
    python -m benchmarks.utilisation --shapes 3.3m --batch-sizes 32 128 --output utilisation.cpu.json    # two cores

Model FLOPs utilisation (Chowdhery et al. 2022, arXiv 2204.02311, appendix B) is what a step's tokens need, over its
time and the device's rate: a token needs 6 FLOPs for each weight that multiplies it, and 12 L T C for the attention of
L layers to T tokens with width C, as if nothing were masked. The rate is the best that a product of two large matrices
reaches here in the same format, and also the maker's where `--peak` gives it, in TFLOP/s. The text is random tokens, T
in every row; the format is bfloat16 where the device multiplies it faster. A batch that does not fit is named as such.
"""

import sys
from dataclasses import replace

import torch
from accelerate import Accelerator

from artifacts.machine import describe_machine, name_machine
from benchmarks.command_line import available_device, default_device, new_parser, positive_float, positive_int
from benchmarks.harness import Point, Record, failed, failures, results_of, section, successes, write_report
from benchmarks.measurement import PeakMemory, measure_matmul_rate, time_call
from benchmarks.peer_models import OURS, our_recipe
from benchmarks.plain_mingpt import Shape
from configuration.errors import run_main, show
from configuration.recipe import build_config
from modeling_minigpt import MiniGPTForCausalLM
from training.machine_speed import has_fast_bfloat16
from training.precision import compile_parts
from training.stepper import Stepper

# The practical's, and GPT-2's smallest with as many tokens as it reads.
SHAPES = {"3.3m": Shape(), "124m": Shape(layers=12, heads=12, width=768, block=1024, vocabulary=50257)}
BATCH_SIZES = {"3.3m": [128, 512, 2048, 8192], "124m": [4, 8, 16, 32, 64]}
PROMPT = 16  # tokens; the rest of the block, or 112 of it, is generated


def build_model(shape: Shape) -> MiniGPTForCausalLM:
    """Return a model as the recipe `cs224n` has it, of a shape; the head of a large vocabulary is its embedding."""
    torch.manual_seed(0)
    tied = shape.vocabulary > 8 * shape.width
    derived = {"vocab_size": shape.vocabulary, "pad_token_id": None, "eos_token_id": None}
    return MiniGPTForCausalLM(build_config(our_recipe(OURS, shape), **derived, tie_word_embeddings=tied))


def flops_per_token(model: MiniGPTForCausalLM, length: int) -> int:
    """Return the FLOPs of the model's products for a token in a text of `length`, forwards and backwards."""
    config = model.config
    weights = [parameter for parameter in model.model.layers.parameters() if parameter.ndim == 2]
    multiplied = sum(weight.numel() for weight in [*weights, model.lm_head.weight])
    return 6 * multiplied + 12 * config.num_hidden_layers * length * config.hidden_size


def measure_training(shape: Shape, rows: int, device: torch.device, dtype: torch.dtype) -> dict:
    """Time steps of the recipe's optimizers on whole blocks, whatever is compiled being so before."""
    recipe = our_recipe(OURS, shape)
    accelerator = Accelerator(cpu=device.type == "cpu", mixed_precision="bf16" if dtype == torch.bfloat16 else "no")
    peak = PeakMemory(device)
    model = build_model(shape)
    compile_parts(model, device)
    stage = replace(recipe.pretrain, batch_size=rows)
    # One step in all: each is the first, at the full rate.
    stepper = Stepper.prepare(model, stage, accelerator, total_steps=1, muon_dtype=dtype)
    ids = torch.randint(shape.vocabulary, (rows, shape.block), generator=torch.Generator().manual_seed(0))
    batch = {"input_ids": ids, "labels": ids}

    def step() -> None:
        stepper.step(0, batch)

    for _ in range(3):
        step()
    seconds = time_call(step, at_least=2.0).median
    tokens = rows * shape.block
    memory = peak.read()
    ceiling = measure_matmul_rate(device, dtype, 8192 if device.type == "cuda" else 2048)
    rate = flops_per_token(model, shape.block) * tokens / seconds
    return {
        "tokens_per_second": tokens / seconds,
        "flops_per_second": rate,
        "ceiling": ceiling,
        "of_ceiling": rate / ceiling,
        "peak_bytes": memory,
    }


@torch.inference_mode()
def measure_generation(shape: Shape, rows: int, device: torch.device, dtype: torch.dtype) -> dict:
    """Time greedy, cached generation after a prompt of random tokens."""
    peak = PeakMemory(device)
    model = build_model(shape).to(device, dtype).eval()
    prompt = torch.randint(shape.vocabulary, (rows, PROMPT), generator=torch.Generator().manual_seed(0)).to(device)
    new = min(shape.block - PROMPT, 112)

    def generate() -> None:
        ids = model.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=new, do_sample=False)
        assert ids.shape == (rows, PROMPT + new)

    generate()
    return {"tokens_per_second": rows * new / time_call(generate).median, "peak_bytes": peak.read()}


TASKS = {"training": measure_training, "generation": measure_generation}


def measure(point: Point, device: str) -> dict:
    """Measure a task on a shape with `size` rows."""
    where = torch.device(device)
    dtype = torch.bfloat16 if has_fast_bfloat16(where) else torch.float32
    return {**TASKS[point.task](SHAPES[point.subject], point.size, where, dtype), "format": str(dtype)[6:]}


def report(content: dict) -> str:
    """Return the results as Markdown, one table per task."""
    results = results_of(content)
    peak = content["peak"]
    introduction = (
        f"{name_machine(content['machine'])}. Blocks are whole "
        f"({', '.join(f'{name}: {shape.block:,} tokens' for name, shape in SHAPES.items())}); {PROMPT} tokens are "
        "read before the first is generated."
    )
    sections = []
    for task in TASKS:
        columns = ["shape", "rows", "format", "tokens/s"]
        if task == "training":
            columns += ["TFLOP/s", "% of the best product's", *([f"% of {peak:g} TFLOP/s"] if peak else [])]
        rows = []
        for point, rounds in results.items():
            if point.task != task or failed(rounds):
                continue
            (found,) = successes(rounds)
            row = [point.subject, f"{point.size:,}", found["format"], f"{found['tokens_per_second']:,.0f}"]
            if task == "training":
                row += [f"{found['flops_per_second'] / 1e12:.3g}", f"{100 * found['of_ceiling']:.0f}"]
                row += [f"{100 * found['flops_per_second'] / (1e12 * peak):.0f}"] if peak else []
            memory = found["peak_bytes"]
            rows.append([*row, "–" if memory is None else f"{memory / 2**20:,.0f}"])
        sections.append(section(task.capitalize(), [*columns, "peak memory, MiB"], rows))
    return write_report("How much of the device's rate is used", introduction, *sections, failures(results))


def main(argv: list[str] | None = None) -> int:
    """Measure every point; return the exit status, 1 where nothing was measured."""
    parser = new_parser(__doc__)
    device = default_device()
    parser.add_argument(
        "--device", type=available_device, choices=["cpu", "cuda"], default=device, help=f"default here: {device}"
    )
    parser.add_argument("--shapes", nargs="+", choices=list(SHAPES), default=list(SHAPES), help="default: all")
    parser.add_argument(
        "--batch-sizes", type=positive_int, nargs="+", metavar="ROWS", help=f"default by shape: {BATCH_SIZES}"
    )
    parser.add_argument("--tasks", nargs="+", choices=list(TASKS), default=list(TASKS), help="default: all")
    parser.add_argument(
        "--peak", type=positive_float, metavar="TFLOPS", help="the device's peak by its data sheet, in TFLOP/s"
    )
    arguments = parser.parse_args(argv)
    points = [
        Point(shape, task, rows)
        for task in arguments.tasks
        for shape in arguments.shapes
        for rows in arguments.batch_sizes or BATCH_SIZES[shape]
    ]

    def command() -> int:
        machine = describe_machine(torch.device(arguments.device))
        record = Record(arguments.output, report, {"machine": machine}, {"peak": arguments.peak})
        record.measure(points, measure, arguments.device)
        show(record.text())
        return int(all(failed(rounds) for rounds in record.results.values()))

    return run_main(command)


if __name__ == "__main__":
    sys.exit(main())
