"""How a process tells a collector who it is, and the id of its folder."""

import os
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lossguard.spool.writer import WRITER_FILE, Writer, known_writer, this_process, writer_of

SESSIONS = st.text("0123456789abcdef", min_size=1, max_size=63)
PROCESSES = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=160)


@given(SESSIONS, PROCESSES)
@example("1", this_process())
def test_a_writer_survives_the_header(session: str, process: str) -> None:
    writer = Writer(id="a" * 32, session=session, process=process)
    assert Writer.from_header(writer.to_header()) == writer


@pytest.mark.parametrize(
    "text", ["", "me", "a" * 32, f"{'A' * 32} 1 1@h", f"{'a' * 32} ~ 1@h", f"{'a' * 32} 1 two words"]
)
def test_any_other_header_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match="32 hexadecimal digits"):
        Writer.from_header(text)


def test_a_folder_keeps_its_own_id_over_its_processes(tmp_path: Path) -> None:
    assert known_writer(tmp_path, "1") is None
    first, second = writer_of(tmp_path, "1"), writer_of(tmp_path, "2")
    assert (first.id, first.session, second.session) == (second.id, "1", "2")
    assert known_writer(tmp_path, "2") == second
    assert oct((tmp_path / WRITER_FILE).stat().st_mode)[-3:] == "600"
    (tmp_path / "another").mkdir()
    assert writer_of(tmp_path / "another", "1").id != first.id


@pytest.mark.parametrize("content", [b"", b"\x00" * 33, b"\xff", b"short\n"])
def test_a_damaged_id_is_replaced(tmp_path: Path, content: bytes) -> None:
    (tmp_path / WRITER_FILE).write_bytes(content)
    assert known_writer(tmp_path, "1") is None
    assert writer_of(tmp_path, "1") == known_writer(tmp_path, "1")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_gets_an_id_for_this_process(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    assert writer_of(tmp_path, "1").id
    tmp_path.chmod(0o700)
