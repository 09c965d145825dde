import os
import sys
from pathlib import Path

import pytest

from lossguard.checkpoints.remote.files import RemoteFiles, is_remote, local_path, open_files, within
from lossguard.vocabulary.errors import ConfigurationError


@pytest.mark.parametrize(
    ("place", "remote"),
    [
        ("s3://bucket/run", True),
        ("simplecache::s3://bucket/run", True),
        ("memory://run", True),
        ("file:///data/run", False),
        ("out/run", False),
        ("/data/a:b", False),
        (Path("s3:/bucket"), False),
    ],
)
def test_a_url_of_another_place_differs_from_a_path(place: str | Path, remote: bool) -> None:
    assert is_remote(place) == remote


def test_a_file_url_is_a_path_like_any_other() -> None:
    assert local_path("file:///data/a%20run") == local_path("local:///data/a run") == Path("/data/a run")
    assert local_path("out/run") == Path("out/run")
    assert within("s3://bucket/", "lossguard") == "s3://bucket/lossguard"
    assert within("out", "lossguard") == within(Path("out"), "lossguard") == Path("out/lossguard")


@pytest.mark.parametrize(
    ("url", "hidden", "sentence"),
    [
        ("s3://bucket/run", ("s3fs", "obstore", "obstore.fsspec"), "s3fs or obstore, and neither is installed: pip"),
        ("sftp://host/run", ("paramiko",), "needs paramiko, which is not installed: pip install paramiko"),
        ("memory://run", ("fsspec",), "memory://run needs fsspec, which is not installed: pip install fsspec"),
        ("s4://b/run", (), "s4://b/run cannot be opened: s4:// is not supported; use a folder, s3://, gs://, az:// or"),
    ],
)
def test_a_package_that_is_missing_is_named_in_one_sentence(
    url: str, hidden: tuple[str, ...], sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in hidden:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ConfigurationError) as refused:
        RemoteFiles(url)
    assert sentence in str(refused.value)
    assert "\n" not in str(refused.value)


def test_obstore_serves_a_url_without_being_registered_for_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("obstore")
    for package in ("s3fs", "gcsfs"):
        monkeypatch.setitem(sys.modules, package, None)
    for url in ("s3://bucket/run", "gcs://bucket/run"):
        opened, path = open_files(url)
        assert (type(opened).__module__, path) == ("obstore.fsspec", "bucket/run")
    for name in ("obstore", "obstore.fsspec"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ConfigurationError, match="neither is installed"):
        open_files("s3://bucket/run")


def test_files_are_written_listed_read_and_deleted(tmp_path: Path) -> None:
    files = RemoteFiles(f"memory://{tmp_path.name}-{os.getpid()}/run/")
    (tmp_path / "model.pt").write_bytes(b"weights")
    assert files.sizes() == {}
    files.put(tmp_path / "model.pt", "files/a/model.pt")
    files.write("manifest.json", b"{}")
    assert files.sizes() == {"files/a/model.pt": 7, "manifest.json": 2}
    assert files.sizes("files/a") == {"files/a/model.pt": 7}
    files.get("files/a/model.pt", tmp_path / "copy.pt")
    assert (tmp_path / "copy.pt").read_bytes() == b"weights"
    assert files.read("manifest.json") == b"{}"
    files.delete(["manifest.json", "manifest.json", "never.json"])
    with pytest.raises(FileNotFoundError, match=r"run/manifest\.json is not there"):
        files.read("manifest.json")


def test_no_message_shows_a_password() -> None:
    files = RemoteFiles("memory://user:hunter2@host/run")
    assert "hunter2" not in str(files)
    assert "user" not in str(files)


def test_no_reason_of_a_failure_shows_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    files = RemoteFiles("memory://run")

    def fails(path: str) -> bytes:
        raise RuntimeError("403 for https://user:hunter2@host/run?X-Amz-Signature=hunter2")

    monkeypatch.setattr(files._files, "cat_file", fails)
    with pytest.raises(
        OSError, match=r"run/a cannot be read: 403 for https://\*\*\*@host/run\?X-Amz-Signature=\*\*\*$"
    ):
        files.read("a")
