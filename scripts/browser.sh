#!/usr/bin/env bash
# Install what the tests look at pages and windows with: Debian's Chromium and Xvfb, Java, and the Nu HTML checker from
# npm, which goes into an environment.  Usage: browser.sh ENVIRONMENT   (as root; Debian or Ubuntu)
set -euo pipefail
environment="${1:?usage: browser.sh ENVIRONMENT}"
missing=()
for package in chromium xvfb npm default-jre-headless; do
  case "$package" in xvfb) command=Xvfb ;; default-jre-headless) command=java ;; *) command="$package" ;; esac
  command -v "$command" >/dev/null || missing+=("$package")
done
if [ "${#missing[@]}" -gt 0 ]; then
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "${missing[@]}" >/dev/null
fi
npm install --silent --no-fund --no-audit --prefix "$environment/vnu" vnu-jar@26.9.27
