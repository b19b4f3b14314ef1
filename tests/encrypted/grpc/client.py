"""gRPC over TLS: unary and streamed calls, errors, many at once (grpcio)."""
import ssl
import grpc
from asked import PORT, SERVER, equal, fails, main, row

NAME = ("grpc.ssl_target_name_override", "localhost")


def channel():
    # Its certificate is its own, and it takes it from nobody else.
    certificate = ssl.get_server_certificate((SERVER, PORT)).encode()
    return grpc.secure_channel(f"{SERVER}:{PORT}", grpc.ssl_channel_credentials(certificate), [NAME])


def is_up():
    with channel() as there:
        grpc.channel_ready_future(there).result(timeout=1)


def tell(method, status="0", times=1):
    row("grpc", f"/shop.v1.Test/{method}", "localhost", status, times=times)


def calls(channel):
    echo = channel.unary_unary("/shop.v1.Test/Echo")
    for number in range(100):
        equal(echo(b"%d" % number, metadata=(("trace", f"{number}"),)), b"%d" % number)
    large = bytes(range(256)) * 1200
    equal(echo(large), large)
    pending = [echo.future(b"%d" % number) for number in range(200)]
    equal([answer.result() for answer in pending], [b"%d" % number for number in range(200)])
    tell("Echo", times=301)
    equal(fails(grpc.RpcError, channel.unary_unary("/shop.v1.Test/Fail"), b"").code(), grpc.StatusCode.NOT_FOUND)
    tell("Fail", "5")
    equal(len(list(channel.unary_stream("/shop.v1.Test/Count")(bytes([100])))), 100)
    tell("Count")


def ask():
    for _ in range(3):
        with channel() as there:
            calls(there)


main(ask, is_up)
