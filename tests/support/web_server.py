# Copyright: bare.containers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A web server on 127.0.0.1 that writes down what it is asked for: FOLDER LOG [--certificate FILE] [--user
U:P].

Below /broken/N/ it breaks off after N bytes each time, and goes on from there when it is asked to; below
/cut/N/ it does not. Below /changing/N/ the file is another one from then on, and below /slow/N/ it sends N
bytes a second.
"""

from __future__ import annotations

import argparse
import base64
import http.server
import json
import os
import ssl
import time


class Handler(http.server.BaseHTTPRequestHandler):
    """Its folder, log and credentials are those of the server."""

    server: Server

    def log_message(self, *_arguments: object) -> None:
        pass

    def do_GET(self) -> None:
        with open(self.server.log, "a", encoding="utf-8") as log:
            log.write(json.dumps([self.path, dict(self.headers.items())]) + "\n")
        user = self.server.user
        if user and self.headers.get("Authorization") != "Basic " + base64.b64encode(user.encode()).decode():
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="here"')
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        way, limit, name = self._parse()
        path = os.path.join(self.server.folder, name)
        if not os.path.isfile(path):
            self.send_error(404)
            return
        with open(path, "rb") as file:
            self._send(file.read(), way, limit)

    def _parse(self) -> tuple[str, int, str]:
        parts = self.path.lstrip("/").split("/")
        if len(parts) == 3:
            return parts[0], int(parts[1]), parts[2]
        return "", 0, parts[-1]

    def _send(self, content: bytes, way: str, limit: int) -> None:
        start = 0
        tag = '"changed"' if way == "changing" and "Range" in self.headers else '"first"'
        if "Range" in self.headers and way != "cut" and self.headers.get("If-Range") == tag:
            start = int(self.headers["Range"].partition("=")[2].rstrip("-"))
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        else:
            self.send_response(200)
        rest = content[start:]
        self.send_header("ETag", tag)
        self.send_header("Content-Length", str(len(rest)))
        self.end_headers()
        if way == "slow":
            for begin in range(0, len(rest), limit):
                self.wfile.write(rest[begin : begin + limit])
                time.sleep(1)
        else:
            self.wfile.write(rest[:limit] if way else rest)
        self.close_connection = True


class Server(http.server.ThreadingHTTPServer):
    """With what is to be served, and to whom."""

    folder: str
    log: str
    user: str | None


def main() -> None:
    """Prints its port and serves for ever."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("log")
    parser.add_argument("--certificate")
    parser.add_argument("--user")
    given = parser.parse_args()
    server = Server(("127.0.0.1", 0), Handler)
    server.folder, server.log, server.user = given.folder, given.log, given.user
    if given.certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(given.certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    print(server.server_port, flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
