"""Files behind URLs, and the errors of obstore, s3fs and others in our words."""

import os
import sys
from pathlib import Path

import pytest

from lossguard.checkpoints.remote.files import (
    RemoteFiles,
    holds_secret,
    is_missing_bucket,
    is_remote,
    local_path,
    open_files,
    reason,
    scheme_of,
    shown_url,
    within,
)
from lossguard.vocabulary.errors import ConfigurationError

AWS_KEYS = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
AZURE_KEYS = "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY"
NO_BUCKET = "the bucket 'bucket' does not exist; create it, or correct the URL"
DENIED = "The operation lacked the necessary privileges to complete for path x/y: Error performing GET"
SENDING = "HTTP error: error sending request\n\nDebug source:\nGeneric {"


def answer(status: str, code: str) -> str:
    """As obstore quotes the answer of a server."""
    return (
        f"Server returned non-2xx status code: {status}: <?xml version='1.0'?>\n<Error><Code>{code}</Code>"
        "<Message>No.</Message></Error>\n\nDebug source:\nGeneric {"
    )


@pytest.mark.parametrize(
    ("url", "said", "sentence"),
    [
        (
            "s3://bucket/x",
            f"Object at location x/y not found: Error performing PUT http://h:1/b in 2ms - "
            f"{answer('404 Not Found', 'NoSuchBucket')}",
            NO_BUCKET,
        ),
        ("s3://bucket", "The specified bucket does not exist", NO_BUCKET),
        (
            "s3://bucket/x",
            "Generic S3 error: Error performing PUT http://169.254.169.254/latest/api/token in 4ms - HTTP error",
            f"there are no credentials; set {AWS_KEYS}",
        ),
        ("s3://bucket/x", "Unable to locate credentials", f"there are no credentials; set {AWS_KEYS}"),
        (
            "gs://bucket/x",
            "Generic GCS error: Error performing token request: http://metadata.google.internal/computeMetadata",
            "there are no credentials; set GOOGLE_APPLICATION_CREDENTIALS",
        ),
        (
            "az://bucket/x",
            "Generic MicrosoftAzure error: Account must be specified\n\nDebug source:\nGeneric {",
            f"there are no credentials; set {AZURE_KEYS}",
        ),
        (
            "s3://bucket/x",
            f"{DENIED} http://h:1/b in 2ms - {answer('403 Forbidden', 'ExpiredToken')}",
            f"the credentials have expired; renew {AWS_KEYS}",
        ),
        (
            "s3://bucket/x",
            "An error occurred (ExpiredToken) when calling the PutObject operation: The provided token has expired.",
            f"the credentials have expired; renew {AWS_KEYS}",
        ),
        (
            "s3://bucket/x",
            f"{DENIED} http://h:1/b in 2ms - {answer('403 Forbidden', 'InvalidAccessKeyId')}",
            f"the server refuses the credentials (InvalidAccessKeyId); check {AWS_KEYS}, and what they may do in the "
            "bucket",
        ),
        (
            "s3://bucket/x",
            "Generic S3 error: Error performing PUT http://127.0.0.1:9/b/x in 19us - HTTP error: builder error\n\n"
            "Debug source:\nreqwest::Error { kind: Builder, source: BadScheme }",
            "the address begins with http://; set AWS_ALLOW_HTTP=true, or use https://",
        ),
        (
            "s3://bucket/x",
            f"Generic S3 error: Error performing PUT https://user:hunter2@no-host.invalid/b/x in 1.8s, after 10 "
            f"retries, max_retries: 10, retry_timeout: 180s  - {SENDING}",
            "no answer from ***@no-host.invalid; check the network and AWS_ENDPOINT_URL",
        ),
        (
            "s3://bucket/x",
            'Could not connect to the endpoint URL: "http://127.0.0.1:9/b/x"',
            "no answer from 127.0.0.1:9; check the network and AWS_ENDPOINT_URL",
        ),
        (
            "s3://bucket/x",
            "Generic S3 error: Error performing PUT https://h/b in 2s, after 10 retries - "
            "Server returned non-2xx status code: 503 Service Unavailable: busy",
            "the server answered 503 Service Unavailable; try later",
        ),
        (
            "gs://bucket/x",
            "Generic GCS error: Unable to open service account file from /no: No such file (os error 2)\n\nDebug {",
            "Unable to open service account file from /no: No such file (os error 2)",
        ),
        (
            "s4://bucket",
            "Protocol not known: s4",
            "s4:// is not supported; use a folder, s3://, gs://, az:// or another that fsspec has",
        ),
        ("sftp://host/x", "", "ValueError"),
        ("sftp://host/x", "no\nway", "no"),
    ],
)
def test_an_error_of_a_package_becomes_a_reason_with_a_remedy(url: str, said: str, sentence: str) -> None:
    assert reason(ValueError(said), url) == sentence


def test_an_error_of_the_machine_is_its_own_reason() -> None:
    assert reason(OSError(28, "No space left on device", "/mnt/x"), "file:///mnt") == "No space left on device"


def test_a_missing_bucket_is_no_missing_file() -> None:
    assert is_missing_bucket(FileNotFoundError(answer("404 Not Found", "NoSuchBucket")))
    assert not is_missing_bucket(FileNotFoundError(answer("404 Not Found", "NoSuchKey")))


@pytest.mark.parametrize(
    ("text", "scheme"), [("s3://b", "s3"), ("simplecache::s3://b", "simplecache"), ("/data/a:b", None), ("s3:/b", None)]
)
def test_only_a_url_has_a_scheme(text: str, scheme: str | None) -> None:
    assert scheme_of(text) == scheme


@pytest.mark.parametrize(
    "url",
    [
        "github://org:hunter2@repo/run",
        "sftp://hunter1:hunter2@host/run",
        "sftp://hunter1:hunter/2@host/run",
        "simplecache::sftp://hunter1:hunter2@host/run",
        "s3://bucket/run?X-Amz-Signature=hunter2",
    ],
)
def test_a_url_is_shown_without_a_secret(url: str) -> None:
    assert "hunter" not in shown_url(url)
    assert holds_secret(url)
    assert not holds_secret("abfs://container@account.dfs.core.windows.net/run")
    assert shown_url("s3://bucket/run@2/") == "s3://bucket/run@2/"


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
