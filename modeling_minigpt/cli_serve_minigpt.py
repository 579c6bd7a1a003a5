"""`minigpt serve`: its command line, and the start of the server; the server itself needs the extra `serve`."""

import argparse
import math
from collections.abc import Callable
from pathlib import Path

import torch

from .cli_models_minigpt import CommandError, load_pipeline


def serve(arguments: argparse.Namespace) -> None:
    """Answer over HTTP until SIGTERM or Ctrl-C: POST /ask, GET /health, and the OpenAPI page, /docs."""
    try:
        from . import server_minigpt
    except ModuleNotFoundError as error:
        raise CommandError(f"serve needs {error.name}: pip install 'minigpt-lab[serve]'") from error
    listener = server_minigpt.listen(arguments.host, arguments.port)  # refused before the model is loaded
    pipeline = load_pipeline(arguments.model)
    # A client learns what the model is called, not where it is on this machine.
    name = Path(arguments.model).resolve().name if Path(arguments.model).exists() else arguments.model
    # Each worker gets a share of the cores: with more torch threads than cores, they would wait for each other.
    torch.set_num_threads(max(1, torch.get_num_threads() // arguments.workers))
    app = server_minigpt.build_app(pipeline, name, arguments.max_batch, arguments.timeout, arguments.workers)
    host, port = listener.getsockname()[:2]
    print(f"serving {name} at http://{f'[{host}]' if ':' in host else host}:{port}/docs", flush=True)
    server_minigpt.serve(app, listener, arguments.timeout)


def above_zero(kind: type) -> Callable[[str], float]:
    """Return an argparse type for a finite number above 0; `kind` is int or float."""

    def parse(text: str) -> float:
        number = kind(text)
        if not 0 < number < math.inf:
            raise argparse.ArgumentTypeError(f"must be above 0, found {text}")
        return number

    parse.__name__ = kind.__name__  # which argparse names where `kind` refuses the text
    return parse


def add_serve_command(commands: argparse._SubParsersAction) -> None:
    """Describe the command line of `minigpt serve`."""
    command = commands.add_parser("serve", help="answer over HTTP", description=serve.__doc__)
    command.add_argument("model", metavar="MODEL", help="a folder, or an id on the Hub")
    command.add_argument("--host", default="127.0.0.1", help="address to listen on (%(default)s); 0.0.0.0 for all")
    command.add_argument("--port", type=int, default=8000, help="port (%(default)s); 0 picks a free one")
    command.add_argument(
        "--max-batch", type=above_zero(int), default=32, metavar="N", help="most questions per batch (%(default)s)"
    )
    command.add_argument(
        "--timeout", type=above_zero(float), default=30.0, metavar="SECONDS", help="limit per request (%(default)s)"
    )
    command.add_argument(
        "--workers",
        type=above_zero(int),
        default=1,
        metavar="N",
        help="batches computed at the same time, each with an equal share of torch's threads (%(default)s)",
    )
    command.set_defaults(run=serve)
