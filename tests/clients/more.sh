#!/usr/bin/env bash
# The clients that take longer to install than CI has time for: dbt, JDBC, ODBC, Superset. Starts a server of its own.
# What is not there (a JDK, unixODBC, the Python packages) is said and left out.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

cache="${HOME}/.cache/weir"
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-${cache}/target}"
venv="${cache}/venv-more"
scratch="$(mktemp -d)"
server=""

finish() {
  if [ -n "$server" ]; then
    kill "$server" 2>/dev/null || true
    wait "$server" || true
  fi
  rm -rf "$scratch"
}
trap finish EXIT

install() {
  local wanted="tests/clients/requirements-$1.txt" into="${cache}/venv-$1"
  cmp -s "$wanted" "$into/installed.txt" && return
  rm -rf "$into"
  python3 -m venv "$into"
  "$into/bin/pip" install --quiet --disable-pip-version-check -r "$wanted"
  cp "$wanted" "$into/installed.txt"
}
install more
install superset

cargo build --workspace --bins --locked
WEIR_PASSWORD="$("$venv/bin/python" -c 'import secrets; print(secrets.token_urlsafe(18))')"
export WEIR_PASSWORD
WEIR__AUTH__ADMIN_PASSWORD="$WEIR_PASSWORD" "${CARGO_TARGET_DIR}/debug/weir" serve --data "$scratch/data" \
  --pg-addr 127.0.0.1:0 --flight-addr 127.0.0.1:0 --http-addr 127.0.0.1:0 >"$scratch/server.log" 2>&1 &
server=$!
for _ in $(seq 600); do
  [ -s "$scratch/data/addresses.json" ] && break
  sleep 0.1
done

failed=0
for client in jdbc odbc dbt superset; do
  printf '\n=== %s\n' "$client"
  python="$venv/bin/python"
  [ "$client" = superset ] && python="${cache}/venv-superset/bin/python"
  DBT="$venv/bin/dbt" "$python" "tests/clients/check_$client.py" \
    "$scratch/data/addresses.json" "$scratch/data/warehouse" || failed=1
done
exit "$failed"
