#!/usr/bin/env bash
# The extension in a real VS Code in a browser, with a real daemon and the bundled model: type, see
# ghost text, accept it, save; the file and the daemon's database are then looked at.
#
#   run.sh [stable|proposed] …    both, in this order, where none is named
#
# stable: VS Code as everybody has it. proposed: as code-server ships it, with every proposed API
# switched on for every extension, which hides a use of one that users would trip over.
#
# ATLASD_MODEL_NAME picks another model. A run as `stable` that passed leaves its picture in
# docs/vscode-ghost-text.png; KEEP=1 keeps the temporary folder with logs and pictures.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../../.." && pwd)
cache=$root/.cache/vscode
modes=("$@")
[ ${#modes[@]} -gt 0 ] || modes=(stable proposed)

"$here/install.sh"
export PATH="$cache/bin:$PATH" E2E_MODULES=$cache

work=$(mktemp -d "${TMPDIR:-/tmp}/atlasd-vscode.XXXXXX")
export ATLASD_HOME=$work/home
server=
clean() {
  [ -z "$server" ] || kill -- "-$server" 2>/dev/null || true
  "$root/.venv/bin/atlasd" stop >/dev/null 2>&1 || true
  if [ -n "${KEEP:-}" ]; then echo "kept: $work"; else rm -rf "$work"; fi
}
trap clean EXIT
trap 'exit 130' INT TERM

cd "$here/.."
if [ ! -f atlasd.vsix ] || [ -n "$(find src package*.json tsconfig.json README.md -newer atlasd.vsix)" ]; then
  echo "packaging the extension"
  [ -d node_modules ] || npm ci --no-fund --no-audit --loglevel=error
  npm run --silent package >"$work/package.log" 2>&1 || { cat "$work/package.log"; exit 1; }
fi

echo "starting the daemon"
"$root/.venv/bin/atlasd" start --port 0 >"$work/start.log" 2>&1 || { cat "$work/start.log"; exit 1; }

# start_server MODE: code-server with the extension; sets server and url.
start_server() {
  local tree=$cache/node_modules/code-server data=$work/$1/data extensions=$work/$1/extensions
  if [ "$1" = stable ]; then
    tree=$cache/stable
    "$cache/bin/node" "$here/stable.mjs" "$cache/node_modules/code-server" "$tree"
  fi
  mkdir -p "$data/User" "$data/Machine"
  cp "$here/settings.json" "$data/User/settings.json"
  printf '{ "atlasd.command": ["%s"] }\n' "$root/.venv/bin/atlasd-lsp" >"$data/Machine/settings.json"
  local options=(--config "$work/code-server.yaml" --user-data-dir "$data" --extensions-dir "$extensions")
  node "$tree/out/node/entry.js" "${options[@]}" --install-extension atlasd.vsix >"$work/$1/install.log" 2>&1 ||
    { cat "$work/$1/install.log"; return 1; }
  # code-server gives its own child ten seconds to come up, which a busy machine may need longer for.
  for _ in 1 2 3; do
    serve_until_listening "$1" "$tree" "${options[@]}" && return 0
    grep -q 'error timed out' "$work/$1/server.log" || break
    echo "$1: code-server did not come up in the time it gives itself; once more"
  done
  echo "code-server did not start:" >&2
  cat "$work/$1/server.log" >&2
  return 1
}

# serve_until_listening MODE TREE OPTION…: sets server, and url once it listens; fails where it ends before.
serve_until_listening() {
  local log=$work/$1/server.log tree=$2 folder=$work/$1/people
  shift 2
  # A session of its own, so that everything it starts can be ended with it.
  VSCODE_PROXY_URI='' setsid node "$tree/out/node/entry.js" "$@" --auth none --bind-addr 127.0.0.1:0 \
    --disable-telemetry --disable-update-check --disable-workspace-trust "$folder" \
    >"$log" 2>&1 </dev/null &
  server=$!
  url=
  for _ in $(seq 240); do
    url=$(sed -n 's|.*HTTP server listening on \(http://[0-9.:]*\).*|\1|p' "$log")
    [ -z "$url" ] || return 0
    kill -0 "$server" 2>/dev/null || break
    sleep 0.5
  done
  stop_server
  return 1
}

stop_server() {
  kill -- "-$server" 2>/dev/null || true
  wait "$server" 2>/dev/null || true
  server=
}

for mode in "${modes[@]}"; do
  [ "$mode" = stable ] || [ "$mode" = proposed ] || { echo "no such mode: $mode" >&2; exit 2; }
  folder=$work/$mode/people
  mkdir -p "$folder"
  cp "$here"/repository/* "$folder"
  git -C "$folder" init -q
  git -C "$folder" -c user.name=e2e -c user.email=e2e@example.org add .
  git -C "$folder" -c user.name=e2e -c user.email=e2e@example.org commit -qm "People"
  echo "$mode: starting VS Code"
  start_server "$mode"
  echo "$mode: typing"
  node "$here/drive.mjs" "$url/?folder=$folder" "$work/$mode/picture.png"
  stop_server
  "$root/.venv/bin/python" "$here/check.py" "$ATLASD_HOME/data/atlasd.db" "$folder"
  echo "$mode: passed"
  [ "$mode" != stable ] || cp "$work/stable/picture.png" "$root/docs/vscode-ghost-text.png"
done
echo "${#modes[@]} passed, 0 failed"
