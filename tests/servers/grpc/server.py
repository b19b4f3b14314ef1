"""A gRPC server. The messages of `Test` are bytes, and what it does with them is told by the method's name; those of `Catalogue`
are of `shop.proto`."""
from concurrent import futures
import time
import grpc
import shop


def echo(request, context):
    context.set_trailing_metadata((("cost", "1"),))
    return request


def fail(request, context):
    context.abort(grpc.StatusCode(next(code.value for code in grpc.StatusCode if code.value[0] == request[0])), f"as asked: {request[0]}")


def slow(request, context):
    time.sleep(2)
    return request


def count(request, context):
    for number in range(request[0]):
        yield bytes([number]) * 100


def broken(request, context):
    yield b"first"
    context.abort(grpc.StatusCode.DATA_LOSS, "then nothing")


def total(requests, context):
    return bytes([sum(1 for _ in requests)])


def talk(requests, context):
    yield from requests


methods = {
    "Echo": grpc.unary_unary_rpc_method_handler(echo),
    "Fail": grpc.unary_unary_rpc_method_handler(fail),
    "Slow": grpc.unary_unary_rpc_method_handler(slow),
    "Count": grpc.unary_stream_rpc_method_handler(count),
    "Broken": grpc.unary_stream_rpc_method_handler(broken),
    "Total": grpc.stream_unary_rpc_method_handler(total),
    "Talk": grpc.stream_stream_rpc_method_handler(talk),
}


def find(query, context):
    return shop.item(query.name, 250)


def watch(query, context):
    yield shop.item(query.name, 2**53 + 1)
    yield shop.Item()


typed = {"request_deserializer": shop.Query.FromString, "response_serializer": shop.Item.SerializeToString}
catalogue = {
    "Find": grpc.unary_unary_rpc_method_handler(find, **typed),
    "Watch": grpc.unary_stream_rpc_method_handler(watch, **typed),
}
server = grpc.server(futures.ThreadPoolExecutor(10))
server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("shop.v1.Test", methods),))
server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("shop.v1.Catalogue", catalogue),))
server.add_insecure_port("0.0.0.0:50051")
server.start()
server.wait_for_termination()
