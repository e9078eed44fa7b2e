"""A model server in thirty lines, with KServe's V1 protocol: python3 model.py PORT"""

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

# Sepal length and width, petal length and width in cm: the middle of each kind of iris.
CENTRES = {
    "setosa": (5.0, 3.4, 1.5, 0.2),
    "versicolor": (5.9, 2.8, 4.3, 1.3),
    "virginica": (6.6, 3.0, 5.6, 2.0),
}


def predict(flower):
    return min(CENTRES, key=lambda kind: sum((a - b) ** 2 for a, b in zip(CENTRES[kind], flower)))


class Server(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, body):
        text = json.dumps(body).encode() + b"\n"
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def do_GET(self):
        self.answer({"name": "iris", "ready": True})

    def do_POST(self):
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.answer({"predictions": [predict(flower) for flower in request["instances"]]})


ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Server).serve_forever()
