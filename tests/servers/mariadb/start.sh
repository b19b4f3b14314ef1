# A data folder of its own, filled by the server itself, and one account.
set -eu
cat >/tmp/first.sql <<'SQL'
CREATE DATABASE shop;
CREATE USER asker@'%' IDENTIFIED BY 'secret';
GRANT ALL ON *.* TO asker@'%';
SQL
mariadb-install-db --no-defaults --user=root --datadir=/data/db --auth-root-authentication-method=normal --skip-test-db
exec mariadbd --no-defaults --user=root --datadir=/data/db --socket=/tmp/db.sock --pid-file=/tmp/db.pid \
    --bind-address=0.0.0.0 --init-file=/tmp/first.sql --skip-name-resolve --innodb-flush-log-at-trx-commit=0
