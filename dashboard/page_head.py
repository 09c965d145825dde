"""What the head of every page has instead of Streamlit's: title and icon, and a notice for when nothing answers."""

import base64
from functools import cache
from pathlib import Path

HERE = Path(__file__).parent
STREAMLIT_TITLE = b"<title>Streamlit</title>"


def completed(page: bytes) -> bytes:
    """`page` with our own title and icon, and with the script that says that the dashboard does not answer."""
    title, notice = _tags()
    return page.replace(STREAMLIT_TITLE, title, 1).replace(b"</head>", notice + b"</head>", 1)


@cache
def _tags() -> tuple[bytes, bytes]:
    icon = base64.b64encode((HERE / "icon.svg").read_bytes()).decode()
    title = f'<title>Lossguard</title><link rel="icon" href="data:image/svg+xml;base64,{icon}" />'
    style, script = ((HERE / f"connection.{kind}").read_text(encoding="utf-8") for kind in ("css", "js"))
    return title.encode(), f"<style>{style}</style><script>(() => {{{script}}})()</script>".encode()
