"""GET and DELETE /carts/ID, POST /carts/ID/items {"id": SOCK, "quantity": N}: a hash in Redis for each cart."""

import os

import redis

from service import Handler, NotFound, serve

CART_TTL_SECONDS = 600
carts = redis.Redis(host=os.environ.get("REDIS_HOST", "redis-cart"), socket_timeout=5, decode_responses=True)


class Carts(Handler):
    def answer(self, method, path, body):
        parts = path.strip("/").split("/")
        if parts == ["health"]:
            return 200, {"redis": carts.ping()}
        if parts[0] != "carts" or len(parts) not in (2, 3):
            raise NotFound(path)
        key = f"cart:{parts[1]}"
        if method == "POST" and parts[2:] == ["items"]:
            with carts.pipeline(transaction=False) as pipeline:
                pipeline.hincrby(key, body["id"], body.get("quantity", 1))
                pipeline.expire(key, CART_TTL_SECONDS)
                count, _ = pipeline.execute()
            return 201, {"id": body["id"], "quantity": count}
        if method == "GET" and len(parts) == 2:
            items = carts.hgetall(key)
            if not items:
                raise NotFound(f"cart {parts[1]} is empty")
            return 200, {"cart": parts[1], "items": [{"id": k, "quantity": int(v)} for k, v in sorted(items.items())]}
        if method == "DELETE" and len(parts) == 2:
            carts.delete(key)
            return 204, None
        return 405, {"error": f"{method} is not for {path}"}


serve(Carts)
