"""A QUIC client that shares no code with Trefoil: it takes session tickets if it is given any.

Usage: independent.py HOST PORT ALPN CERTIFICATE_AND_KEY_PEM. Prints one line of facts; needs aioquic.
"""

import asyncio
import base64
import re
import ssl
import sys

from aioquic.asyncio.client import connect
from aioquic.quic.configuration import QuicConfiguration
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

host, port, alpn, identity = sys.argv[1:]
tickets = []


def configuration():
    text = open(identity).read()
    key = base64.b64decode(re.search("BEGIN PRIVATE KEY-----(.*?)-----END", text, re.S)[1])
    # The seed in its wrapping; this library does not read keys that carry their public half.
    seed = key.partition(b"\x04\x22\x04\x20")[2][:32]
    made = QuicConfiguration(is_client=True, alpn_protocols=[alpn], verify_mode=ssl.CERT_NONE)
    made.certificate = x509.load_pem_x509_certificate(text[text.index("-----BEGIN CERT") :].encode())
    made.private_key = Ed25519PrivateKey.from_private_bytes(seed)
    return made


async def main():
    async with connect(
        host, int(port), configuration=configuration(), session_ticket_handler=tickets.append
    ) as client:
        await client.ping()
        # Tickets would follow the handshake at once.
        await asyncio.sleep(0.5)
        tls = client._quic.tls
        print(f"tickets={len(tickets)} early={tls.early_data_accepted} resumed={tls.session_resumed}")


asyncio.run(main())
