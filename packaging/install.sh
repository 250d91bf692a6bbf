#!/bin/sh
# Installs Tracker from this source tree; `make install` and `make deb` call it. Environment
# variables:
#
# DESTDIR  folder to install into instead of /; installed files do not refer to it
# PREFIX   folder of the virtual environment; default: /opt/tracker
# SYSTEM   folder of units, commands and examples; default: /usr/local
# PYTHON   Python of the virtual environment; default: python3
#
# It creates no user and enables no unit: see docs/install.rst.
set -eu
umask 022

PREFIX=${PREFIX:-/opt/tracker}
SYSTEM=${SYSTEM:-/usr/local}
PYTHON=${PYTHON:-python3}
root=${DESTDIR:+$(realpath -m "$DESTDIR")}
venv=$root$PREFIX
share=$root$SYSTEM/share/tracker
cd "$(dirname "$0")/.."

fail() {
    echo "install: $*" >&2
    exit 1
}

# Services have no access to home folders, and therefore not to a Python there.
interpreter=$("$PYTHON" -c 'import os, sys; print(os.path.realpath(sys.executable))')
case $interpreter in
    /root/* | /home/*) fail "$interpreter is in a home folder, which services cannot read; use PYTHON=/usr/bin/python3" ;;
esac
"$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || fail "Python 3.11 or later is required; use PYTHON=/path/to/python3.11"
"$PYTHON" -c 'import ensurepip' 2>/dev/null || fail "$PYTHON has no module venv; run apt install python3-venv"

# Build from a copy: a build leaves files in the tree, and would include files of earlier builds.
source=$(mktemp -d)
trap 'rm -rf "$source"' EXIT
tar -c --exclude=__pycache__ --exclude=dropin.cache \
    setup.cfg pyproject.toml README.rst LICENSE tracker twisted | tar -x -C "$source"

"$PYTHON" -m venv "$venv"
# The name of the distribution in earlier installations, which pip would leave beside this one.
"$venv/bin/pip" uninstall --quiet --quiet --yes tracker
"$venv/bin/pip" install --quiet --disable-pip-version-check --no-compile --upgrade \
    "${source}[postgresql]"

# Bytecode and Twisted's list of plugins, which a service cannot write later.
"$venv/bin/python" -m compileall -q -f ${root:+-s "$root"} "$venv/lib"
"$venv/bin/python" -I -c 'from twisted.plugin import IPlugin, getPlugins; list(getPlugins(IPlugin))'
chmod 644 "$venv"/lib/python3*/site-packages/twisted/plugins/dropin.cache

# Scripts contain the path of their environment.
if [ -n "$root" ]; then
    grep -rlIZ -F "$venv" "$venv/bin" "$venv/pyvenv.cfg" | xargs -0r sed -i "s|$venv|$PREFIX|g"
fi

system=$root$SYSTEM
units=$system/lib/systemd/system
install -d "$system/bin" "$system/sbin" "$units" "$system/lib/sysusers.d" \
    "$system/lib/tmpfiles.d" "$share/etc" "$share/redis"
for command in tracker tracker-admin; do
    ln -sf "$PREFIX/bin/$command" "$system/bin/$command"
done
install -m 755 packaging/tracker-restart "$system/sbin"
for file in $(cd systemd && find tracker* -type f); do
    install -D -m 644 "systemd/$file" "$units/$file"
    [ "$PREFIX" = /opt/tracker ] || sed -i "s|/opt/tracker/|$PREFIX/|g" "$units/$file"
done
install -m 644 systemd/sysusers.d/* "$system/lib/sysusers.d"
install -m 644 systemd/tmpfiles.d/* "$system/lib/tmpfiles.d"
install -m 644 packaging/etc/*.env "$share/etc"
install -m 644 ops/redis/redis.conf ops/redis/users.acl "$share/redis"
install -m 755 ops/redis/make-users "$share/redis"
