"""Serve this folder on http://127.0.0.1:8000, with the two headers that LiteRT.js needs to use threads."""

import sys
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar


class Handler(SimpleHTTPRequestHandler):
    # Said here since some Windows machines have another idea of them.
    extensions_map: ClassVar = {
        **SimpleHTTPRequestHandler.extensions_map,
        ".js": "text/javascript",
        ".wasm": "application/wasm",
    }

    def send_head(self):
        try:
            return super().send_head()
        except ValueError:  # a NUL character, which no path can have
            self.send_error(404, "File not found")
            return None

    def end_headers(self):
        self.send_header("Cross-Origin-Opener-Policy", "same-origin")
        self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        self.send_header("Cache-Control", "no-cache")  # else a model that was exported anew is not seen
        super().end_headers()


if __name__ == "__main__":
    word = sys.argv[1] if len(sys.argv) > 1 else "8000"
    if not (word.isascii() and word.isdecimal() and int(word) < 1 << 16):
        sys.exit(f"expected the number of a port, such as 8001. Received: {word}")
    port = int(word)
    try:
        server = ThreadingHTTPServer(("127.0.0.1", port), partial(Handler, directory=Path(__file__).parent))
    except OSError as error:
        sys.exit(f"port {port}: {error.strerror}. Give another one: python serve.py 8001")
    print(f"http://127.0.0.1:{server.server_port}/", flush=True)
    server.serve_forever()
