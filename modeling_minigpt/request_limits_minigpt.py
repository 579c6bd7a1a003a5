"""Limits on what a request may take: bytes of its body, and seconds until its answer. ASGI alone, no library."""

import asyncio
import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]


class BodyTooLargeError(ValueError):
    """A request's body is larger than the limit."""


async def read_body(scope: MutableMapping[str, Any], receive: Receive, max_body: int) -> bytes:
    """Return a request's body.

    Raises:
        BodyTooLargeError: its Content-Length or its size is above `max_body` bytes; no more than these are stored.
    """
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit() and int(value[:20]) > max_body:
            raise BodyTooLargeError
    parts = []
    size = 0
    while True:
        message = await receive()
        part = message.get("body", b"")
        size += len(part)
        if size > max_body:  # a chunked body has no Content-Length
            raise BodyTooLargeError
        parts.append(part)
        if not message.get("more_body", False):
            return b"".join(parts)


class RequestLimits:
    """Wrap an ASGI application so that each request's body and time are limited.

    A body over the limit is answered by 413, one that does not come in time by 408, and a request that is not answered
    in time by 504; the work on it is cancelled.

    Args:
        app: the application.
        max_body: bytes.
        timeout: seconds, from a request's headers to the beginning of its answer.
    """

    def __init__(self, app: Application, max_body: int, timeout: float) -> None:
        self.app = app
        self.max_body = max_body
        self.timeout = timeout

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Handle one request; anything else, such as the start of the server, goes to the application unchanged."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        started = False
        status = 408
        detail = f"the body did not come within {self.timeout:g} seconds"

        async def send_and_note(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            async with asyncio.timeout(self.timeout):
                body = await read_body(scope, receive, self.max_body)
                status = 504
                detail = f"no answer within {self.timeout:g} seconds"
                await self.app(scope, replay(body, receive), send_and_note)
        except BodyTooLargeError:
            await refuse(send, 413, f"the body is larger than {self.max_body:,} bytes")
        except TimeoutError:
            if started:  # too late for another status: the connection ends
                raise
            await refuse(send, status, detail)


def replay(body: bytes, receive: Receive) -> Receive:
    """Return a `receive` that gives a body that was read, and after that what the connection gives."""
    waiting = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive_again() -> Message:
        return waiting.pop() if waiting else await receive()

    return receive_again


async def refuse(send: Send, status: int, detail: str) -> None:
    """Send a refusal as JSON, and close the connection: what is left of the request is not read."""
    body = json.dumps({"detail": detail}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": [*headers, (b"connection", b"close")]})
    await send({"type": "http.response.body", "body": body})
