#!/bin/sh
# Installs the programs that the tests talk to, where that is possible; tests say what they miss.
set -eu
missing=""
for pair in storescu:dcmtk dciodvfy:dicom3tools Orthanc:orthanc strace:strace npm:npm openssl:openssl \
    chromium:chromium pdftotext:poppler-utils; do
    program=${pair%%:*}
    test -x "/usr/bin/$program" || test -x "/usr/sbin/$program" || missing="$missing ${pair##*:}"
done
test -e /usr/share/orthanc/plugins/libOrthancDicomWeb.so || missing="$missing orthanc-dicomweb"
if [ -n "$missing" ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
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
elif [ -n "$missing" ]; then
    echo "Not installed (needs root and apt):$missing. Tests that need them are skipped."
fi

# OHIF, the viewer in which the tests look at results: its built site, as npm has it.
ohif_version=3.13.2
ohif=${XDG_CACHE_HOME:-$HOME/.cache}/scorenode/ohif-$ohif_version
if [ ! -e "$ohif/index.html" ]; then
    if command -v npm >/dev/null; then
        echo "Unpacking OHIF $ohif_version"
        part=$(mktemp -d)
        (cd "$part" && npm pack --silent "@ohif/app@$ohif_version" >/dev/null &&
            tar xzf ohif-app-*.tgz package/dist --exclude='*.map')
        mkdir -p "$(dirname "$ohif")"
        rm -rf "$ohif"
        mv "$part/package/dist" "$ohif"
        rm -rf "$part"
    else
        echo "Not installed (needs npm): OHIF. Tests that need it are skipped."
    fi
fi

# An MLflow server, in an environment of its own that also sees what the project has installed.
mlflow_version=3.17.2
mlflow=${XDG_CACHE_HOME:-$HOME/.cache}/scorenode/mlflow-$mlflow_version
python=$(dirname "$0")/../.venv/bin/python
if [ -x "$python" ] && ! "$mlflow/bin/mlflow" --version >/dev/null 2>&1; then
    echo "Installing MLflow $mlflow_version"
    rm -rf "$mlflow"
    "$python" -m venv "$mlflow"
    "$python" -c "import sysconfig; print(sysconfig.get_path('purelib'))" \
        > "$("$mlflow/bin/python" -c "import sysconfig; print(sysconfig.get_path('purelib'))")/project.pth"
    "$mlflow/bin/python" -m pip install --quiet "mlflow==$mlflow_version"
fi
