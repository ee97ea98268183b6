"""A registry for cargo that lets nobody in without its token, and knows one crate's owners.

usage: cargo_registry.py TOKEN
Writes its port and a line feed to standard output, and serves until standard input ends.
"""

import http.server
import json
import sys
import threading

token = sys.argv[1]


class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_GET(self):
        place = f"http://127.0.0.1:{self.server.server_port}"
        known = self.headers.get("Authorization") == token
        status, content = 404, {}
        if not known:
            status = 401
        elif self.path == "/config.json":
            status, content = 200, {"dl": place + "/dl", "api": place, "auth-required": True}
        elif self.path == "/api/v1/crates/thing/owners":
            status, content = 200, {"users": [{"id": 1, "login": "the-owner", "name": None}]}
        body = json.dumps(content).encode()
        self.send_response(status)
        if not known:
            self.send_header("WWW-Authenticate", "Cargo login_url=" + json.dumps(place + "/me"))
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
print(server.server_port, flush=True)
sys.stdin.read()
