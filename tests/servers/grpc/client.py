"""gRPC: unary and streamed calls, every status, cancelled, compression, many at once (grpcio)."""
import time
import grpc
import shop
from asked import PORT, SERVER, equal, fails, main, row

AUTHORITY = f"{SERVER}:{PORT}"


def tell(method, status="0", times=1, service="Test"):
    row("grpc", f"/shop.v1.{service}/{method}", AUTHORITY, status, times=times)


def is_up():
    with grpc.insecure_channel(AUTHORITY) as channel:
        grpc.channel_ready_future(channel).result(timeout=1)


def calls(channel):
    path = lambda method: f"/shop.v1.Test/{method}"
    echo = channel.unary_unary(path("Echo"))
    for number in range(100):
        equal(echo(b"%d" % number, metadata=(("trace", f"{number}"), ("data-bin", b"\0\xff"))), b"%d" % number)
    large = bytes(range(256)) * 1200
    equal(echo(large), large)
    equal(echo(b""), b"")
    equal(echo(b"z" * 100_000, compression=grpc.Compression.Gzip), b"z" * 100_000)
    tell("Echo", times=103)
    pending = [echo.future(b"%d" % number) for number in range(200)]
    equal([answer.result() for answer in pending], [b"%d" % number for number in range(200)])
    tell("Echo", times=200)

    fail = channel.unary_unary(path("Fail"))
    for code in grpc.StatusCode:
        if code is not grpc.StatusCode.OK:
            equal(fails(grpc.RpcError, fail, bytes([code.value[0]])).code(), code)
            tell("Fail", str(code.value[0]))
    equal(fails(grpc.RpcError, channel.unary_unary(path("Missing")), b"").code(), grpc.StatusCode.UNIMPLEMENTED)
    tell("Missing", "12")

    equal(len(list(channel.unary_stream(path("Count"))(bytes([100])))), 100)
    tell("Count")
    equal(len(list(channel.unary_stream(path("Count"))(bytes([0])))), 0)
    tell("Count")
    equal(fails(grpc.RpcError, list, channel.unary_stream(path("Broken"))(b"")).code(), grpc.StatusCode.DATA_LOSS)
    tell("Broken", "15")
    equal(channel.stream_unary(path("Total"))(iter([b"x"] * 30)), bytes([30]))
    tell("Total")
    said = [b"%d" % number * 50 for number in range(40)]
    equal(list(channel.stream_stream(path("Talk"))(iter(said))), said)
    tell("Talk")

    # The client gives up, so no trailers follow: it resets the stream.
    slow = channel.unary_unary(path("Slow")).future(b"")
    time.sleep(0.5)
    slow.cancel()
    tell("Slow", "")
    time.sleep(2)


def catalogue(channel):
    typed = {"request_serializer": shop.Query.SerializeToString, "response_deserializer": shop.Item.FromString}
    equal(channel.unary_unary("/shop.v1.Catalogue/Find", **typed)(shop.Query(name="tea")), shop.item("tea", 250))
    tell("Find", service="Catalogue")
    items = [shop.item("cup", 2**53 + 1), shop.Item()]
    equal(list(channel.unary_stream("/shop.v1.Catalogue/Watch", **typed)(shop.Query(name="cup"))), items)
    tell("Watch", service="Catalogue")


def ask():
    with grpc.insecure_channel(AUTHORITY) as channel:
        calls(channel)
        catalogue(channel)


main(ask, is_up)
