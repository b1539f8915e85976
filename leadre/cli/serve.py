"""`leadre serve`: the request path's ASGI applications. LEADRE §4.4.1."""

from __future__ import annotations

import click

from leadre.cli.session import settings

_HOST = click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")


@click.group()
def serve() -> None:
    """Run the User Server or the Mixer. Both fail open: they answer while Redis or PostgreSQL do not."""


@serve.command("user-server")
@_HOST
@click.option("--port", default=8010, show_default=True)
def user_server(host: str, port: int) -> None:
    """Serve stored retrieval lists and take in behaviors.

    Example: curl localhost:8010/v1/users/7/ads
    """
    import uvicorn

    from leadre.serving.user_server import create_app

    uvicorn.run(create_app(settings()), host=host, port=port, log_level="warning")


@serve.command()
@_HOST
@click.option("--port", default=8020, show_default=True)
def mixer(host: str, port: int) -> None:
    """Serve the merged candidates of LEADRE's branch and the popularity branch.

    Example: curl localhost:8020/v1/users/7/candidates
    """
    import uvicorn

    from leadre.serving.mixer import create_app

    uvicorn.run(create_app(settings()), host=host, port=port, log_level="warning")
