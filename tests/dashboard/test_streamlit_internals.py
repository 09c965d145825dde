"""Messages that Streamlit would drop."""

import pytest
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from streamlit.runtime.forward_msg_queue import ForwardMsgQueue

from dashboard.streamlit_internals import keep_unsent_messages


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
