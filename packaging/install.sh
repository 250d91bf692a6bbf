#!/bin/sh
# Installs Tracker from this source tree: `make install` and `make deb` call it. In the environment:
#
# DESTDIR  a folder to install into instead of /; what it will be found by later does not name it
# PREFIX   of the virtual environment: /opt/tracker
# SYSTEM   of the units, the commands and what is delivered as an example: /usr/local
# PYTHON   that the virtual environment is of: python3
#
# Neither a user is made nor a unit enabled: docs/install.rst has the lines that do it.
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

# Services see no home folder, and so no Python there.
interpreter=$("$PYTHON" -c 'import os, sys; print(os.path.realpath(sys.executable))')
case $interpreter in
    /root/* | /home/*) fail "$interpreter is in a home folder: PYTHON=/usr/bin/python3 make …" ;;
esac
"$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || fail "Python 3.11 or later is needed"
"$PYTHON" -c 'import ensurepip' 2>/dev/null || fail "$PYTHON has no venv: apt install python3-venv"

# A copy, since a build leaves files in the tree, and takes along what earlier ones have left.
source=$(mktemp -d)
trap 'rm -rf "$source"' EXIT
tar -c --exclude=__pycache__ --exclude=dropin.cache \
    setup.cfg pyproject.toml README.rst LICENSE tracker twisted | tar -x -C "$source"

"$PYTHON" -m venv "$venv"
"$venv/bin/pip" install --quiet --disable-pip-version-check --no-compile --upgrade \
    "${source}[postgresql]"

# What a service could not write later: bytecode, and Twisted's list of plugins.
"$venv/bin/python" -m compileall -q -f ${root:+-s "$root"} "$venv/lib"
"$venv/bin/python" -I -c 'from twisted.plugin import IPlugin, getPlugins; list(getPlugins(IPlugin))'
chmod 644 "$venv"/lib/python3*/site-packages/twisted/plugins/dropin.cache

# Scripts name the environment that they are of.
if [ -n "$root" ]; then
    grep -rlIZ -F "$venv" "$venv/bin" "$venv/pyvenv.cfg" | xargs -0r sed -i "s|$venv|$PREFIX|g"
fi

system=$root$SYSTEM
units=$system/lib/systemd/system
install -d "$system/bin" "$system/sbin" "$units" "$system/lib/sysusers.d" \
    "$system/lib/tmpfiles.d" "$share/etc" "$share/redis"
ln -sf "$PREFIX/bin/tracker-admin" "$system/bin/tracker-admin"
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
