"""The `minigpt` command: ask a model, serve it, describe it, convert checkpoints of other programs.

    minigpt ask runs/quickstart/finetune "Brihi Hikdo"
    minigpt ask USER/NAME                                  # a prompt; an empty line ends it
    minigpt ask USER/NAME --json < names.txt | jq .answer
    minigpt ask USER/NAME --file names.txt > answers.tsv
    minigpt ask USER/NAME --relation studied "Brihi Hikdo"
    minigpt ask USER/NAME --file names.txt --risk 0.2 --stranger-rate 1    # other thresholds than the model's own
    minigpt serve runs/quickstart/finetune --port 8000     # HTTP; needs the extra minigpt-lab[serve]
    minigpt info runs/quickstart/finetune
    minigpt convert mingpt model.params FOLDER --num_attention_heads 8
    minigpt convert gpt2 openai-community/gpt2 FOLDER

A model is a folder with a finetuned MiniGPT, the output folder of a run, or an id on the Hub. The exit status is 2,
after one line on stderr, when it cannot be loaded.
"""

import argparse
import csv
import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from transformers.utils import logging as transformers_logging

from . import __version__, convert_gpt2_checkpoint_to_hf, convert_mingpt_checkpoint_to_hf
from .cli_models_minigpt import CommandError, build_pipeline, find_model, load_model, load_pipeline
from .cli_serve_minigpt import add_serve_command
from .cli_streams_minigpt import (
    BROKEN_PIPE,
    check_stdin,
    discard_output,
    prepare_streams,
    read_stdin,
    report_error,
    to_json,
)
from .drift_minigpt import describe_drift, log_line, read_log
from .facts_minigpt import RelationFacts, explain_missing_tokens
from .pipeline_minigpt import CERTIFIED, ClosedBookPipeline
from .results_minigpt import describe_result
from .risk_control_minigpt import CertificationError

# Of the TSV that `ask --file` writes.
COLUMNS = ("question", "answer", "score", "known", "correct", "reason", "relation", "matched_name")


def describe_answer(result: dict) -> str:
    """Return a pipeline's result as one line: the question, the answer and its chance, or why there is none."""
    # The question has the training's spelling of the name, which need not be the one that was typed.
    question = result["question"] if result["matched_name"] is None else f"{result['question']} (as in training)"
    return f"{question}  {describe_result(result)}"


def read_names(path: Path) -> Iterator[str]:
    """Yield the lines of a UTF-8 file, or of stdin for `-`, without empty ones.

    Raises:
        CommandError: the file cannot be read.
    """
    try:
        # utf-8-sig: spreadsheets write a byte-order mark, which would become part of the first name.
        text = sys.stdin.read() if str(path) == "-" else path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(f"{path}: cannot be read: {error}") from error
    # `str.splitlines` also breaks at characters within a name, such as a form feed; the rows would not be the file's.
    yield from (line.strip() for line in text.split("\n") if line.strip())


def choose_thresholds(pipeline: ClosedBookPipeline, target: dict[str, Any]) -> None:
    """Certify other thresholds for each relation of a pipeline; a relation without a certificate answers nothing.

    Raises:
        ValueError: no relation is calibrated, or a value of the target is out of range.
    """
    calibrated = {name: facts.confidence for name, facts in pipeline.facts.items() if facts.confidence is not None}
    if not calibrated:
        pipeline.threshold_for(**target)
    for name, confidence in calibrated.items():
        certificate = None
        refusal = None
        try:
            certificate = pipeline.threshold_for(**target, relation=name)
        except CertificationError as error:
            refusal = str(error)
        pipeline.set_confidence(name, replace(confidence, certificate=certificate, refusal=refusal))


