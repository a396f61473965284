"""A QUIC client that shares no code with Trefoil. It takes session tickets if it is given any, and it
tries to resume all the same: with a ticket that it made up, and data that does not wait for the answer.

Usage: independent.py HOST PORT ALPN CERTIFICATE_AND_KEY_PEM. Prints two lines of facts; needs aioquic.
"""

import asyncio
import base64
import datetime
import re
import ssl
import sys

from aioquic.asyncio.client import connect
from aioquic.quic.configuration import QuicConfiguration
from aioquic.tls import CipherSuite, Epoch, SessionTicket
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


def forged_ticket():
    now = datetime.datetime.now(datetime.timezone.utc)
    return SessionTicket(
        age_add=7,
        cipher_suite=CipherSuite.AES_256_GCM_SHA384,
        not_valid_after=now + datetime.timedelta(hours=1),
        not_valid_before=now,
        resumption_secret=bytes(48),
        server_name=host,
        ticket=bytes(64),
        max_early_data_size=0xFFFFFFFF,
    )


async def ask(name, made, early):
    async with connect(
        host, int(port), configuration=made, session_ticket_handler=tickets.append, wait_connected=not early
    ) as client:
        if early:
            # Before the server said anything: if this can go at all, it goes as early data.
            client._quic.send_stream_data(client._quic.get_next_available_stream_id(), b"early", True)
            client.transmit()
            assert client._quic._cryptos[Epoch.ZERO_RTT].send.is_valid(), "no early data was sent"
            await client.wait_connected()
        await client.ping()
        # Tickets would follow the handshake at once.
        await asyncio.sleep(0.5)
        tls = client._quic.tls
        print(f"{name}: tickets={len(tickets)} early={tls.early_data_accepted} resumed={tls.session_resumed}")


async def main():
    await ask("first", configuration(), early=False)
    made = configuration()
    made.session_ticket = forged_ticket()
    await ask("forged", made, early=True)


asyncio.run(main())
