"""Where the server keeps its store."""

from pathlib import Path

import pytest

from lossguard_server.services import default_folder, store_in


def test_the_store_is_in_the_folder_of_lossguard_or_in_the_users_folder_for_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("LOSSGUARD_DIR", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/home/ada")
    assert store_in(default_folder()) == "sqlite:////home/ada/.local/share/lossguard/lossguard.db"
    monkeypatch.setenv("XDG_DATA_HOME", "/data")
    assert default_folder() == Path("/data/lossguard")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LOSSGUARD_DIR", "out")
    assert default_folder() == tmp_path / "out"
