"""A collector in this process, on a free port."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy as sa
import uvicorn

from monitor.app import create_app
from monitor.settings import Settings


@contextmanager
def serving(engine: sa.Engine, settings: Settings | None = None) -> Iterator[str]:
    """The collector's address. It stops at the end of the block."""
    config = uvicorn.Config(create_app(settings or Settings(), engine=engine), port=0, log_level="error", ws="none")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        assert thread.is_alive(), "the collector did not start"
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
