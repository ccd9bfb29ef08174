"""The files of our pages, and the rules by which browsers show them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

__all__ = ["PAGE_HEADERS", "StaticFiles"]

_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}

# Nothing is loaded from elsewhere, nothing within a page is run, and HTML is put in by one function only.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types sambay"
)
PAGE_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=(), payment=()",
    # Asked for each time, and mostly answered by "not modified": a new version is seen at once.
    "Cache-Control": "no-cache",
}
"""What goes out with every file of a page."""


@dataclass(frozen=True)
class _File:
    body: bytes
    kind: str
    tag: str


class StaticFiles:
    """The files of one directory, read once; there is no name for any other file.

    Args:
        directory: of the package; files of other types than pages have are left out.
    """

    def __init__(self, directory: Path) -> None:
        self._files: dict[str, _File] = {}
        for path in sorted(directory.iterdir()):
            if path.suffix in _TYPES:
                body = path.read_bytes()
                self._files[path.name] = _File(body, _TYPES[path.suffix], f'"{hashlib.sha256(body).hexdigest()[:24]}"')

    def response(self, request: Request, name: str) -> Response:
        """A file, or that the one which the browser has is still good.

        Raises:
            HTTPException: 404, there is no such file.
        """
        file = self._files.get(name)
        if file is None:
            raise HTTPException(404)
        headers = PAGE_HEADERS | {"ETag": file.tag}
        if file.tag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        return Response(file.body, media_type=file.kind, headers=headers)
