"""Streamlit's private API, as far as the dashboard needs it.

Any release of Streamlit may change it: for its sake `pyproject.toml` bounds the version from above. Streamlit is
imported where it is used, because `dashboard report` reads a login file and serves no page.
"""

import json
from collections.abc import Mapping
from typing import Any, cast
from urllib.parse import parse_qs, urlencode


def keep_unsent_messages() -> None:
    """Have Streamlit send all that a fragment has drawn, also where the fragment is run again before it is sent.

    Streamlit drops it then, but keeps what fragments inside it have drawn. The contents of a dialog arrive without the
    dialog (each dialog is a fragment), and the whole page goes blank: "Cannot set a node at a delta path".
    """
    from streamlit.runtime.forward_msg_queue import ForwardMsgQueue

    clear = ForwardMsgQueue.clear

    def clear_before_a_whole_run(
        queue: ForwardMsgQueue, retain_lifecycle_msgs: bool = False, fragment_ids_this_run: list[str] | None = None
    ) -> None:
        if fragment_ids_this_run is None:
            clear(queue, retain_lifecycle_msgs)
        else:
            queue._delta_index_map = {}  # so that no element of the new run takes the place of one of the run before

    ForwardMsgQueue.clear = clear_before_a_whole_run  # type: ignore[assignment]


def keep_written_urls() -> None:
    """Have a rerun of a fragment begin with the URL as the server has written it.

    Every message has the URL that the browser shows. One that was sent before the browser got the newest one would undo
    what a viewer has just chosen. What reruns a fragment, a timer or a control, changes no URL, except of bound
    widgets: their parameters are those of the message. A link and the browser's back button rerun the whole page.
    """
    from streamlit.runtime.scriptrunner_utils.script_run_context import ScriptRunContext
    from streamlit.runtime.state.query_params import EMBED_QUERY_PARAMS_KEYS, QueryParams

    reset = ScriptRunContext.reset

    def with_written(received: str, written: QueryParams) -> str:
        of_page = {name: written.get_all(name) for name in written if not written.is_bound(name)}
        of_browser = {
            name: values
            for name, values in parse_qs(received, True).items()
            if written.is_bound(name) or name.lower() in EMBED_QUERY_PARAMS_KEYS  # which `written` does not list
        }
        return urlencode(of_browser | of_page, True)

    def reset_with_written_url(
        context: ScriptRunContext,
        query_string: str = "",
        page_script_hash: str = "",
        fragment_ids_this_run: list[str] | None = None,
        **others: Any,
    ) -> None:
        if fragment_ids_this_run is not None and page_script_hash == context.page_script_hash:
            with context.session_state.query_params() as written:
                query_string = with_written(query_string, written)
        reset(context, query_string, page_script_hash, fragment_ids_this_run, **others)

    ScriptRunContext.reset = reset_with_written_url  # type: ignore[assignment, method-assign]


def num_uploaded_bytes() -> int:
    """Return the bytes of all uploaded files in memory."""
    from streamlit import runtime
    from streamlit.runtime.memory_uploaded_file_manager import MemoryUploadedFileManager

    files = cast(MemoryUploadedFileManager, runtime.get_instance().uploaded_file_mgr)
    return sum(len(file.data) for session in list(files.file_storage.values()) for file in list(session.values()))


def claims_in(cookies: Mapping[str, str]) -> dict[str, Any] | None:
    """Return the claims in the cookie of Streamlit's login; None without one, or where its signature is wrong."""
    from streamlit.auth_util import get_cookie_with_chunks
    from streamlit.web.server.server_util import get_cookie_secret
    from streamlit.web.server.starlette.starlette_app_utils import decode_signed_value
    from streamlit.web.server.starlette.starlette_server_config import USER_COOKIE_NAME

    def signed(name: str) -> bytes | None:
        value = cookies.get(name)
        return None if value is None else decode_signed_value(get_cookie_secret(), name, value.encode("latin-1"))

    try:
        claims = json.loads(get_cookie_with_chunks(signed, USER_COOKIE_NAME) or b"null")
    except ValueError:  # also text that is no Latin-1, and chunks that do not fit together
        return None
    return claims if isinstance(claims, dict) and claims.get("is_logged_in") is True else None
