"""`minigpt serve`: a pipeline behind HTTP, by FastAPI and uvicorn, which `pip install minigpt-lab[serve]` brings.

    POST /ask      {"question": "Brihi Hikdo"}, or a list of texts: the pipeline's result, or a list of them
    GET  /health   the model's name and what it can be asked
    GET  /docs     the OpenAPI page, of /openapi.json

Concurrent requests are answered in one batch. This module is not uploaded to the Hub with a model: only the command
imports it, when `serve` runs.
"""

import asyncio
import signal
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Annotated, Any, Literal

import uvicorn
from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field, create_model

from . import __version__
from .batching_minigpt import Batcher, OverloadedError
from .pipeline_minigpt import ClosedBookPipeline
from .request_limits_minigpt import RequestLimits

MAX_QUESTIONS = 256  # of one request
MAX_CHARACTERS = 1_000  # of one text; the pipeline accepts no name of this length
MAX_BODY = 1 << 22  # bytes, in which that number of texts fits, though JSON may write a character as twelve
Text = Annotated[str, Field(max_length=MAX_CHARACTERS)]
Texts = Annotated[list[Text], Field(min_length=1, max_length=MAX_QUESTIONS)]


class Candidate(BaseModel):
    """One of the answers that the model compared."""

    model_config = ConfigDict(extra="allow")

    answer: str
    score: float


class Result(BaseModel):
    """The pipeline's result for one text; a later version may have more fields."""

    model_config = ConfigDict(extra="allow")

    question: str
    answer: str | None
    known: float | None
    correct: float | None
    score: float
    abstained: bool
    candidates: list[Candidate]
    calibrated: bool
    reason: str | None
    failed: str | None
    relation: str | None
    matched_name: str | None


class RelationHealth(BaseModel):
    """One thing that the model can be asked for."""

    name: str
    question: str
    calibrated: bool
    known_threshold: float | None
    correct_threshold: float | None
    promise: str


class Health(BaseModel):
    """What is served."""

    status: Literal["ok"] = "ok"
    model: str
    revision: str | None
    version: str = __version__
    relations: list[RelationHealth]


class Problem(BaseModel):
    """Why a request was refused."""

    detail: str


PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"model": Problem, "description": description}
    for status, description in {
        400: "The body cannot be read",
        408: "The body did not come in time",
        413: "The body is too large",
        503: "Too many questions are waiting",
        504: "No answer in time",
    }.items()
}


def request_model(relations: Sequence[str]) -> type[BaseModel]:
    """Return the pydantic model of a request's body, in which `relation` must be one of these."""
    known: Any = Literal[tuple(relations)]
    return create_model(
        "Ask",
        __config__=ConfigDict(extra="forbid", strict=True),
        question=(Text | Texts, Field(description="a name or a question, or a list of them")),
        relation=(known | None, Field(None, description="what to ask about a bare name")),
        threshold=(
            Annotated[float, Field(ge=0.0, le=1.0, allow_inf_nan=False)] | None,
            Field(None, description="abstain below this score; 0 answers always"),
        ),
    )


def describe_health(pipeline: ClosedBookPipeline, name: str) -> Health:
    """Return what `/health` says of a pipeline."""
    relations = []
    for facts in pipeline.facts.values():
        certificate = None if facts.confidence is None else facts.confidence.certificate
        relations.append(
            RelationHealth(
                name=facts.relation.name,
                question=facts.relation.format("NAME"),
                calibrated=facts.confidence is not None,
                known_threshold=None if certificate is None else certificate.known_threshold,
                correct_threshold=None if certificate is None else certificate.correct_threshold,
                promise=facts.describe_promise(),
            )
        )
    # The commit of a model from the Hub; a folder has none.
    return Health(model=name, revision=getattr(pipeline.model.config, "_commit_hash", None), relations=relations)


async def explain_invalid(request: Request, error: Exception) -> JSONResponse:
    """Return what is wrong with a body, without the body: it may be long, or have what JSON cannot hold, as NaN."""
    assert isinstance(error, RequestValidationError)
    found = [{key: one[key] for key in ("loc", "msg", "type")} for one in error.errors()]
    return JSONResponse({"detail": found}, status_code=422)


def build_app(
    pipeline: ClosedBookPipeline, name: str, max_batch: int = 32, timeout: float = 30.0, workers: int = 1
) -> FastAPI:
    """Return the application that serves a pipeline.

    Args:
        name: of the model, as `/health` gives it.
        max_batch: questions read together.
        timeout: seconds in which a request must have come and been answered.
        workers: batches at the same time, each in a thread of its own.
    """
    health = describe_health(pipeline, name)
    ask_model = request_model(list(pipeline.facts))

    @asynccontextmanager
    async def answer_while_serving(app: FastAPI) -> AsyncIterator[dict[str, Batcher]]:
        # Created here, for the event loop that runs now: an application that is started again has another loop.
        batcher = Batcher(
            lambda texts, **options: pipeline(texts, batch_size=max_batch, **options), max_batch, workers
        )
        task = asyncio.create_task(batcher.run())
        yield {"batcher": batcher}
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    description = "Answers from a model's weights, each with the chance that it is right, or the reason for none."
    app = FastAPI(title="MiniGPT", version=__version__, description=description, lifespan=answer_while_serving)
    app.add_middleware(RequestLimits, max_body=MAX_BODY, timeout=timeout)
    app.add_exception_handler(RequestValidationError, explain_invalid)

    @app.post("/ask", response_model=Result | list[Result], responses=PROBLEMS)
    async def ask(body: ask_model, request: Request) -> Any:  # type: ignore[valid-type]
        """Answer a name or a question, or a list of them, in its order."""
        options = body.model_dump(include={"relation", "threshold"}, exclude_none=True)  # type: ignore[attr-defined]
        question = body.question  # type: ignore[attr-defined]
        texts = [question] if isinstance(question, str) else question
        try:
            results = await request.state.batcher.ask(texts, options)
        except OverloadedError as error:
            raise HTTPException(503, str(error), {"Retry-After": "1"}) from error
        return results[0] if isinstance(question, str) else results

    @app.get("/health", response_model=Health)
    async def get_health() -> Health:
        """Say which model this is, and what it can be asked."""
        return health

    return app


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens; ValueError where the address cannot be used."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=2048)
    except (OSError, OverflowError) as error:  # the second for a port above 65,535
        raise ValueError(f"--host {host} --port {port}: {getattr(error, 'strerror', None) or error}") from error


def serve(app: FastAPI, listener: socket.socket, timeout: float) -> None:
    """Serve until SIGTERM or Ctrl-C; requests that are being answered then still get their answers."""
    config = uvicorn.Config(
        app, log_level="warning", access_log=False, server_header=False, timeout_graceful_shutdown=int(timeout) + 1
    )
    # After its shutdown uvicorn raises the signal again, for the previous handler. This one ignores it, so that a
    # server that was asked to stop exits with status 0.
    signal.signal(signal.SIGTERM, lambda number, frame: None)
    uvicorn.Server(config).run(sockets=[listener])
