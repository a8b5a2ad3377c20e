#!/bin/sh
# Makes a company's certificate authority and a certificate of localhost by it, both valid from 2020 to 2120. The
# authority's key is thrown away.
set -eu
cd "$(dirname "$0")"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
touch "$work/index.txt"
cat > "$work/ca.conf" <<END
[ca]
default_ca = test
[test]
database = $work/index.txt
new_certs_dir = $work
rand_serial = yes
default_md = sha256
policy = any
default_startdate = 20200101000000Z
default_enddate = 21200101000000Z
[any]
commonName = supplied
[authority]
basicConstraints = critical,CA:TRUE
keyUsage = critical,keyCertSign
[server]
basicConstraints = CA:FALSE
subjectAltName = DNS:localhost,IP:127.0.0.1
END
for name in ca localhost; do
    openssl ecparam -name prime256v1 -genkey -noout | openssl pkcs8 -topk8 -nocrypt -out "$work/$name.key"
    openssl req -new -key "$work/$name.key" -subj "/CN=elephant-server test $name" -out "$work/$name.csr"
done
sign() { openssl ca -batch -notext -config "$work/ca.conf" -keyfile "$work/ca.key" "$@"; }
sign -selfsign -extensions authority -in "$work/ca.csr" -out ca.pem
sign -cert ca.pem -extensions server -in "$work/localhost.csr" -out localhost.pem
cp "$work/localhost.key" localhost.key
