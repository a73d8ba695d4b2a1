"""What many texts are told apart by without holding them."""

import hashlib


def short_hash(text: str) -> bytes:
    """16 bytes, equal for equal texts and, as good as surely, for no others."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
