#!/bin/sh
# Installs Chromium for the tests that open pages, where there is none and it can be; it never fails and takes four
# minutes at most.  Those tests skip themselves where there still is none.
found() {
  for name in chromium chromium-browser google-chrome google-chrome-stable chrome; do
    "$name" --version 2>/dev/null </dev/null | grep -q Chrom && return 0
  done
  return 1
}

found && exit 0
if [ -x "${MDP_TEST_CHROMIUM:-}" ] || [ -d "/Applications/Google Chrome.app" ] || [ -d /Applications/Chromium.app ]; then
  exit 0
fi
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null && command -v timeout >/dev/null; then
  echo "installing Chromium for the tests that open pages"
  export DEBIAN_FRONTEND=noninteractive
  timeout -k 5 40 apt-get -qq update >/dev/null 2>&1 </dev/null
  install="apt-get -qq install --yes --no-install-recommends chromium fonts-dejavu-core"
  # a download can be cut off at any time; what is there then is put in place in seconds
  timeout -k 5 100 $install --download-only >/dev/null 2>&1 </dev/null &&
    timeout -k 5 90 $install >/dev/null 2>&1 </dev/null
fi
found || echo "no Chromium here, and none could be installed: the tests that open pages will be skipped"
exit 0
