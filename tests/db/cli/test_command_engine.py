import pytest

from db.cli import command_engine
from db.cli.command_engine import as_typed_here

REMEDIES = {
    "run: python -m db upgrade": "run: lossguard-server db upgrade",
    "python -m monitor serve; python -m dashboard": "lossguard-server serve; lossguard-server dashboard",
    "python -m trainer replay r/1": "lossguard-server replay r/1",
    "python -m dashboard report r": "lossguard-server report r",
}


@pytest.mark.parametrize(("checkout", "installed"), REMEDIES.items())
def test_a_command_is_that_of_the_server_where_it_is_installed(
    checkout: str, installed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command_engine, "server_is_installed", lambda: False)
    assert as_typed_here(checkout) == checkout
    monkeypatch.setattr(command_engine, "server_is_installed", lambda: True)
    assert as_typed_here(checkout) == installed
