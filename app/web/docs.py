"""`/docs`: the API described, by a Swagger UI that the server brings itself."""

from fastapi import APIRouter, FastAPI


def docs(site: FastAPI) -> APIRouter:
    """The routes of the documentation."""
    del site
    return APIRouter()
