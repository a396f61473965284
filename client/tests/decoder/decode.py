"""A second decoder of the sealed format, written from docs/sealed-format.md alone.

It shares no code with the Rust crate, so that a mistake made twice would have to be made in two languages. It reads
cases from standard input, each as five length-prefixed fields (be32): tenant key, name of the case, wrapped data key,
sealed object, sealed metadata. For each it prints one line of JSON. It must never print or keep a key.
"""

import hashlib
import hmac
import json
import struct
import sys

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

HEADER = struct.Struct(">8sHBBIQII16s32s32s32s")
LABEL = b"trefoil/v1"
TAG = 16


def field(value):
    return struct.pack(">H", len(value)) + value


def unwrap(tenant_key, wrapped, identity):
    version, nonce, text = wrapped[:4], wrapped[4:16], wrapped[16:]
    aad = b"".join(map(field, [LABEL, *identity, version, b"dek"]))
    return AESGCM(tenant_key).decrypt(nonce, text, aad)


class Object:
    """The keys of one sealed object, once its header's commitment matched."""

    def __init__(self, tenant_key, wrapped, header):
        (magic, form, algorithm, reserved, self.chunk_len, tenant, _kek, attempt, version, name, salt, commitment) = (
            HEADER.unpack(header)
        )
        assert (magic, form, algorithm, reserved) == (b"TREFOIL\0", 1, 1, 0)
        identity = [struct.pack(">Q", tenant), name, version, struct.pack(">I", attempt)]
        dek = unwrap(tenant_key, wrapped, identity)
        context = b"".join(map(field, [LABEL, bytes([algorithm]), *identity]))

        def derive(purpose):
            return HKDF(hashes.SHA256(), 32, salt, purpose + context).derive(dek)

        assert hmac.compare_digest(derive(b"commit"), commitment), "wrong key"
        self.payload, self.meta = AESGCM(derive(b"payload")), AESGCM(derive(b"meta"))
        self.header_hash = hashlib.sha256(header).digest()

    def open_payload(self, body):
        full = self.chunk_len + TAG
        cuts = [body[at : at + full] for at in range(0, len(body), full)]
        plaintext = []
        for index, chunk in enumerate(cuts):
            place = struct.pack(">IB", index, index == len(cuts) - 1)
            aad = self.header_hash + place + struct.pack(">I", len(chunk) - TAG)
            plaintext.append(self.payload.decrypt(bytes(7) + place, chunk, aad))
        return b"".join(plaintext)

    def open_metadata(self, body):
        return self.meta.decrypt(bytes(12), body, self.header_hash + b"meta")


def cbor(data, at=0):
    """Reads one unsigned number, text, array or map; metadata has nothing else."""
    kind, value = data[at] >> 5, data[at] & 31
    at += 1
    if value >= 24:
        width = 1 << (value - 24)
        value, at = int.from_bytes(data[at : at + width], "big"), at + width
    if kind == 0:
        return value, at
    if kind == 3:
        return data[at : at + value].decode(), at + value
    items = []
    for _ in range(value * (2 if kind == 5 else 1)):
        item, at = cbor(data, at)
        items.append(item)
    return (dict(zip(items[::2], items[1::2])) if kind == 5 else items), at


def fields(stream):
    while length := stream.read(4):
        yield stream.read(int.from_bytes(length, "big"))


def main():
    rest = fields(sys.stdin.buffer)
    for tenant_key, name, wrapped, sealed, metadata in zip(rest, rest, rest, rest, rest):
        header, body = sealed[: HEADER.size], sealed[HEADER.size :]
        assert metadata[: HEADER.size] == header
        opened = Object(tenant_key, wrapped, header)
        plaintext = opened.open_payload(body)
        known, _ = cbor(opened.open_metadata(metadata[HEADER.size :]))
        assert not any(plaintext[known[0] :]), "padding is zeros"
        plaintext = plaintext[: known[0]]
        answer = {"case": name.decode(), "sha256": hashlib.sha256(plaintext).hexdigest(), "metadata": known}
        print(json.dumps(answer, ensure_ascii=False))


if __name__ == "__main__":
    main()
