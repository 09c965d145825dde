"""Messages and choices that Streamlit would drop."""

import pytest
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from streamlit.runtime.forward_msg_queue import ForwardMsgQueue
from streamlit.runtime.fragment import MemoryFragmentStorage
from streamlit.runtime.memory_uploaded_file_manager import MemoryUploadedFileManager
from streamlit.runtime.pages_manager import PagesManager
from streamlit.runtime.scriptrunner_utils.script_run_context import ScriptRunContext
from streamlit.runtime.state import SafeSessionState, SessionState

from dashboard.streamlit_internals import keep_unsent_messages, keep_written_urls


def drawn(path: list[int], fragment: str, text: str = "") -> ForwardMsg:
    """The message of a block, or of a text, that a fragment has drawn."""
    message = ForwardMsg()
    message.metadata.delta_path.extend(path)
    message.delta.fragment_id = fragment
    if text:
        message.delta.new_element.markdown.body = text
    else:
        message.delta.add_block.allow_empty = True
    return message


def finished() -> ForwardMsg:
    message = ForwardMsg()
    message.script_finished = ForwardMsg.FINISHED_FRAGMENT_RUN_SUCCESSFULLY
    return message


@pytest.fixture
def queue(monkeypatch: pytest.MonkeyPatch) -> ForwardMsgQueue:
    monkeypatch.setattr(ForwardMsgQueue, "clear", ForwardMsgQueue.clear)  # so that it is as it was after the test
    keep_unsent_messages()
    return ForwardMsgQueue()


def test_a_dialog_is_sent_with_its_contents_although_the_part_of_the_page_that_opened_it_is_refreshed_before(
    queue: ForwardMsgQueue,
) -> None:
    opened = [drawn([0, 1], "page", "before"), drawn([2, 1], "page"), drawn([2, 1, 0], "dialog", "Skip"), finished()]
    refreshed = [drawn([0, 1], "page", "after"), finished()]
    for message in opened:
        queue.enqueue(message)
    queue.clear(retain_lifecycle_msgs=True, fragment_ids_this_run=["page"])
    for message in refreshed:
        queue.enqueue(message)
    assert queue.flush() == [*opened, *refreshed]
    assert queue.flush() == []


def test_a_run_of_the_whole_page_drops_what_an_earlier_one_has_not_sent(queue: ForwardMsgQueue) -> None:
    queue.enqueue(drawn([0, 1], "page", "before"))
    queue.enqueue(finished())
    queue.clear(retain_lifecycle_msgs=True)
    assert [message.WhichOneof("type") for message in queue.flush()] == ["script_finished"]


@pytest.fixture
def context(monkeypatch: pytest.MonkeyPatch) -> ScriptRunContext:
    """The context of a session that shows the page `page`."""
    monkeypatch.setattr(ScriptRunContext, "reset", ScriptRunContext.reset)  # so that it is as it was after the test
    keep_written_urls()
    context = ScriptRunContext(
        session_id="viewer",
        _enqueue=lambda message: None,
        query_string="",
        session_state=SafeSessionState(SessionState(), lambda: None),
        uploaded_file_mgr=MemoryUploadedFileManager("/files"),
        main_script_path="app.py",
        user_info={},
        fragment_storage=MemoryFragmentStorage(),
        pages_manager=PagesManager("app.py"),
    )
    context.reset("", "page")
    return context


def url_after_reset(context: ScriptRunContext, query: str, fragments: list[str] | None = None) -> dict[str, list[str]]:
    context.reset(query, "page", fragments)
    with context.session_state.query_params() as query_params:
        return {name: query_params.get_all(name) for name in query_params}


def test_a_refresh_with_the_address_from_before_a_choice_keeps_the_choice_and_takes_what_a_bound_widget_says(
    context: ScriptRunContext,
) -> None:
    context.reset("run=one&approve=3&find=loss", "page")
    with context.session_state.query_params() as query_params:
        query_params.bind_widget("find", "widget", "string_value", "page")
        query_params["x"] = ["Tokens"]
        query_params["curves"] = [""]
        del query_params["approve"]
    chosen = {"run": ["one"], "find": ["grad"], "x": ["Tokens"], "curves": [""]}
    for _ in range(2):
        assert url_after_reset(context, "run=one&approve=3&find=grad", ["part"]) == chosen
    assert url_after_reset(context, "run=two") == {"run": ["two"]}, "a link reruns the whole page"
    url_after_reset(context, "run=two&embed=true", ["part"])
    assert context.query_string == "embed=true&run=two", "of how the page is embedded, only the browser knows"
