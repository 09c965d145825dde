"""What went wrong at a remote URL, in a few words with a remedy, and without secrets. Pure.

Each package that fsspec uses has errors of its own, and those of obstore bring the whole answer of the server; all of
them name the cause by the same words, which the services have made up.
"""

import re
from dataclasses import dataclass

from lossguard.masking import mask_text

MAX_REASON = 300
"""Characters of another package's error that ours quote."""

_SCHEME = re.compile(r"[a-z][a-z0-9+.-]+(?=::|://)")
_USER = re.compile(r"(?<=://)[^/@]*@")
_NAME = re.compile(r"(?<=://)[^/@:]*@")
"""A user without a password, or a container of Azure."""
_NO_BUCKET = re.compile(r"NoSuchBucket|ContainerNotFound|The specified (?:bucket|container) does not exist")
_CODE = re.compile(r"<Code>(\w+)</Code>")
_HOST = re.compile(r"https?://([^/\s?\"']+)")


@dataclass(frozen=True, slots=True)
class _Service:
    """The environment variables by which a process reaches an object store."""

    credentials: str
    endpoint: str


_S3 = _Service("AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL")
_GOOGLE = _Service("GOOGLE_APPLICATION_CREDENTIALS", "GOOGLE_APPLICATION_CREDENTIALS")
_AZURE = _Service("AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_ACCOUNT_NAME")
_SERVICES = {
    **dict.fromkeys(("s3", "s3a"), _S3),
    **dict.fromkeys(("gs", "gcs"), _GOOGLE),
    **dict.fromkeys(("az", "abfs", "abfss", "adl"), _AZURE),
}

_CAUSES = [
    (_NO_BUCKET, "the bucket {bucket!r} does not exist; create it, or correct the URL"),
    (
        re.compile(
            r"169\.254\.169\.254|169\.254\.170\.2|metadata\.google\.internal|Account must be specified"
            r"|Unable to locate credentials|default credentials were not found|MissingCredentials"
        ),
        "there are no credentials; set {credentials}",
    ),
    (
        re.compile(r"ExpiredToken\w*|TokenRefreshRequired|invalid_grant|(?i:token (?:has|is) expired)"),
        "the credentials have expired; renew {credentials}",
    ),
    (re.compile(r"RequestTimeTooSkewed"), "the clock of this machine is wrong; set it"),
    (
        re.compile(r"AuthorizationHeaderMalformed|PermanentRedirect|incorrectly configured region"),
        "the bucket {bucket!r} is in another region; set AWS_REGION",
    ),
    (
        re.compile(
            r"InvalidAccessKeyId|SignatureDoesNotMatch|InvalidToken|AccessDenied|AllAccessDisabled|Auth\w+Failed"
            r"|AuthorizationPermissionMismatch|40[13] (?:Forbidden|Unauthorized)|Access Denied|Forbidden|Unauthorized"
        ),
        "the server refuses the credentials ({found}); check {credentials}, and what they may do in the bucket",
    ),
    (re.compile(r"BadScheme"), "the address begins with http://; set AWS_ALLOW_HTTP=true, or use https://"),
    (
        re.compile(r"dns error|error sending request|[Cc]ould not connect to the endpoint|Cannot connect to host"),
        "no answer from {host}; check the network and {endpoint}",
    ),
    (re.compile(r"(?<=non-2xx status code: )(?:5\d\d|429) [A-Z][A-Za-z ]*"), "the server answered {found}; try later"),
]
"""How another package's error names a cause -> what we say. The first that is found counts."""
_UNKNOWN_SCHEME = re.compile(r"Protocol not known: (\S+)")


def shown_url(url: str) -> str:
    """A URL for people: without user name, password and signature."""
    return _USER.sub("", mask_text(url))


def holds_secret(url: str) -> bool:
    """Whether there is a password, a key or a signature in a URL; a name before an @ is none."""
    rest = _NAME.sub("", url)
    return mask_text(rest) != rest


def scheme_of(url: str) -> str | None:
    """`s3` of `s3://bucket`; None for a path."""
    match = _SCHEME.match(url)
    return match and match[0]


def is_missing_bucket(problem: BaseException) -> bool:
    """Whether it is the bucket that is missing. Packages take that for a missing file."""
    return _NO_BUCKET.search(str(problem)) is not None


def reason(problem: BaseException, url: str) -> str:
    """Why something failed at the URL, as the end of a sentence."""
    said = str(getattr(problem, "strerror", None) or problem).strip()
    if unknown := _UNKNOWN_SCHEME.search(said):
        return f"{unknown[1]}:// is not supported; use a folder, s3://, gs://, az:// or another that fsspec has"
    service = _SERVICES.get(scheme_of(url) or "")
    return (service and _known_cause(said, url, service)) or _first_words(said) or type(problem).__name__


def _known_cause(said: str, url: str, service: _Service) -> str | None:
    for pattern, sentence in _CAUSES:
        if found := pattern.search(said):
            code, host = _CODE.search(said), _HOST.search(mask_text(said))
            return sentence.format(
                found=code[1] if code else found[0].strip(),
                bucket=shown_url(url).partition("://")[2].partition("/")[0],
                host=host[1] if host else "the server",
                credentials=service.credentials,
                endpoint=service.endpoint,
            )
    return None


def _first_words(said: str) -> str:
    line = mask_text(said).partition("\n")[0].partition(": <?xml")[0]
    return re.sub(r"^Generic \w+ error: ", "", line)[:MAX_REASON].rstrip(" :.")
