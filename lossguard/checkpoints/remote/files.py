"""The files below a URL, through fsspec, and their errors in a few words."""

import os
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

from lossguard.vocabulary.errors import ConfigurationError
from lossguard.vocabulary.secrets import mask_text

# Errors, in a few words with a remedy, and without secrets.
#
# Each package that fsspec uses has errors of its own, and those of obstore bring the whole answer of the server; all of
# them name the cause by the same words, which the services have made up.

MAX_REASON = 300
"""Characters of another package's error that ours quote."""

_SCHEME = re.compile(r"[a-z][a-z0-9+.-]+(?=::|://)")
_USER = re.compile(r"(?<=://)[^/@]*@")
_NAME = re.compile(r"(?<=://)[^/@:]*@")
"""A user without a password, or a container of Azure."""
_NO_BUCKET = re.compile(r"NoSuchBucket|ContainerNotFound|The specified (?:bucket|container) does not exist")
_CODE = re.compile(r"<Code>(\w+)</Code>")
_HOST = re.compile(r"https?://([^/\s?\"']+)")


_AWS = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL"
_GOOGLE = "GOOGLE_APPLICATION_CREDENTIALS", "GOOGLE_APPLICATION_CREDENTIALS"
_AZURE = "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_ACCOUNT_NAME"
_SERVICES = {
    **dict.fromkeys(("s3", "s3a"), _AWS),
    **dict.fromkeys(("gs", "gcs"), _GOOGLE),
    **dict.fromkeys(("az", "abfs", "abfss", "adl"), _AZURE),
}
"""Scheme -> the environment variables with the credentials of its service, and those with its address."""

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
"""Words of another package's error -> our sentence. The first that is found counts."""
_UNKNOWN_SCHEME = re.compile(r"Protocol not known: (\S+)")


def shown_url(url: str) -> str:
    """A URL for people: without user name, password and signature."""
    return _USER.sub("", mask_text(url))


def holds_secret(url: str) -> bool:
    """Return True if there is a password, a key or a signature in a URL; a name before an @ is none."""
    rest = _NAME.sub("", url)
    return mask_text(rest) != rest


def scheme_of(url: str) -> str | None:
    """`s3` of `s3://bucket`; None for a path."""
    match = _SCHEME.match(url)
    return match and match[0]


def is_missing_bucket(problem: BaseException) -> bool:
    """Return True if it is the bucket that is missing. Packages take that for a missing file."""
    return _NO_BUCKET.search(str(problem)) is not None


def reason(problem: BaseException, url: str) -> str:
    """Return why something failed at the URL, as the end of a sentence."""
    said = str(getattr(problem, "strerror", None) or problem).strip()
    if unknown := _UNKNOWN_SCHEME.search(said):
        return f"{unknown[1]}:// is not supported; use a folder, s3://, gs://, az:// or another that fsspec has"
    shown = mask_text(said)
    if (service := _SERVICES.get(scheme_of(url) or "")) is not None:
        credentials, endpoint = service
        for pattern, sentence in _CAUSES:
            if found := pattern.search(said):
                code, host = _CODE.search(said), _HOST.search(shown)
                return sentence.format(
                    found=code[1] if code else found[0].strip(),
                    bucket=shown_url(url).partition("://")[2].partition("/")[0],
                    host=host[1] if host else "the server",
                    credentials=credentials,
                    endpoint=endpoint,
                )
    line = shown.partition("\n")[0].partition(": <?xml")[0]
    return re.sub(r"^Generic \w+ error: ", "", line)[:MAX_REASON].rstrip(" :.") or type(problem).__name__


# Files: of an object store (s3://, gs://, az://), or of whatever else fsspec reaches.
#
# fsspec and the package for a kind of store are imported when a URL is opened: the SDK does not need them otherwise.

T = TypeVar("T")
ON_DISK = ("file", "local")
"""Schemes of paths on this machine."""
_IN_OBSTORE = {name: name for name in ("s3", "s3a", "gs", "az", "abfs", "abfss", "adl")} | {"gcs": "gs"}
"""Scheme -> what obstore calls it: the stores that it reaches without a further package."""


def is_remote(place: object) -> bool:
    """Return True if `place` is a URL of files that lie elsewhere than on a disk of this machine."""
    scheme = scheme_of(place) if isinstance(place, str) else None
    return scheme is not None and scheme not in ON_DISK


def local_path(place: str | os.PathLike[str]) -> Path:
    """A path, or a file:// URL, as a path."""
    scheme = scheme_of(place) if isinstance(place, str) else None
    return Path(place) if scheme is None else Path(unquote(urlsplit(str(place)).path))


def within(place: str | Path, name: str) -> str | Path:
    """Return the path or URL of `name` in a folder or at a URL."""
    return f"{str(place).rstrip('/')}/{name}" if is_remote(place) else local_path(place) / name


