"""An OpenAI-compatible server on this machine, with scripted answers."""

import json
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def good(text="hello", reason="stop"):
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": reason}
    return 200, {"id": "1", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}


class Server(ThreadingHTTPServer):
    """A server with scripted answers: (status, body[, headers]), or a function of the request that returns one."""

    daemon_threads = True

    def __init__(self, *script):
        super().__init__(("127.0.0.1", 0), Handler)
        self.script, self.requests, self.headers = list(script), [], []
        self.url = f"http://127.0.0.1:{self.server_port}/v1"
        self.lock, self.active, self.most_active = threading.Lock(), 0, 0
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    def next(self):
        with self.lock:
            return self.script.pop(0) if len(self.script) > 1 else self.script[0]


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_POST(self):
        server = self.server
        with server.lock:
            server.active += 1
            server.most_active = max(server.most_active, server.active)
        server.headers.append(self.headers)
        request = json.loads(self.rfile.read(int(self.headers["content-length"])))
        server.requests.append(request)
        answer = server.next()
        status, body, *headers = answer(request) if callable(answer) else answer
        body = body if isinstance(body, bytes) else json.dumps(body).encode()
        with server.lock:
            server.active -= 1
        self.send_response(status)
        for name, value in {"content-type": "application/json", **(headers[0] if headers else {})}.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(body)))
        with suppress(ConnectionError):  # the client is gone
            self.end_headers()
            self.wfile.write(body)
