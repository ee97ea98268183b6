#!/usr/bin/env bash
# Shows pds at work in a home that is made for this and removed afterwards; nothing of the user's own is touched.
# Each step says what it does, shows the command, and stops the demo if the outcome is not the promised one.
#
# usage: deploy/demo.sh PATH_OF_PDS
set -euo pipefail

pds_path=$(realpath "${1:?usage: demo.sh PATH_OF_PDS}")
# A socket's path has room for 107 bytes, so this is not below TMPDIR, which may be long.
home=$(mktemp -d /tmp/pds-demo.XXXXXX)
export HOME=$home
export PDS_CONFIG_DIR=$home/config PDS_DATA_DIR=$home/data PDS_STATE_DIR=$home/state PDS_RUNTIME_DIR=$home/run
unset PDS_PROFILE PDS_NO_START

pds() { "$pds_path" "$@"; }

clean_up() {
    pds --quiet daemon stop >/dev/null 2>&1 || true
    rm -rf "$home"
}
trap clean_up EXIT
trap 'exit 130' INT TERM

number=0
step() {
    number=$((number + 1))
    printf '\n%d. %s\n' "$number" "$1"
}
typed() { printf '   $ %s\n' "$1"; }
indented() { sed 's/^/     /'; }
fail() {
    printf '\npds demo: %s\n' "$1" >&2
    exit 1
}

random_text() { head -c 18 /dev/urandom | base64; }
password=$(random_text)
api_key=$(random_text)
certificate=$home/client.pem
printf -- '-----BEGIN CERTIFICATE-----\n%s\n-----END CERTIFICATE-----\n' "$(random_text)" >"$certificate"

echo "pds demo. Everything happens in $home, which is removed at the end."

step "Make a vault; the daemons start by themselves. Its password comes over a descriptor here; on a terminal you would be asked for it."
typed 'pds -v init --password-fd 3'
pds -v init --password-fd 3 3< <(printf '%s' "$password") 2>&1 | indented

step "Store two secrets: one from standard input, one from a file. No secret is ever an argument."
typed "printf %s \"\$api_key\" | pds set api-key"
printf %s "$api_key" | pds set api-key
typed 'pds set --trim --file client.pem tls/client.pem'
pds set --trim --file "$certificate" tls/client.pem
rm "$certificate"
typed 'pds list'
pds list | indented

step "Read one back: the same bytes come out."
typed 'pds get api-key | cmp - what-was-stored'
pds get api-key | cmp - <(printf %s "$api_key") || fail 'the value changed on its way'
echo '     they are equal'

step "Run a program with the secrets in its environment, and only there."
program='printf "API_KEY has %s bytes, TLS_CLIENT_PEM has %s lines\n" "${#API_KEY}" "$(printf "%s\n" "$TLS_CLIENT_PEM" | wc -l)"'
typed "pds run -- sh -c '$program'"
said=$(pds run -- sh -c "$program")
indented <<<"$said"
[[ $said == "API_KEY has ${#api_key} bytes, TLS_CLIENT_PEM has 3 lines" ]] || fail 'the program did not get the secrets'
[[ -z ${API_KEY+set} ]] || fail 'the secret is in the environment of the caller'
echo '     the shell that called pds has no variable API_KEY'
typed "pds run --only api-key -- sh -c 'exit 37'"
code=0
pds run --only api-key -- sh -c 'exit 37' || code=$?
[[ $code -eq 37 ]] || fail "the exit code was $code"
echo "     exit code $code: the program's own"

step "Look for the secret in every file that pds has written."
typed "grep --recursive --fixed-strings \"\$api_key\" $home"
code=0
grep --recursive --quiet --fixed-strings --devices=skip -- "$api_key" "$home" || code=$?
[[ $code -eq 1 ]] || fail 'a file holds the secret, or could not be searched'
echo '     no file holds it'

step "See who read what. The log holds names, never values, and each entry is chained to the one before."
typed 'pds audit tail'
pds audit tail | indented
typed 'pds audit verify'
pds audit verify 2>&1 | indented

step "Lock. The daemons forget the keys, and nothing can be read any more."
typed 'pds lock'
pds lock 2>&1 | indented
typed 'pds get api-key'
code=0
pds get api-key >"$home/answer" 2>"$home/reason" || code=$?
indented <"$home/reason"
[[ $code -eq 3 && ! -s $home/answer ]] || fail "pds get after pds lock ended with exit code $code"
echo "     exit code $code: the profile is locked"

step "Clean up: stop the daemons and remove the home."
typed "pds daemon stop; rm -r $home"
pds --quiet daemon stop || fail 'the daemons did not stop'
rm -rf "$home"
printf '\nDone: %d steps, and nothing outside %s was touched.\n' "$number" "$home"
