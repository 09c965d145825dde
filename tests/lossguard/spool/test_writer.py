"""How a process tells a collector who it is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lossguard.spool.writer import Writer, new_writer_id, this_process

SESSIONS = st.text("0123456789abcdef", min_size=1, max_size=64)
PROCESSES = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=160)


@given(SESSIONS, PROCESSES)
def test_a_writer_survives_the_header(session: str, process: str) -> None:
    writer = Writer(id=new_writer_id(), session=session, process=process)
    assert Writer.from_header(writer.to_header()) == writer


def test_this_process_fits_the_header() -> None:
    writer = Writer(id=new_writer_id(), session="1", process=this_process())
    assert Writer.from_header(writer.to_header()) == writer


@pytest.mark.parametrize(
    "text", ["", "me", "a" * 32, f"{'A' * 32} 1 1@h", f"{'a' * 32} ~ 1@h", f"{'a' * 32} 1 two words"]
)
def test_any_other_header_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match="32 hexadecimal digits"):
        Writer.from_header(text)
