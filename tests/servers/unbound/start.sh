# A name with more than fits into a datagram.
mkdir /data/conf
{
    cat /config/unbound.conf
    echo server:
    for number in $(seq 100); do
        echo "    local-data: 'large.shop.test. TXT \"$number-xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\"'"
    done
} >/data/conf/unbound.conf
exec unbound -d -c /data/conf/unbound.conf
