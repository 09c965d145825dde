"""Why a collector does not answer, in words. Pure."""

import ssl

REASONS = {
    "NewConnectionError": "the connection is refused",
    "NameResolutionError": "its host name is not known",
    "ConnectTimeoutError": "no connection in time",
    "ReadTimeoutError": "no answer in time",
    "ProtocolError": "the connection was lost",
}
"""By name of the exception of urllib3."""


def reason_of(error: BaseException | None) -> str:
    """A clause about the exception with which a request ended; of an unknown one its name."""
    cause = error.args[0] if error is not None and error.args else None
    if isinstance(cause, ssl.SSLCertVerificationError):
        refused = cause.verify_message.rstrip(".")
        return f"its certificate is refused: {refused}; trust a private authority with SSL_CERT_FILE"
    if isinstance(cause, ssl.SSLError):
        return f"TLS fails: {cause.reason}; if the collector speaks plain HTTP, its address begins with http://"
    name = type(error).__name__
    return REASONS.get(name, name)