class RemoteFiles:
    """The files below `url`. `options` are those of the fsspec filesystem, such as `{"endpoint_url": ..}` of s3fs.

    Names are relative to the URL, with slashes. Every method raises FileNotFoundError where a file is missing, and
    OSError with one sentence for whatever else goes wrong there or on the way.
    Raises ConfigurationError for a URL that cannot be opened.
    """

    def __init__(self, url: str, options: Mapping[str, Any] | None = None) -> None:
        self.url = shown_url(url).rstrip("/")
        """For people: without user name and password."""
        self._files, root = open_files(url, options)
        self._root = root.rstrip("/")

    def __str__(self) -> str:
        return self.url

    def put(self, path: Path, name: str) -> None:
        """Write what a local file holds."""
        self._call("written", name, self._files.put_file, str(path), self._path(name))

    def write(self, name: str, content: bytes) -> None:
        """Write a small file at once. On an object store, others see all of it or none."""
        self._call("written", name, self._files.pipe_file, self._path(name), content)

    def get(self, name: str, path: Path) -> None:
        """Write the content to a local file."""
        self._call("read", name, self._files.get_file, self._path(name), str(path))

    def read(self, name: str) -> bytes:
        """The content of a small file."""
        content: bytes = self._call("read", name, self._files.cat_file, self._path(name))
        return content

    def sizes(self, folder: str = "") -> dict[str, int]:
        """Name -> bytes of each file below a folder."""
        self._files.invalidate_cache()
        found = self._call("listed", folder, self._files.find, self._path(folder), detail=True)
        return {path[len(self._root) :].lstrip("/"): facts["size"] for path, facts in found.items()}

    def delete(self, names: Iterable[str]) -> None:
        """Delete files; one that is not there is as good as deleted."""
        for name in names:
            try:
                self._call("deleted", name, self._files.rm_file, self._path(name))
            except FileNotFoundError:
                continue

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}".rstrip("/")

    def _call(self, what: str, name: str, action: Callable[..., T], *arguments: Any, **options: Any) -> T:
        place = f"{self.url}/{name}".rstrip("/")
        try:
            return action(*arguments, **options)
        except Exception as problem:  # each package has errors of its own
            if isinstance(problem, FileNotFoundError) and not is_missing_bucket(problem):
                raise FileNotFoundError(f"{place} is not there") from problem
            raise OSError(f"{place} cannot be {what}: {reason(problem, self.url)}") from problem


def open_files(url: str, options: Mapping[str, Any] | None = None) -> tuple[Any, str]:
    """The fsspec filesystem of a URL, and the path in it. `options` are those of the filesystem.

    It is opened anew, and nothing is registered for the process. Raises ConfigurationError.
    """
    shown = shown_url(url)
    try:
        import fsspec
    except ModuleNotFoundError as missing:
        raise ConfigurationError(f"{shown} needs fsspec, which is not installed: pip install fsspec") from missing
    own = {"skip_instance_cache": True, **(options or {})}  # credentials and listings of nobody else
    try:
        opened: tuple[Any, str] = fsspec.core.url_to_fs(url, **own)
    except ImportError as missing:
        return _open_with_obstore(url, own, missing)
    except Exception as problem:  # each package has errors of its own
        raise ConfigurationError(f"{shown} cannot be opened: {reason(problem, url)}") from problem
    return opened


def _open_with_obstore(url: str, options: Mapping[str, Any], missing: ImportError) -> tuple[Any, str]:
    """Open URLs of s3fs, gcsfs and adlfs where none of them is installed."""
    scheme, _, path = url.partition("://")
    shown = shown_url(url)
    package = _package_of(scheme, missing)
    if scheme not in _IN_OBSTORE:
        raise ConfigurationError(f"{shown} needs {package}, which is not installed: pip install {package}") from missing
    try:
        from obstore.fsspec import FsspecStore
    except ImportError:
        sentence = f"{shown} needs {package} or obstore, and neither is installed: pip install obstore"
        raise ConfigurationError(sentence) from missing
    open_store: Any = FsspecStore  # its types name the options of each scheme
    try:
        return open_store(_IN_OBSTORE[scheme], **options), path
    except Exception as problem:  # its own errors
        raise ConfigurationError(f"{shown} cannot be opened: {reason(problem, url)}") from problem


def _package_of(scheme: str, missing: ImportError) -> str:
    from fsspec.registry import known_implementations

    module: str = known_implementations.get(scheme, {}).get("class", "").partition(".")[0]
    cause = missing.__cause__ or missing.__context__
    of_cause = getattr(cause, "name", None) or getattr(missing, "name", None) or scheme
    return of_cause if module in ("fsspec", "") else module
