set -eu
. /config/certificate.sh
. /config/postgresql.sh
