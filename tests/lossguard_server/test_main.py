"""The command of the server, as it is typed."""

import os
import re
import signal
import socket
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from lossguard_server import __main__ as server
from tests.lossguard_server.process_state import children, wait_until_gone
from tests.ports import free_port

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "commands.md"


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "lossguard_server", *arguments],
        env=os.environ | {"LOSSGUARD_DIR": str(folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ports(**chosen: int) -> list[str]:
    return [
        part for name in ("collector", "dashboard") for part in (f"--{name}-port", str(chosen.get(name, free_port())))
    ]


@pytest.mark.system
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_service_that_ends_takes_the_other_one_with_it_and_is_named(tmp_path: Path) -> None:
    process = start(tmp_path, *ports())
    assert process.stdout is not None
    while "Ctrl-C" not in process.stdout.readline():
        assert process.poll() is None
    collector, dashboard = children(process.pid)
    os.kill(collector, signal.SIGKILL)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert errors == f"lossguard-server: the collector has ended; its log is {tmp_path}/serve/logs/collector.log\n"
    assert wait_until_gone(dashboard)


@pytest.mark.slow(1)
@pytest.mark.parametrize("name", ["collector", "dashboard"])
def test_a_port_in_use_is_one_sentence_and_nothing_is_started(tmp_path: Path, name: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        process = start(tmp_path, *ports(**{name: port}))
        output, errors = process.communicate(timeout=60)
    assert (process.returncode, output) == (2, "")
    assert errors == (
        f"lossguard-server: port {port} for the {name} is in use; stop the program that listens there, "
        f"or choose another: lossguard-server --{name}-port PORT\n"
    )
    assert not (tmp_path / "lossguard.db").exists()


def test_the_version_is_that_of_the_sdk(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        server.main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"lossguard-server {metadata.version('lossguard')}\n"


def test_the_help_and_the_page_of_commands_have_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        server.main(["--help"])
    page = PAGE.read_text(encoding="utf-8").partition("## Server: `lossguard-server`")[2].partition("\n## ")[0]
    for text, pattern in ((capsys.readouterr().out, r"^lossguard-server (\w+)"), (page, r"^\| `(\w+)")):
        assert set(re.findall(pattern, text, re.MULTILINE)) == set(server.COMMANDS)


@pytest.mark.parametrize("before", [[], ["collector"]])
def test_a_command_of_the_collector_is_one_of_the_server(before: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        server.main([*before, "settings"])
    assert ended.value.code == 0
    assert "LOSSGUARD_DATABASE_URL" in capsys.readouterr().out


def test_the_settings_name_the_store_that_counts_and_show_no_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LOSSGUARD_DIR", str(tmp_path))
    monkeypatch.setenv("LOSSGUARD_DATABASE_URL", "postgresql://u:secret@host/name")
    with pytest.raises(SystemExit):
        server.main(["settings"])
    assert capsys.readouterr().out.endswith("\nLOSSGUARD_DATABASE_URL is postgresql://u:***@host/name here.\n")
    monkeypatch.setenv("LOSSGUARD_DATABASE_URL", "")
    with pytest.raises(SystemExit):
        server.main(["settings"])
    assert capsys.readouterr().out.endswith(f"\nLOSSGUARD_DATABASE_URL is sqlite:///{tmp_path}/lossguard.db here.\n")


@pytest.mark.parametrize("name", server.OF_COLLECTOR)
def test_the_help_of_a_command_shows_how_it_is_typed(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        server.main([name, "--help"])
    assert f"Usage: lossguard-server {name}" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["dashbord"], ["--collector-port", "0"], ["--dashboard-port", "x"]])
def test_an_argument_that_cannot_be_used_ends_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        server.main(arguments)
    assert ended.value.code == 2
    assert arguments[-1] in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["--port", "8010"], "there is no command '8010'|unrecognized arguments: --port"),
        (["--collector-port", "8010", "collector"], "lossguard-server collector --help"),
    ],
)
def test_an_option_in_the_wrong_place_is_named(
    arguments: list[str], error: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        server.main(arguments)
    assert ended.value.code == 2
    assert re.search(error, capsys.readouterr().err)
