#!/usr/bin/python3
"""A small client of pds: the standard library, and dissononce for Noise (Debian: python3-dissononce).

It is written from docs/protocol.md alone and shows that the page is enough. usage: pds_client.py [--key-file FILE] [--watch] PROFILE NAME...
writes the value of each secret to standard output, one after the other, byte for byte. With the key of an enrolled
daemon it is known by that daemon's name. With --watch it writes a line for each value, and another one whenever the
value has changed.
"""

import argparse
import os
import socket
import struct
import sys
import time

from dissononce.cipher.aesgcm import AESGCMCipher
from dissononce.dh.x25519.private import PrivateKey
from dissononce.dh.x25519.public import PublicKey
from dissononce.dh.x25519.x25519 import X25519DH
from dissononce.hash.blake2s import Blake2sHash
from dissononce.processing.handshakepatterns.interactive.IK import IKHandshakePattern
from dissononce.processing.impl.cipherstate import CipherState
from dissononce.processing.impl.handshakestate import HandshakeState
from dissononce.processing.impl.symmetricstate import SymmetricState

MESSAGE_MAX = 65535
KEY_MESSAGES, KEY_BYTES = 2**20, 2**30
TAG = 16
REQUEST, RESPONSE, EVENT, REFUSAL = range(4)
DEADLINE_MS = 10_000
KEY_PATIENCE, KEY_PAUSE = 2, 0.02
REFUSALS = ["service unknown", "service gone", "busy", "timeout", "forbidden"]


def varint(number):
    """A number as postcard has it: seven bits a byte, the lowest first."""
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def text(value):
    """A string as postcard has it: its length in bytes, then the bytes."""
    encoded = value.encode()
    return varint(len(encoded)) + encoded


class Reader:
    """Reads postcard."""

    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, count):
        if self.at + count > len(self.data):
            raise ValueError("a message is cut short")
        self.at += count
        return self.data[self.at - count : self.at]

    def byte(self):
        return self.take(1)[0]

    def varint(self):
        number = shift = 0
        while True:
            byte = self.byte()
            number |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return number

    def bytes(self):
        return self.take(self.varint())

    def end(self):
        if self.at != len(self.data):
            raise ValueError("bytes are left over")


def start(static, remote, prologue):
    """Message 1 of Noise IK towards the owner of `remote`."""
    state = HandshakeState(SymmetricState(CipherState(AESGCMCipher()), Blake2sHash()), X25519DH())
    state.initialize(IKHandshakePattern(), True, prologue, s=static, rs=PublicKey(remote))
    message = bytearray()
    state.write_message(b"", message)
    return state, bytes(message)


def finish(state, message):
    """The ciphers of both directions, ours first, from message 2."""
    return state.read_message(message, bytearray())


def change_key(cipher):
    """Noise's REKEY. The package's own also starts to count nonces anew, which Noise does not."""
    cipher._key = cipher.cipher.encrypt(cipher._key, 2**64 - 1, b"", bytes(32))[:32]


