"""Secrets, which are masked in all that is recorded, and hosts that never leave this machine. Pure."""

import re
from collections.abc import Iterator, Mapping, Sequence
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

# Secrets are replaced by *** before anything is recorded, sent or logged: by the name they have, or by their form.
#
#     python train.py --api-key=XYZ --data s3://user:pw@host   ->   python train.py --api-key=*** --data s3://***@host
#
# A name is that of a secret if it ends in a word such as `password`, `secret`, `api_key` or `token`; the tokens of a
# tokenizer (`pad_token`, `eos_token`) and numbers of tokens are none. A secret under another name is not recognised.

MASK = "***"

_WORD = (
    r"(?:pass(?:word|wd|phrase|code)|secrets?|credentials?|cookie|authorization"
    r"|(?:api|access|private|secret|account|signing|encryption|auth|service|wandb|client|order)[-_.]?(?:key|secret)s?"
    r"|access[-_.]?key[-_.]?id|signature)"
)
_TOKEN = r"(?<!bos[-_.])(?<!eos[-_.])(?<!pad[-_.])(?<!unk[-_.])(?<!sep[-_.])(?<!cls[-_.])(?<!eot[-_.])(?<!per[-_.])"
_TOKEN += r"(?<!mask[-_.])(?<!stop[-_.])(?<!next[-_.])(?<!start[-_.])(?<!end[-_.])(?<!image[-_.])(?<!special[-_.])token"
_NAME = re.compile(rf"(?i)(?:{_WORD}|{_TOKEN}|(?:^|[-_.])(?:pat|pwd?|passw|sas|sig|dsn))$")
_PLACEHOLDER = re.compile(r"<[A-Z_]+>")  # as Hugging Face's arguments have it in place of their token: "<HUB_TOKEN>"
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_ASSIGNED_NAME = re.compile(r"""(?<![\w.-])([\w.-]++)['"]?\]?\s*[:=]\s*""")
_VALUE = re.compile(r"""(["']?)(?!\*\*\*)[^\s'",;&})\]]+\1""")
_FORMS = (
    # user:password@ of a URL, up to the last @ before the path; a slash or an @ in the password should be %2F or %40,
    # and a number before a slash is a port
    (
        re.compile(r"(?<=://)(?:[^\s/'\"]+|[^\s/@:'\"]{0,256}+:(?!\d+/)[^\s@'\"]{0,256}+(?:@[^\s/'\"]{0,256})?)(?=@)"),
        MASK,
    ),
    (re.compile(r"(?i)\b(bearer|authorization['\"]?\s*[:=]\s*basic)\s+[\w.~+/=-]{8,}"), rf"\1 {MASK}"),
    (
        re.compile(
            r"\b(?:hf_[A-Za-z0-9]{8,}|sk-[\w-]{8,}|gh[opsur]_[A-Za-z0-9]{16,}|github_pat_\w{16,}|glpat-[\w-]{8,}"
            r"|xox[abprs]-[\w-]{8,}|npm_[A-Za-z0-9]{16,}|pypi-[\w-]{16,}|AIza[\w-]{30,}|(?:AKIA|ASIA)[A-Z0-9]{12,}"
            r"|eyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*)"
        ),
        MASK,
    ),
)


def is_secret_name(name: str) -> bool:
    """Return True if a value with this name is a secret."""
    return _NAME.search(_CAMEL.sub("_", name.strip("-"))) is not None


def mask_text(text: str) -> str:
    """`text` without the secrets in it: values assigned to secret names, credentials of URLs, keys of known form."""
    for form, mask in _FORMS:
        text = form.sub(mask, text)
    return "".join(_without_assigned_secrets(text))


def mask_command(arguments: Sequence[str]) -> list[str]:
    """The arguments of a command line, without the secrets in them."""
    masked: list[str] = []
    follows_name = False
    for argument in arguments:
        masked.append(MASK if follows_name and not argument.startswith("--") else mask_text(argument))
        follows_name = argument.startswith("-") and "=" not in argument and is_secret_name(argument)
    return masked


def mask_command_line(text: str) -> str:
    """A command line as text, without the secrets in it."""
    return " ".join(mask_command(text.split(" ")))


def mask_json(value: Any, *, is_secret: bool = False) -> Any:
    """A JSON value without the secrets in it: strings under secret names, and strings of the form of a secret.

    Numbers and switches stay: a count of something is no secret. `is_secret`: the value stands under a secret name.
    """
    if isinstance(value, Mapping):
        return {key: mask_json(each, is_secret=is_secret or is_secret_name(key)) for key, each in value.items()}
    if isinstance(value, list):
        return [mask_json(each, is_secret=is_secret) for each in value]
    if not isinstance(value, str):
        return value
    if not is_secret:
        return mask_text(value)
    return MASK if value and not _PLACEHOLDER.fullmatch(value) else value


def _without_assigned_secrets(text: str) -> Iterator[str]:
    begin = 0
    for name in _ASSIGNED_NAME.finditer(text):
        if name.start() < begin or not is_secret_name(name[1]):
            continue
        if value := _VALUE.match(text, name.end()):
            yield f"{text[begin : name.end()]}{value[1]}{MASK}{value[1]}"
            begin = value.end()
    yield text[begin:]


# Hosts of addresses.


def is_loopback(host: str) -> bool:
    """Return True if `host` (an IP address or a name, without a port) is this machine's loopback interface."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def host_of(url: str) -> str:
    """The host of a URL, or of a Host header written as `//host:port`; empty where it cannot be parsed."""
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""
