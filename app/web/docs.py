"""`/docs`: the API described, by a Swagger UI that the server brings itself; and `/`, which leads there."""

import asyncio
from importlib import resources
from string import Template
from typing import Final

from fastapi import APIRouter, FastAPI, HTTPException, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse, RedirectResponse

from app.web.assets import Asset, Assets

PAGE_HEADERS: Final = {
    # Swagger UI draws its icons from data: URLs. Nothing is inline, and nothing comes from elsewhere.
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_YEAR: Final = "public, max-age=31536000, immutable"
_ASK_AGAIN: Final = {"Cache-Control": "no-cache"}
_WELCOME: Final = "Edge Registry. The API is at /v2/; /docs describes it to people, /openapi.json to programs.\n"


def docs(site: FastAPI) -> APIRouter:
    """The routes of the documentation of `site`, which are no part of what it documents."""
    router = APIRouter(include_in_schema=False)
    assets = Assets()

    @router.api_route("/", methods=["GET", "HEAD"])
    async def root(request: Request) -> Response:
        """Browsers are led to the page; programs that only look whether somebody is here get a line."""
        vary = {"Vary": "Accept", **_ASK_AGAIN}
        if "text/html" in request.headers.get("accept", ""):
            return RedirectResponse("/docs", 307, headers=vary)
        return PlainTextResponse(_WELCOME, headers=vary)

    @router.api_route("/docs", methods=["GET", "HEAD"])
    async def page() -> Response:
        found = await assets.all()
        text = await asyncio.to_thread(resources.files("app.web").joinpath("static/docs.html").read_text, "utf-8")
        links = {
            "swagger": found["swagger-ui.js"],
            "stylesheet": found["swagger-ui.css"],
            "script": found["docs.js"],
            "favicon": found["favicon.png"],
        }
        filled = Template(text).substitute({name: _url(asset) for name, asset in links.items()})
        return HTMLResponse(filled, headers={**PAGE_HEADERS, **_ASK_AGAIN})

    @router.api_route("/docs/assets/{version}/{name}", methods=["GET", "HEAD"])
    async def asset(request: Request, version: str, name: str) -> Response:
        found = (await assets.all()).get(name)
        if found is None:
            raise HTTPException(404)
        return _sent(found, version, request.headers.get("accept-encoding", ""))

    @router.api_route("/openapi.json", methods=["GET", "HEAD"])
    async def schema() -> Response:
        return JSONResponse(site.openapi(), headers=_ASK_AGAIN)

    return router


def _url(asset: Asset) -> str:
    return f"/docs/assets/{asset.version}/{asset.name}"


def _sent(asset: Asset, version: str, accepted: str) -> Response:
    """A page made by a replica of another version names another version: it gets ours, to be asked for again."""
    headers = {
        "Cache-Control": _YEAR if version == asset.version else "no-cache",
        "Vary": "Accept-Encoding",
        "X-Content-Type-Options": "nosniff",
    }
    if asset.compressed is not None and "gzip" in accepted:
        return Response(asset.compressed, headers={**headers, "Content-Encoding": "gzip"}, media_type=asset.media_type)
    return Response(asset.data, headers=headers, media_type=asset.media_type)
