"""Shoppers, each in a thread: visit after visit, every visit one keep-alive connection and a fresh look-up of the name."""

import http.client
import itertools
import json
import os
import socket
import sys
import threading
import time
from random import Random, uniform

HOST = os.environ.get("FRONT_END", "front-end")
SHOPPERS = int(os.environ.get("SHOPPERS", "3"))
PAUSE = float(os.environ.get("PAUSE", "0.3"))
SOCKS = ["holy", "colourful", "super-sport", "crossed", "figueroa", "classic", "cat", "odd"]
USER_AGENTS = ["Mozilla/5.0 (X11; Linux x86_64) sock-shop-load", "sock-shop-app/2.1"]


def visit(shopper, number):
    """The requests of one visit: method, path, body."""
    random = Random(f"{shopper}/{number}")  # The same visits every time.
    cart, sock = f"shopper-{shopper}", random.choice(SOCKS[:-1])
    yield "GET", "/", None
    yield "GET", "/catalogue", None
    yield "GET", f"/catalogue?tag={random.choice(['blue', 'brown', 'formal'])}", None
    yield "GET", f"/catalogue/{sock}", None
    yield "POST", f"/carts/{cart}/items", {"id": sock, "quantity": random.randint(1, 3)}
    yield "GET", f"/catalogue/{sock}/per-pair", None
    yield "GET", f"/carts/{cart}", None
    if number % 2 == 0:
        yield "GET", "/catalogue/left-sock", None  # 404
    if number % 4 == 0:
        yield "GET", "/catalogue/odd/per-pair", None  # 500: divides by no pairs
    if number % 3 == 0:
        yield "DELETE", f"/carts/{cart}", None


def shop(shopper):
    for number in itertools.count(1):
        try:
            if number % 5 == 0:
                missing_name()
            connection = http.client.HTTPConnection(HOST, timeout=5)
            for method, path, document in visit(shopper, number):
                body = json.dumps(document) if document else None
                headers = {"User-Agent": USER_AGENTS[shopper % len(USER_AGENTS)], "Accept-Encoding": "gzip"}
                if body:
                    headers["Content-Type"] = "application/json"
                connection.request(method, path, body, headers)
                connection.getresponse().read()
                time.sleep(PAUSE * uniform(0.8, 1.2))
            connection.close()
        except (OSError, http.client.HTTPException) as error:
            print(f"shopper {shopper}, visit {number}: {error!r}", file=sys.stderr)
            time.sleep(1)


def missing_name():
    """Somebody's leftover setting: the name of a service that is gone."""
    try:
        socket.getaddrinfo("payment", 80, type=socket.SOCK_STREAM)
    except OSError:
        pass


for shopper in range(SHOPPERS - 1):
    threading.Thread(target=shop, args=(shopper,), daemon=True).start()
shop(SHOPPERS - 1)
