"""A GraphQL server: GET and POST, variables, batches, persisted queries, errors."""
import hashlib, json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit
from graphql import GraphQLArgument, GraphQLField, GraphQLInt, GraphQLList, GraphQLObjectType, GraphQLSchema, GraphQLString, graphql

socks = ["left", "right"]
query = GraphQLObjectType("Query", {
    "socks": GraphQLField(GraphQLList(GraphQLString), resolver=lambda *_, **__: socks),
    "sock": GraphQLField(GraphQLString, {"id": GraphQLArgument(GraphQLInt)}, resolver=lambda *_, id=0: socks[id]),
})
mutation = GraphQLObjectType("Mutation", {
    "addSock": GraphQLField(GraphQLString, {"name": GraphQLArgument(GraphQLString)}, resolver=lambda *_, name="": socks.append(name) or name),
})
schema = GraphQLSchema(query, mutation)
persisted = {}


def answer(asked):
    text = asked.get("query")
    extension = asked.get("extensions", {}).get("persistedQuery")
    if extension:
        if text:
            persisted[hashlib.sha256(text.encode()).hexdigest()] = text
        text = persisted.get(extension["sha256Hash"])
        if not text:
            return 200, {"errors": [{"message": "PersistedQueryNotFound"}]}
    result = graphql(schema, text, variable_values=asked.get("variables"), operation_name=asked.get("operationName"))
    errors = {"errors": [{"message": str(error)} for error in result.errors]} if result.errors else {}
    return 400 if result.invalid else 200, {"data": result.data, **errors}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def send(self, status, content):
        content = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def do_GET(self):
        asked = {name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()}
        for name in ("variables", "extensions"):
            if name in asked:
                asked[name] = json.loads(asked[name])
        self.send(*(answer(asked) if asked else (404, {})))

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if isinstance(asked, list):
            self.send(200, [answer(one)[1] for one in asked])
        elif self.path == "/graphql":
            self.send(*answer(asked))
        else:
            self.send(404, {})

    def log_message(self, *arguments):
        pass


ThreadingHTTPServer(("", 8080), Handler).serve_forever()
