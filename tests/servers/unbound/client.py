"""unbound: types, failures, truncation, TCP with several queries on a connection, EDNS (dnspython)."""
import socket
import dns.flags, dns.message, dns.opcode, dns.query, dns.rcode, dns.rdatatype
from asked import PORT, SERVER, equal, main, row


def query(name, kind, status="NOERROR", by=dns.query.udp, **options):
    question = dns.message.make_query(name, kind, **options)
    answer = by(question, SERVER, timeout=20, port=PORT)
    equal(dns.rcode.to_text(answer.rcode()), status)
    row("dns", kind, name.rstrip("."), status)
    return answer


def pipelined():
    """Two questions before the first answer, as resolvers do."""
    with socket.create_connection((SERVER, PORT)) as connection:
        for name in ("api.shop.test", "none.shop.test"):
            dns.query.send_tcp(connection, dns.message.make_query(name, "A"))
        for _ in range(2):
            dns.query.receive_tcp(connection)
    row("dns", "A", "api.shop.test", "NOERROR")
    row("dns", "A", "none.shop.test", "NXDOMAIN")


def ask():
    equal(len(query("api.shop.test", "A").answer[0]), 2)
    for name, kind in (("api.shop.test.", "AAAA"), ("shop.test", "MX"), ("shop.test", "SOA"), ("_http._tcp.shop.test", "SRV"),
                       ("1.2.0.192.in-addr.arpa", "PTR"), ("api.shop.test", "TXT"), ("nothing.test", "A"), ("API.Shop.TEST", "A")):
        query(name, kind)
    query("none.shop.test", "A", "NXDOMAIN")
    query("x.refused.test", "A", "REFUSED")
    query("www.broken.lab", "A", "SERVFAIL")
    query("api.shop.test", "A", use_edns=0, payload=1232, want_dnssec=True)
    assert query("large.shop.test", "TXT").flags & dns.flags.TC
    equal(len(query("large.shop.test", "TXT", by=dns.query.tcp).answer[0]), 100)
    assert query("large.shop.test", "TXT", use_edns=0, payload=4096).flags & dns.flags.TC
    query("api.shop.test", "A", by=dns.query.tcp)
    pipelined()
    for number in range(200):
        query(f"{number}.shop.test", "A", "NXDOMAIN")


main(ask, lambda: dns.query.udp(dns.message.make_query("shop.test", "SOA"), SERVER, timeout=1, port=PORT))
