exec nats-server -a 0.0.0.0 -p 4222
