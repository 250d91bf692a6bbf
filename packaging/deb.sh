#!/bin/sh
# Builds dist/tracker-plane_VERSION_ARCHITECTURE.deb from this source tree; `make deb` calls it.
# Needs python3-venv and dpkg-deb, and no root. `packaging/deb.sh version` prints VERSION only.
# Environment variables:
#
# DEB_VERSION  version of the package; default: that of the program, 0.2.0rc1 as 0.2.0~rc1, so that
#              dpkg sorts it before 0.2.0
# DEB_PYTHON   Python of the package; default: /usr/bin/python3 of this Debian release
#
# The package works only on the release that it was built on, since it needs that Python.
set -eu
umask 022
cd "$(dirname "$0")/.."

python=${DEB_PYTHON:-/usr/bin/python3}
program=$(sed -n 's/^__version__ = "\(.*\)"$/\1/p' tracker/__init__.py)
version=${DEB_VERSION:-$(echo "$program" | sed 's/\.\{0,1\}\(a\|b\|rc\|dev\)\([0-9]\)/~\1\2/')}
if [ "${1:-}" = version ]; then
    echo "$version"
    exit
fi
architecture=$(dpkg --print-architecture)
mkdir -p dist
stage=$(mktemp -d)
chmod 755 "$stage"
trap 'rm -rf "$stage"' EXIT

DESTDIR=$stage PREFIX=/opt/tracker SYSTEM=/usr PYTHON=$python packaging/install.sh
# The environment is upgraded by packages, not by pip.
"$stage/opt/tracker/bin/python" -m pip uninstall --quiet --yes pip setuptools

doc=$stage/usr/share/doc/tracker-plane
install -d "$doc"
install -m 644 README.rst docs/*.rst "$doc"
install -m 644 packaging/deb/copyright "$doc"
install -D -m 644 packaging/deb/lintian-overrides "$stage/usr/share/lintian/overrides/tracker-plane"

minor=$("$python" -c 'import sys; print(sys.version_info.minor)')
libc=$(dpkg-query --show --showformat '${Version}' "libc6:$architecture")
install -d "$stage/DEBIAN"
sed -e "s|@VERSION@|$version|" -e "s|@ARCHITECTURE@|$architecture|" \
    -e "s|@PYTHON@|3.$minor|" -e "s|@NEXT_PYTHON@|3.$((minor + 1))|" -e "s|@LIBC@|${libc%%-*}|" \
    -e "s|@SIZE@|$(du -sk "$stage" | cut -f1)|" \
    packaging/deb/control.in >"$stage/DEBIAN/control"
install -m 755 packaging/deb/preinst packaging/deb/postinst packaging/deb/prerm packaging/deb/postrm \
    "$stage/DEBIAN"
(cd "$stage" && find opt usr -type f -print0 | sort -z | xargs -0 md5sum) >"$stage/DEBIAN/md5sums"

file=dist/tracker-plane_${version}_$architecture.deb
# -z1: 20 % larger than -z6, in a tenth of the time.
dpkg-deb --root-owner-group -Zxz -z1 --build "$stage" "$file" >/dev/null
echo "$file"
