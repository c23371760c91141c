"""Private keys that a server can read by itself: nobody is there to be asked for a passphrase."""

import ssl


def no_passphrase() -> str:
    """For `load_cert_chain`, which would otherwise wait at a prompt. Raises ssl.SSLError."""
    raise ssl.SSLError("the private key is encrypted; give an unencrypted PEM key")
