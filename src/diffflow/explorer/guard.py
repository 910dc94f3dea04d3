"""Guard of the explorer's server: lets through requests of its own page, of a bearable size.

A server on 127.0.0.1 is open to every page that the browser shows: by a form or a script of its own (cross-site
requests), or by a name that it lets point here (DNS rebinding). So the Host header must name this machine, an Origin
must be our own, whatever touches a run needs the token that only our page was given, and bodies are small. The page
itself may load nothing from anywhere else (Content-Security-Policy).
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

LARGEST = 1 << 16  # bytes of a request's body
POLICY = (
    "default-src 'none'; script-src 'self'; worker-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = (
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
)


class Guard:
    """Lets requests through to an ASGI application that come from our own page.

    Args:
        app: the application.
        hosts: what the Host header may say, such as 127.0.0.1:8760.
        token: what the header X-Token must say below /api/.
    """

    def __init__(self, app: App, hosts: Iterable[str], token: str):
        self.app, self.hosts, self.token = app, frozenset(h.lower() for h in hosts), token.encode()

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer a request: by the application, or with a refusal."""
        if scope["type"] == "lifespan":
            return await self.app(scope, receive, send)

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), *HEADERS]
            await send(message)

        if scope["type"] != "http":  # there are no web sockets here
            return await send({"type": "websocket.close", "code": 1008})
        refusal = self.refusal(scope)
        if refusal is None:
            body, complete = await self.body(receive)
            if body is None:  # hung up in the middle
                return None
            if complete:
                return await self.app(scope, replay(body, receive), guarded)
            refusal = 413, f"a request holds at most {LARGEST} bytes"
        return await refuse(guarded, *refusal)

    def refusal(self, scope: Message) -> tuple[int, str] | None:
        """Status and reason, from the headers alone; None where they are in order."""
        headers: dict[bytes, list[bytes]] = {}
        for name, value in scope["headers"]:
            headers.setdefault(name.lower(), []).append(value)
        host = [v.decode("latin-1").lower() for v in headers.get(b"host", [])]
        if len(host) != 1 or host[0] not in self.hosts:
            return 421, f"this server is {' or '.join(sorted(self.hosts))}, and not {', '.join(host) or 'nameless'}"
        origins = [v.decode("latin-1").lower() for v in headers.get(b"origin", [])]
        if any(origin != f"http://{host[0]}" for origin in origins):
            return 403, f"a page of {', '.join(origins)} may not ask here"
        if scope["path"].startswith("/api/"):
            tokens = headers.get(b"x-token", [])
            if len(tokens) != 1 or not hmac.compare_digest(tokens[0], self.token):
                return 401, "the token is missing or wrong: open the address that `diffflow explore` has printed"
        return None

    async def body(self, receive: Receive) -> tuple[bytes | None, bool]:
        """The request's body, None where it did not come to its end, and whether it was small enough.

        What is a little too large is read to its end, and dropped: who still writes does not hear an answer.
        """
        parts, size = [], 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None, False
            part = message.get("body", b"")
            size += len(part)
            if size <= LARGEST:
                parts.append(part)
            if size > 16 * LARGEST or not message.get("more_body", False):
                return b"".join(parts), size <= LARGEST


def replay(body: bytes, receive: Receive) -> Receive:
    """A channel that gives a body that was read, and then whatever else comes."""
    replayed = False

    async def again() -> Message:
        nonlocal replayed
        if replayed:
            return await receive()
        replayed = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


async def refuse(send: Send, status: int, reason: str) -> None:
    """Answer with a status and a reason, as JSON."""
    body = json.dumps({"error": reason}).encode()
    start = {"type": "http.response.start", "status": status, "headers": [(b"content-type", b"application/json")]}
    await send(start)
    await send({"type": "http.response.body", "body": body})
