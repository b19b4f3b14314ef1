"""What the shop's services share: a JSON server with keep-alive connections."""

import json
import sys
import traceback
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class NotFound(Exception):
    """Answered with 404 and its text."""


class Handler(BaseHTTPRequestHandler):
    """Calls `answer(method, path, body)` of its subclass, which returns a status and a document."""

    protocol_version = "HTTP/1.1"
    server_version = "sock-shop"
    sys_version = ""
    disable_nagle_algorithm = True
    wbufsize = -1  # Headers and body in one segment, as most servers send them.

    def respond(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        try:
            status, document = self.answer(self.command, self.path, json.loads(body) if body else None)
        except NotFound as error:
            status, document = 404, {"error": str(error)}
        except Exception as error:
            traceback.print_exc(file=sys.stderr)
            status, document = 500, {"error": str(error).strip()}
        content = b"" if document is None else json.dumps(document).encode() + b"\n"
        self.send_response(status)
        if content:
            self.send_header("Content-Type", "application/json")
        if status != 204:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
        self.wfile.flush()

    do_GET = do_POST = do_PUT = do_DELETE = respond

    def log_message(self, *_):
        """Nothing: the traffic is what this shop is for."""


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


def serve(handler):
    Server(("", 8080), handler).serve_forever()