def ask(arguments: argparse.Namespace) -> None:
    """Answer names or questions from the command line, a file, a pipe or a prompt, one line each."""
    if arguments.file is not None and arguments.names:
        raise CommandError(f"--file cannot be combined with a NAME, found {arguments.names[0]!r:.80}")
    if not arguments.names and str(arguments.file or "-") == "-":
        check_stdin()
    pipeline = load_pipeline(arguments.model)
    names: Iterable[str] = arguments.names
    batch_size = None
    if arguments.file is not None:
        names = read_names(arguments.file)
    elif not arguments.names:
        names = read_stdin()
        batch_size = 1  # answer before the next line, which a person or a program may choose by the answer
    threshold = arguments.threshold
    target = {name: getattr(arguments, name) for name in ("risk", "confidence", "stranger_rate")}
    target = {name: value for name, value in target.items() if value is not None}
    if target:
        if threshold is not None:
            raise CommandError("--threshold cannot be combined with --risk, --confidence or --stranger-rate")
        choose_thresholds(pipeline, target)
    options = {"relation": arguments.relation, "threshold": threshold, "top_k": arguments.top_k}
    options = {name: value for name, value in options.items() if value is not None}
    # An iterator in, an iterator out: the first answers of a long file are written while others are computed.
    results = pipeline(iter(names), batch_size=batch_size, **options)
    table = csv.writer(sys.stdout, dialect="excel-tab", lineterminator="\n")
    if arguments.file is not None and not arguments.json:
        table.writerow(COLUMNS)
    for result in results:
        if arguments.log is not None and result["relation"] is not None:
            append_log(arguments.log, log_line(result))
        if arguments.json:
            print(to_json(result), flush=True)
        elif arguments.file is not None:
            table.writerow(["" if result[column] is None else result[column] for column in COLUMNS])
            sys.stdout.flush()
        else:
            print(describe_answer(result), flush=True)


def append_log(path: Path, line: str) -> None:
    """Append a line to a log; CommandError where it cannot be written."""
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(f"{line}\n")
    except OSError as error:
        raise CommandError(f"{path}: cannot be written: {error}") from error


def describe_facts(facts: RelationFacts) -> dict[str, str]:
    """Return the rows of `info` about one relation."""
    relation = facts.relation
    confidence = facts.confidence
    rows = {
        "relation": f"{relation.name}: {relation.format('NAME')}",
        "candidates": f"{len(facts.candidates):,} ({relation.answers})"
        if facts.candidates
        else "none: any text is an answer",
        "calibration": "none: scores are probabilities that the model gives to its answers",
    }
    certificate = None if confidence is None else confidence.certificate
    if facts.uncalibrated is not None:
        rows["calibration"] = f"none: {facts.uncalibrated}"
    if confidence is not None:
        people = [half.known for half in (confidence.selection, confidence.certification)]
        rows["calibration"] = f"on {sum(map(len, people)):,} people whose questions were held out of training"
        if confidence.known is None:
            rows["calibration"] += ", by one score for both questions (of an older version; calibrate again for two)"
    rows["threshold"] = facts.describe_promise()
    if certificate is not None:
        pair = f"known {certificate.known_threshold:.3f}, correct {certificate.correct_threshold:.3f}"
        rows["threshold"] = f"{pair}: {rows['threshold']}"
    return rows


def info(arguments: argparse.Namespace) -> None:
    """Describe a model on one screen: its parts, then each relation that it can be asked for."""
    model, tokenizer = load_model(arguments.model)
    config = model.config
    attention = ", ".join(dict.fromkeys(config.layer_attention_types))
    rows = {
        "model": find_model(arguments.model),
        "parameters": f"{model.num_parameters():,}",
        "layers": f"{config.num_hidden_layers} of {config.num_attention_heads} heads, width {config.hidden_size}",
        "attention": f"{attention}; {config.position_embedding_type} positions",
        "context": f"{config.max_position_embeddings:,} tokens",
        "tokenizer": f"{type(tokenizer).__name__}, {len(tokenizer):,} entries",
    }
    logged = {}
    if arguments.log is not None:
        try:
            logged = read_log(arguments.log)
        except OSError as error:
            raise CommandError(f"{arguments.log}: cannot be read: {error}") from error
    parts = [rows]
    missing = explain_missing_tokens(tokenizer)
    if missing:
        rows["relation"] = f"none: {missing}"
    for relation, facts in {} if missing else build_pipeline(arguments.model, model, tokenizer).facts.items():
        parts.append(describe_facts(facts))
        if arguments.log is not None and facts.confidence is not None:
            parts[-1]["drift"] = describe_drift(facts.confidence, logged.get(relation, []))
    for part in parts:
        for name, value in part.items():
            print(f"{name:12} {value}")


