"""Go: services that ask one another, as built by default and stripped of their symbols, in TLS 1.2 and 1.3, HTTP/1.1 and 2."""
from asked import PORT, SERVER, main
from service import Client

clients = [Client("plain"), Client("stripped")]


def ask():
    for client in clients:
        for port in (PORT, PORT + 1):
            for version in (2, 3):
                for protocol in (1, 2):
                    client.ask(50, 5, version, protocol, f"https://{SERVER}:{port}/{client.name}-{version}-{protocol}")


main(ask)
