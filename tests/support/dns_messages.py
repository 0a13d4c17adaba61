# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""DNS without a library (RFC 1035, section 4): ``ask SERVER UDP|TCP NAME/TYPE...`` prints a JSON list of what
each was answered, ``serve ADDRESS FILE`` answers every A question with 198.51.100.7 and writes the names that
it was asked to FILE.

An answer is ``[CODE, [DATA, ...]]`` with the names of RCODES, or None where there was none in time.
"""

from __future__ import annotations

import json
import socket
import struct
import sys

TYPES = {"A": 1, "PTR": 12, "MX": 15, "AAAA": 28}
RCODES = {0: "NOERROR", 2: "SERVFAIL", 3: "NXDOMAIN", 5: "REFUSED"}
PATIENCE = 2
ANSWER = "198.51.100.7"


def question(name, kind):
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    return struct.pack(">6H", 7, 0x0100, 1, 0, 0, 0) + labels + b"\0" + struct.pack(">2H", TYPES[kind], 1)


def read_name(message, place):
    """The name at a place, and the place behind it; a pointer to another place ends it (section 4.1.4)."""
    labels, behind = [], None
    while message[place]:
        if message[place] >= 0xC0:
            behind = behind or place + 2
            place = struct.unpack_from(">H", message, place)[0] & 0x3FFF
            continue
        length = message[place]
        labels.append(message[place + 1 : place + 1 + length].decode())
        place += 1 + length
    return ".".join(labels), behind or place + 1


def read_answers(message):
    _id, flags, _questions, count = struct.unpack_from(">4H", message)
    _name, place = read_name(message, 12)
    place += 4
    answers = []
    for _number in range(count):
        _name, place = read_name(message, place)
        kind, _class, _ttl, length = struct.unpack_from(">2HIH", message, place)
        place += 10
        data = message[place : place + length]
        if kind == TYPES["PTR"]:
            answers.append(read_name(message, place)[0])
        else:
            answers.append(socket.inet_ntop(socket.AF_INET6 if length == 16 else socket.AF_INET, data))
        place += length
    return [RCODES[flags & 15], sorted(answers)]


def ask(server, transport, name, kind):
    family = socket.AF_INET6 if ":" in server else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM if transport == "TCP" else socket.SOCK_DGRAM) as asking:
        asking.settimeout(PATIENCE)
        try:
            asking.connect((server, 53))
            text = question(name, kind)
            if transport == "UDP":
                asking.send(text)
                return read_answers(asking.recv(4096))
            asking.sendall(struct.pack(">H", len(text)) + text)
            with asking.makefile("rb") as stream:
                (length,) = struct.unpack(">H", stream.read(2) or b"\0\0")
                return read_answers(stream.read(length)) if length else None
        except OSError:
            return None


def serve(address, path):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server, open(path, "w") as asked:
        server.bind((address, 53))
        print("ready", flush=True)
        while True:
            message, peer = server.recvfrom(4096)
            name, end = read_name(message, 12)
            print(name, file=asked, flush=True)
            head = message[:2] + struct.pack(">5H", 0x8180, 1, 1, 0, 0)
            record = struct.pack(">3HIH", 0xC00C, TYPES["A"], 1, 60, 4) + socket.inet_aton(ANSWER)
            server.sendto(head + message[12 : end + 4] + record, peer)


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(*sys.argv[2:])
    else:
        print(json.dumps([ask(*sys.argv[2:4], *each.rsplit("/", 1)) for each in sys.argv[4:]]))