def read_threshold(text: str) -> float | str:
    """Return a threshold as the pipeline takes it, for argparse."""
    return text if text == CERTIFIED else float(text)


read_threshold.__name__ = "number"  # which argparse names where the text is none


def build_parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    parser = argparse.ArgumentParser(
        prog="minigpt", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--version", action="version", version=f"minigpt {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="{ask,serve,info,convert}")
    command = commands.add_parser("ask", help="answer names or questions", description=ask.__doc__)
    command.add_argument("model", metavar="MODEL", help="a folder, or an id on the Hub")
    command.add_argument("names", nargs="*", metavar="NAME", help="names or questions; without any, a prompt")
    command.add_argument("--file", type=Path, metavar="FILE", help="read one per line (- for stdin), write TSV")
    command.add_argument("--json", action="store_true", help="write one JSON object per line")
    command.add_argument("--relation", metavar="NAME", help="relation to ask a bare name about; by default the first")
    command.add_argument(
        "--threshold",
        type=read_threshold,
        help='abstain below this score; 0 answers always; "certified", the default, uses the certified thresholds',
    )
    command.add_argument("--risk", type=float, help="certify thresholds for at most this fraction of wrong answers")
    command.add_argument("--confidence", type=float, help="probability with which certified limits must be met")
    command.add_argument(
        "--stranger-rate",
        type=float,
        dest="stranger_rate",
        help="certify thresholds that answer at most this fraction of strangers; 1 if no strangers are asked about",
    )
    command.add_argument("--log", type=Path, metavar="FILE", help="append the probabilities, without names")
    command.add_argument("--top-k", type=int, dest="top_k", help="number of candidates in the JSON")
    command.set_defaults(run=ask)
    add_serve_command(commands)
    command = commands.add_parser("info", help="describe a model on one screen", description=info.__doc__)
    command.add_argument("model", metavar="MODEL", help="a folder, or an id on the Hub")
    command.add_argument("--log", type=Path, metavar="FILE", help="compare the log of ask --log with the calibration")
    command.set_defaults(run=info)
    convert = commands.add_parser("convert", help="convert a checkpoint of another program into a MiniGPT folder")
    kinds = convert.add_subparsers(dest="kind", required=True, metavar="{mingpt,gpt2}")
    for name, converter in (("mingpt", convert_mingpt_checkpoint_to_hf), ("gpt2", convert_gpt2_checkpoint_to_hf)):
        lines = (converter.__doc__ or "").strip()
        command = kinds.add_parser(
            name,
            help=lines.splitlines()[0],
            description=lines,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        converter.add_arguments(command)
        command.set_defaults(run=converter.run)
    return parser


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Return the arguments of a command line, in which options may be anywhere between the names."""
    parser = build_parser()
    # To argparse the names, of which there may be none, end before the first option: what follows is left over.
    arguments, rest = parser.parse_known_args(argv)
    options = [word for word in rest[: rest.index("--") if "--" in rest else None] if word.startswith("-")]
    if rest and (options or not hasattr(arguments, "names")):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if rest:
        arguments.names += [word for word in rest if word != "--"]
    return arguments


def run_command(argv: list[str] | None) -> None:
    """Run a command line, and write all of its output."""
    try:
        arguments = parse_arguments(argv)
        # What is piped on is stdout, so the libraries' progress and advice have no place there.
        transformers_logging.set_verbosity_error()
        transformers_logging.disable_progress_bar()
        arguments.run(arguments)
    finally:
        sys.stdout.flush()  # now, where an error can be reported; of --help, too, which ends in SystemExit


def main(argv: list[str] | None = None) -> int:
    """Run the `minigpt` command; return the exit status."""
    prepare_streams()
    try:
        run_command(argv)
    # Not the run_main of training: the wheel has this package alone.
    except BrokenPipeError:  # as of `| head`: nobody reads on
        discard_output()
        return BROKEN_PIPE
    except ValueError as error:  # a CommandError, a ConversionError, or an option that the pipeline refuses
        report_error(error)
        return 2
    except OSError as error:  # as of a full disk, to which stdout cannot be written
        discard_output()
        report_error(error)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
