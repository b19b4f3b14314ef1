"""GraphQL over HTTP: named and unnamed operations, variables, batches, persisted queries, errors."""
import hashlib, http.client, json
from urllib.parse import urlencode
from asked import PORT, SERVER, equal, main, row


def tell(operation, name="", status=200):
    row("graphql", operation, name, str(status))


def ask():
    connection = http.client.HTTPConnection(SERVER, PORT, timeout=20)

    def post(asked, status=200, path="/graphql"):
        connection.request("POST", path, json.dumps(asked), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        content = json.loads(answer.read())
        equal(answer.status, status)
        return content

    def get(status=200, **asked):
        connection.request("GET", "/graphql?" + urlencode(asked))
        answer = connection.getresponse()
        content = json.loads(answer.read())
        equal(answer.status, status)
        return content

    equal(post({"query": "{ socks }"}), {"data": {"socks": ["left", "right"]}})
    tell("query")
    for number in range(100):
        equal(post({"query": "query One($id: Int) { sock(id: $id) }", "variables": {"id": number % 2}})["data"]["sock"], ["left", "right"][number % 2])
        tell("query", "One")
    two = "query First { socks } query Second { sock(id: 1) } mutation Third { addSock(name: \"x\") }"
    equal(post({"query": two, "operationName": "Second"}), {"data": {"sock": "right"}})
    tell("query", "Second")
    equal(post({"query": two, "operationName": "Third"}), {"data": {"addSock": "x"}})
    tell("mutation", "Third")
    equal(post({"query": "# { not: this }\nfragment F on Mutation { addSock(name: \"}{\\\"\") } mutation Add { ...F }"}), {"data": {"addSock": '}{"'}})
    tell("mutation", "Add")
    assert "errors" in post({"query": "query Bad { sock(id: 77) }"})
    tell("query", "Bad")
    assert "errors" in post({"query": "query Unknown { shoes }"}, 400)
    tell("query", "Unknown", 400)
    equal(len(post([{"query": "query A { socks }"}, {"query": "mutation B { addSock(name: \"b\") }"}, {"query": "{ socks }"}])), 3)
    tell("query", "A")
    tell("mutation", "B")
    tell("query")
    get(query="query ByGet { socks }")
    tell("query", "ByGet")
    get(query="query V($id: Int) { sock(id: $id) }", variables='{"id": 1}', operationName="V")
    tell("query", "V")
    kept = "query Kept { socks }"
    extension = {"persistedQuery": {"version": 1, "sha256Hash": hashlib.sha256(kept.encode()).hexdigest()}}
    assert "errors" in post({"operationName": "Kept", "extensions": extension})
    tell("query", "Kept")
    post({"operationName": "Kept", "query": kept, "extensions": extension})
    tell("query", "Kept")
    assert "data" in get(operationName="Kept", extensions=json.dumps(extension))
    tell("query", "Kept")
    large = "{ " + " ".join(f"s{number}: socks" for number in range(1000)) + " }"
    equal(len(post({"query": "query Large " + large})["data"]), 1000)
    tell("query", "Large")

    # Neither is GraphQL, whatever its neighbours are.
    post({"query": "socks"}, 404, "/search")
    row("http", "POST", "/search", "404")
    get(404)
    row("http", "GET", "/graphql?", "404")
    connection.close()


main(ask)
