#!/bin/sh
# Gathers the fonts and the English word list that the pictures are made of into training/.fonts/ (git-ignored).
# Needs Debian 12 (or a release with the same packages), python3 and `pip install fonttools`.
# Every face is cut down to printable ASCII plus the pound and euro signs, which makes ~150 faces a few MB.
# training/.fonts/versions.txt records what was used.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
out="$here/.fonts"
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
packages="fonts-dejavu-core fonts-dejavu-extra fonts-liberation2 fonts-crosextra-caladea fonts-open-sans
fonts-roboto-unhinted fonts-roboto-slab fonts-lato fonts-inconsolata fonts-firacode fonts-inter fonts-cantarell
fonts-ebgaramond fonts-vollkorn fonts-quattrocento fonts-play fonts-jura fonts-comfortaa fonts-quicksand fonts-dosis
fonts-cabin fonts-karla fonts-manrope fonts-jetbrains-mono fonts-hack fonts-courier-prime fonts-urw-base35
fonts-texgyre fonts-lmodern fonts-linuxlibertine fonts-paratype fonts-b612 fonts-go fonts-oxygen fonts-comic-neue
fonts-clear-sans fonts-adf-accanthis fonts-adf-gillius fonts-adf-universalis fonts-sil-gentiumplus fonts-sil-charis
fonts-sil-andika fonts-league-spartan fonts-tuffy fonts-junction fonts-opendyslexic fonts-oldstandard fonts-prociono
fonts-sora fonts-anonymous-pro fonts-agave fonts-mononoki fonts-fantasque-sans fonts-century-catalogue
fonts-averia-sans-gwf fonts-averia-serif-gwf fonts-osifont fonts-opendin fonts-humor-sans wamerican"
cd "$scratch"
for package in $packages; do apt-get download -q "$package" >/dev/null 2>&1 || echo "not available, skipped: $package" >&2; done
mkdir -p root "$out/faces"
for archive in *.deb; do dpkg-deb -x "$archive" root; done
ls -- *.deb >"$out/versions.txt"
grep -E '^[a-z]{3,10}$' root/usr/share/dict/american-english >"$out/words.txt"
python3 "$here/subset_fonts.py" root/usr/share/fonts "$out/faces"
