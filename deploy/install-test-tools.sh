#!/bin/sh
# Installs the programs that the tests talk to, where that is possible; tests say what they miss.
set -eu
missing=""
for pair in storescu:dcmtk dciodvfy:dicom3tools Orthanc:orthanc strace:strace npm:npm openssl:openssl; do
    program=${pair%%:*}
    test -x "/usr/bin/$program" || test -x "/usr/sbin/$program" || missing="$missing ${pair##*:}"
done
test -z "$missing" && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "Installing:$missing"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq
    # Orthanc would start as a service on its usual ports: the tests start their own.
    printf '#!/bin/sh\nexit 101\n' > /usr/sbin/policy-rc.d.scorenode
    chmod +x /usr/sbin/policy-rc.d.scorenode
    if [ ! -e /usr/sbin/policy-rc.d ]; then
        mv /usr/sbin/policy-rc.d.scorenode /usr/sbin/policy-rc.d
        trap 'rm -f /usr/sbin/policy-rc.d' EXIT
    else
        rm /usr/sbin/policy-rc.d.scorenode
    fi
    # shellcheck disable=SC2086
    apt-get install -qq -y --no-install-recommends $missing >/dev/null
else
    echo "Not installed (needs root and apt):$missing. Tests that need them are skipped."
fi