class Client:
    """A connection to the bus, under a key made for it or one that is enrolled."""

    def __init__(self, runtime, private=None):
        self.runtime = runtime
        self.static = X25519DH().generate_keypair(PrivateKey(private) if private else None)
        self.changed = False
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(DEADLINE_MS / 1000 + 1)
        self.socket.connect(os.path.join(runtime, "bus.sock"))
        state, message = start(self.static, self.key("bus.pub"), b"pds bus v1")
        self.socket.sendall(message)
        self.send_cipher, self.receive_cipher = finish(state, self.exactly(48))
        self.received = [0, 0]
        self.last_id = 0
        self.sessions = {}

    def key(self, name):
        with open(os.path.join(self.runtime, name), encoding="ascii") as file:
            return bytes.fromhex(file.read().strip())

    def agreed_key(self, service):
        """The key of a service, when the bus names the one that the service has published."""
        end = time.monotonic() + KEY_PATIENCE
        while True:
            _, answer = self.exchange("daemon-bus", 4, varint(0), varint(3) + text(service))
            reader = Reader(answer)
            if reader.varint() != 0:
                raise ConnectionError("nobody serves under the name " + service)
            key = reader.take(32)
            reader.end()
            if key == self.key(f"keys/{service}.pub"):
                return key
            if time.monotonic() > end:
                raise ConnectionError(f"the key of {service} is not the one that the bus knows")
            time.sleep(KEY_PAUSE)

    def exactly(self, count):
        data = b""
        while len(data) < count:
            more = self.socket.recv(count - len(data))
            if not more:
                raise ConnectionError("the bus has ended the connection")
            data += more
        return data

    def send_frame(self, header, body):
        frame = struct.pack(">IH", 2 + len(header) + len(body), len(header)) + header + body
        for at in range(0, len(frame), MESSAGE_MAX - TAG):
            record = self.send_cipher.encrypt_with_ad(b"", frame[at : at + MESSAGE_MAX - TAG])
            self.socket.sendall(struct.pack(">H", len(record)) + record)

    def receive_frame(self):
        frame = b""
        while len(frame) < 4 or len(frame) < 4 + struct.unpack(">I", frame[:4])[0]:
            (length,) = struct.unpack(">H", self.exactly(2))
            payload = self.receive_cipher.decrypt_with_ad(b"", self.exactly(length))
            self.count_received(len(payload), between_frames=not frame)
            frame += payload
        (header_length,) = struct.unpack(">H", frame[4:6])
        return self.header(Reader(frame[6 : 6 + header_length])), frame[6 + header_length :]

    def count_received(self, length, between_frames):
        """Changes the receiving key when the bus has changed it: it says so by an empty record, or both count."""
        messages, total = self.received
        self.received = [messages + 1, total + length]
        if length == 0 and (not between_frames or messages == 0):
            raise ValueError("an empty record where no key can change")
        if length == 0 or messages + 1 >= KEY_MESSAGES or total + length >= KEY_BYTES:
            change_key(self.receive_cipher)
            self.received = [0, 0]

    @staticmethod
    def header(reader):
        """Kind, correlation and seal of a header; the rest is read over."""
        kind, _id, correlation = reader.varint(), reader.varint(), reader.varint()
        destination = reader.varint()
        if destination == 0:
            reader.bytes()
        elif destination == 1:
            reader.varint()
        reader.varint()  # method
        if reader.byte():  # sender
            if reader.byte():
                reader.bytes()
            for _ in range(3):
                reader.varint()  # connection, uid, gid
            if reader.byte():
                reader.varint()
            for _ in range(2):
                if reader.byte():
                    reader.bytes()
        reader.varint()  # deadline
        reader.byte()  # descriptors
        seal = reader.varint()
        session = reader.varint() if seal == 2 else None
        reader.end()
        return kind, correlation, seal, session

    def exchange(self, service, method, seal, body):
        """Sends one request and waits for its response; answers the seal's session and the body."""
        self.last_id += 1
        header = (
            varint(REQUEST)
            + varint(self.last_id)
            + varint(0)
            + varint(0)
            + text(service)
            + varint(method)
            + b"\0"
            + varint(DEADLINE_MS)
            + b"\0"
            + seal
        )
        self.send_frame(header, body)
        while True:
            (kind, correlation, _seal, session), answer = self.receive_frame()
            if kind == EVENT:
                self.changed = True
            if correlation != self.last_id:
                continue
            if kind == REFUSAL:
                raise ConnectionError("the bus refused: " + REFUSALS[Reader(answer).varint()])
            if kind == RESPONSE:
                return session, answer

    def session(self, service):
        """The sealed session with a service, opened when first needed."""
        if service not in self.sessions:
            prologue = b"pds sealed v1 " + service.encode()
            state, message = start(self.static, self.agreed_key(service), prologue)
            _, answer = self.exchange(service, 0, varint(1), message)
            ours, theirs = finish(state, answer[8:])
            self.sessions[service] = [struct.unpack(">Q", answer[:8])[0], ours, theirs, 0]
        return self.sessions[service]

    def call(self, service, method, request):
        """Makes a sealed call; answers the plaintext of the response."""
        session = self.session(service)
        number, ours, theirs, nonce = session
        inner = struct.pack(">Q", len(request)) + request
        body = struct.pack(">Q", nonce)
        ours.set_nonce(nonce)
        for at in range(0, len(inner), MESSAGE_MAX - TAG):
            body += ours.encrypt_with_ad(b"", inner[at : at + MESSAGE_MAX - TAG])
            session[3] += 1
        answered, answer = self.exchange(service, method, varint(2) + varint(number), body)
        if answered != number:
            raise ConnectionError("the service does not know the session any more")
        theirs.set_nonce(struct.unpack(">Q", answer[:8])[0])
        inner = b""
        for at in range(8, len(answer), MESSAGE_MAX):
            inner += theirs.decrypt_with_ad(b"", answer[at : at + MESSAGE_MAX])
        length, request_nonce = struct.unpack(">QQ", inner[:16])
        if length != len(inner) - 16 or request_nonce != nonce:
            raise ValueError("the answer is to another request")
        return inner[16:]

    def subscribe(self):
        """Has the bus tell of changes: method 2, topic 2."""
        _, answer = self.exchange("daemon-bus", 2, varint(0), varint(1) + varint(2))
        if Reader(answer).varint() != 0:
            raise PermissionError("the bus denied the subscription")

    def wait_for_change(self):
        """Waits until something may have changed."""
        self.socket.settimeout(None)
        while not self.changed:
            (kind, _correlation, _seal, _session), _body = self.receive_frame()
            self.changed = kind == EVENT
        self.changed = False
        self.socket.settimeout(DEADLINE_MS / 1000 + 1)

    def get(self, profile, name):
        """The value of a secret."""
        request = varint(5) + text(profile) + text(name) + b"\0"
        reader = Reader(self.call("daemon-secrets", 6, request))
        if reader.varint() != 0:
            raise PermissionError(f"daemon-secrets denied it: denial {reader.varint()}")
        value = reader.bytes()
        reader.end()
        return value


def watch(client, profile, names):
    """Writes a line for each value, and again when it has changed, until the connection ends."""
    client.subscribe()
    last = {}
    while True:
        for name in names:
            value = client.get(profile, name)
            if last.get(name) != value:
                last[name] = value
                sys.stdout.buffer.write(value + b"\n")
        sys.stdout.buffer.flush()
        client.wait_for_change()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--key-file")
    parser.add_argument("--watch", action="store_true")
    parser.add_argument("profile")
    parser.add_argument("names", nargs="+")
    options = parser.parse_args()
    runtime = os.environ.get("PDS_RUNTIME_DIR") or os.path.join(os.environ["XDG_RUNTIME_DIR"], "pds")
    private = None
    if options.key_file:
        with open(options.key_file, encoding="ascii") as file:
            private = bytes.fromhex(file.read().strip())
    client = Client(runtime, private)
    if options.watch:
        watch(client, options.profile, options.names)
    for name in options.names:
        sys.stdout.buffer.write(client.get(options.profile, name))
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    try:
        main()
    except (OSError, ValueError) as error:
        sys.exit(f"pds_client.py: {error}")
