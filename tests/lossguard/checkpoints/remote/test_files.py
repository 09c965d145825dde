"""The errors of obstore, s3fs and others, as they were met, in our words."""

import pytest

from lossguard.checkpoints.remote.files import holds_secret, is_missing_bucket, reason, scheme_of, shown_url

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
