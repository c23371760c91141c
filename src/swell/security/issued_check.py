"""Whether what was issued is still what it was: others can write to where certificates are kept."""

from datetime import UTC, datetime

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key


def spoilt(authority: bytes, host: str, now_unix: float, *, ca: bytes, certificate: bytes, private_key: bytes) -> str:
    """Why a certificate for `host` by that authority, as PEM, cannot be used, in words; nothing where it can."""
    now = datetime.fromtimestamp(now_unix, UTC)
    trusted = x509.load_pem_x509_certificate(authority)
    try:
        if x509.load_pem_x509_certificates(ca) != [trusted]:
            return "what it trusts is another authority"
        leaf = x509.load_pem_x509_certificate(certificate)
        leaf.verify_directly_issued_by(trusted)
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (ValueError, TypeError, x509.ExtensionNotFound, UnsupportedAlgorithm, InvalidSignature):
        return "it holds no certificate of its authority"
    try:
        is_pair = load_pem_private_key(private_key, None).public_key() == leaf.public_key()
    except (ValueError, TypeError, UnsupportedAlgorithm):
        is_pair = False
    if not is_pair:
        return "its key is not the certificate's"
    if list(names) != [x509.DNSName(host)]:
        return "its certificate names another"
    if not leaf.not_valid_before_utc <= now < leaf.not_valid_after_utc:
        return "its certificate is not good now"
    return ""
