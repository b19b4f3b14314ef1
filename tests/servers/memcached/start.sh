exec memcached -u root -l 0.0.0.0 -p 11211 -U 11211
