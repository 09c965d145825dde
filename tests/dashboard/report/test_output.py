"""A file is written completely or not at all, and HTML becomes a PDF."""

import errno
import os
import time
import zlib
from pathlib import Path

import pytest
import sqlalchemy as sa

from dashboard.report.output import CannotPrint, CannotWrite, print_pdf, write_atomically
from tests.answering import answering
from tests.dashboard.report.reader import hostile_run, page
from tests.lossguard_server.process_state import wait_until_gone


def test_a_name_may_be_as_long_as_the_file_system_takes(tmp_path: Path) -> None:
    target = tmp_path / f"{'r' * (os.pathconf(tmp_path, 'PC_NAME_MAX') - len('.html'))}.html"
    write_atomically(target, lambda part: part.touch())
    assert target.is_file()


def test_a_full_disk_leaves_the_earlier_file_and_no_other(tmp_path: Path) -> None:
    folder = tmp_path / "reports"
    folder.mkdir()
    target = folder / "r.html"
    target.write_text("yesterday's")

    def make(part: Path) -> None:
        part.write_text("half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(CannotWrite, match=r"cannot write .*r\.html: No space left on device"):
        write_atomically(target, make)
    assert target.read_text() == "yesterday's"
    assert [each.name for each in folder.iterdir()] == ["r.html"]


def picture(width: int, height: int) -> bytes:
    """A PNG; a PDF that shows it has an object of this size."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return len(content).to_bytes(4) + kind + content + zlib.crc32(kind + content).to_bytes(4)

    header = width.to_bytes(4) + height.to_bytes(4) + bytes([8, 2, 0, 0, 0])
    rows = b"".join(b"\0" + bytes([200, 30, 30]) * width for _ in range(height))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


SECRET, SHOWN = picture(7, 11), b"/Width 7\n/Height 11"


def program(folder: Path, script: str) -> str:
    """A stand-in for Chromium."""
    path = folder / "chromium"
    path.write_text(script)
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("#!/bin/sh\nexec sleep 60\n", "did not print within 0.2 seconds and was terminated"),
        ("#!/bin/sh\ntrap '' TERM\nwhile true; do sleep 60; done\n", "did not print within 0.2 seconds"),
        ("#!/bin/sh\necho it is broken >&2; exit 1\n", "printed no PDF: it is broken"),
        ("#!/bin/sh\nyes broken | head -n 200000 >&2; exit 1\n", "printed no PDF: broken$"),
        ("#!/bin/sh\nhead -c 2000000 /dev/zero | tr '\\0' x >&2; exit 1\n", "printed no PDF: x{300}$"),
        ("#!/bin/sh\nsleep 60 & exit 1\n", "printed no PDF: it gave no reason"),
        ("", "cannot be started: Exec format error"),
        ("#!/no/such/shell\n", "cannot be started: No such file or directory"),
    ],
)
def test_a_browser_that_hangs_or_fails_is_reported_in_time_with_one_sentence(
    tmp_path: Path, script: str, why: str
) -> None:
    browser, started = program(tmp_path, script), time.monotonic()
    timeout = 0.2 if "0.2" in why else 120
    with pytest.raises(CannotPrint, match=why) as raised:
        print_pdf("<p>", tmp_path / "r.pdf", browser=browser, timeout_seconds=timeout)
    assert "\n" not in str(raised.value)
    assert time.monotonic() - started < 55
    assert not (tmp_path / "r.pdf").exists()


def test_no_process_of_the_browser_outlives_the_call(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    browser = program(tmp_path, f"#!/bin/sh\nsleep 60 &\necho $! > {pid}\nexit 1\n")
    with pytest.raises(CannotPrint):
        print_pdf("<p>", tmp_path / "r.pdf", browser=browser)
    assert wait_until_gone(int(pid.read_text()))


def attack(url: str, file: str) -> str:
    """Markup that loads `url` and the local `file` in every way, and scripts that do."""
    return (
        f'<img src="{url}/img"><img src="{file}"><link rel="stylesheet" href="{url}/css"><iframe src="{url}/frame">'
        f'</iframe><iframe src="{file}"></iframe><object data="{file}"></object><embed src="{file}">'
        f'<video src="{url}/video"></video><link rel="prefetch" href="{url}/prefetch">'
        f'<svg><image href="{file}"/><use href="{url}/use#x"/></svg><base href="{url}/"><img src="relative">'
        f"<script>document.write('<img src=\"{file}\">'); fetch('{url}/fetch'); location = '{url}/gone'</script>"
        f'<img src="x" onerror="new Image().src = \'{url}/error\'">'
        f"<style>@import '{url}/import'; body {{ background: url({url}/background) }}</style>"
    )


@pytest.mark.slow
@pytest.mark.needs("chromium")
def test_even_markup_that_escapes_nothing_loads_no_file_and_reaches_no_host(store: sa.Engine, tmp_path: Path) -> None:
    hostile_run(store)
    report, secret = page("r1"), tmp_path / "secret.png"
    secret.write_bytes(SECRET)
    with answering(200, SECRET) as (url, asked):
        injected = report.replace("</header>", f"</header>{attack(url, secret.as_uri())}")
        assert injected != report
        print_pdf(injected, tmp_path / "injected.pdf")
        print_pdf(attack(url, secret.as_uri()), tmp_path / "no-policy.pdf")  # the printer itself reaches no host
        print_pdf(f'<img src="{secret.as_uri()}">', tmp_path / "control.pdf")
    assert asked == []
    assert SHOWN not in (tmp_path / "injected.pdf").read_bytes()
    assert SHOWN in (tmp_path / "control.pdf").read_bytes(), "the test would see a file"
