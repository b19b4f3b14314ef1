"""Ten thousand requests as fast as client and server can, on 16 connections at a time, each of which ends after 50."""
from asked import PORT, SERVER, main
from service import Client

client = Client("plain")

main(lambda: client.ask(10_000, 16, 3, 1, f"https://{SERVER}:{PORT}/many"))
