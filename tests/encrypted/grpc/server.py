"""A gRPC service over TLS, whose messages are bytes."""
from concurrent import futures
import grpc


def fail(request, context):
    context.abort(grpc.StatusCode.NOT_FOUND, "as asked")


def count(request, context):
    for number in range(request[0]):
        yield bytes([number]) * 100


methods = {
    "Echo": grpc.unary_unary_rpc_method_handler(lambda request, context: request),
    "Fail": grpc.unary_unary_rpc_method_handler(fail),
    "Count": grpc.unary_stream_rpc_method_handler(count),
}
server = grpc.server(futures.ThreadPoolExecutor(10))
server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("shop.v1.Test", methods),))
with open("/data/tls.key", "rb") as key, open("/data/tls.crt", "rb") as certificate:
    server.add_secure_port("0.0.0.0:50051", grpc.ssl_server_credentials([(key.read(), certificate.read())]))
server.start()
server.wait_for_termination()
