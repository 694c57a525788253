# Makes OCI image archives out of Debian packages with what every Debian has: apt, dpkg, tar, gzip, sha256sum.
#
# Sourced by the recipes. Needs no image registry, no account, no root; apt's own sources and proxy settings count.
# shellcheck shell=bash

# Every file of an image carries this time, so that the same packages give the same archive.
: "${SOURCE_DATE_EPOCH:=1735689600}"

# Says on stderr what goes wrong, and ends the recipe.
oci_fail() {
    echo "$(basename "$0"): $*" >&2
    exit 1
}

# oci_is_current ARCHIVE RECIPE... : was ARCHIVE made by just these recipe files?
oci_is_current() {
    local archive=$1
    shift
    [ -s "$archive" ] && [ -s "$archive.recipe" ] && [ "$(oci_recipe_id "$@")" = "$(cat "$archive.recipe")" ]
}

# oci_recipe_id RECIPE... : a digest of the recipe files.
oci_recipe_id() {
    cat "$@" | sha256sum | cut -d' ' -f1
}

# oci_debian_root ROOT WITHOUT PACKAGE... : unpacks the packages and all they depend on into ROOT.
#
# WITHOUT is a list of packages that count as installed, since an image has no use for them (maintainer scripts do not
# run, so what only those call is left out).
oci_debian_root() {
    local root=$1 without=$2 work package
    shift 2
    work=$root.apt
    mkdir -p "$work/archives/partial" "$root"
    for package in $without; do
        printf 'Package: %s\nStatus: install ok installed\nArchitecture: all\nMulti-Arch: foreign\nVersion: 9999\n\n' "$package"
    done >"$work/status"
    local apt=(apt-get --quiet=2 --yes --no-install-recommends --download-only
        -o Dir::State::status="$work/status" -o Dir::State::extended_states="$work/extended_states"
        -o Dir::Cache::archives="$work/archives" -o Debug::NoLocking=1 -o APT::Sandbox::User=root)
    if ! "${apt[@]}" install "$@" >"$work/log" 2>&1; then
        cat "$work/log" >&2
        oci_fail "apt cannot download $*: is there a network, and has 'apt-get update' run?"
    fi
    # Packages may ship /bin or /usr/bin, Debian 13's only the latter: both must be one place.
    local dir
    for dir in bin sbin lib lib64; do
        mkdir -p "$root/usr/$dir"
        [ -e "$root/$dir" ] || ln -s "usr/$dir" "$root/$dir"
    done
    for package in "$work"/archives/*.deb; do
        dpkg-deb --fsys-tarfile "$package" | tar -x --keep-directory-symlink --no-same-owner -C "$root"
    done
    rm -rf "$work" "$root"/usr/share/{doc,man,locale,lintian,bash-completion,menu,gcc} \
        "$root"/etc/{init.d,default,logrotate.d} "$root"/usr/lib/*/gconv
    mkdir -p "$root"/{dev,etc,proc,run,sys,root,tmp,var/tmp}
    chmod 0700 "$root/root"
    chmod 1777 "$root/tmp" "$root/var/tmp"
    printf 'root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/bin/false\n' >"$root/etc/passwd"
    printf 'root:x:0:\nnogroup:x:65534:\n' >"$root/etc/group"
    printf 'hosts: files dns\npasswd: files\ngroup: files\n' >"$root/etc/nsswitch.conf"
}

# oci_busybox_links ROOT : gives ROOT a link to busybox for each of its applets that no package brought.
oci_busybox_links() {
    local root=$1 busybox applet
    busybox=$(readlink -f "$root/bin/busybox")
    while read -r applet; do
        case $applet in busybox | dpkg | dpkg-deb | rpm | '[' | '[[') continue ;; esac
        [ -e "$root/usr/bin/$applet" ] || [ -e "$root/usr/sbin/$applet" ] || ln -s busybox "$root/usr/bin/$applet"
    done < <("$busybox" --list)
    ln -sf busybox "$root/usr/bin/["
}

# oci_pack ARCHIVE NAME ROOT CONFIG [OWNER:DIR]... : packs ROOT as a one-layer image called NAME into ARCHIVE.
#
# CONFIG is the image's "config" object (entrypoint, environment, ...). All files belong to root, but those under a DIR
# that is listed with its numeric OWNER.
#
# With OCI_FOR_DOCKER set the archive is one of `docker save` as well, which engines before Docker 25 want.
oci_pack() {
    local archive=$1 name=$2 root=$3 config=$4
    shift 4
    local work=$root.oci blobs arch created owned
    blobs=$work/blobs/sha256
    arch=$(oci_architecture)
    created=$(date -u -d "@$SOURCE_DATE_EPOCH" +%Y-%m-%dT%H:%M:%SZ)
    mkdir -p "$blobs"

    local tar=(tar --sort=name --mtime="@$SOURCE_DATE_EPOCH" --format=gnu --numeric-owner -C "$root")
    local exclude=()
    for owned in "$@"; do exclude+=(--exclude="./${owned#*:}"); done
    "${tar[@]}" "${exclude[@]}" --owner=0 --group=0 -cf "$work/layer.tar" .
    for owned in "$@"; do
        "${tar[@]}" --owner="${owned%%:*}" --group="${owned%%:*}" -rf "$work/layer.tar" "./${owned#*:}"
    done

    local diff_id layer layer_size image image_size manifest manifest_size
    diff_id=$(oci_digest "$work/layer.tar")
    gzip -n -6 "$work/layer.tar"
    layer=$(oci_digest "$work/layer.tar.gz")
    layer_size=$(stat -c %s "$work/layer.tar.gz")
    mv "$work/layer.tar.gz" "$blobs/$layer"

    printf '{"created":"%s","architecture":"%s","os":"linux","config":%s,"rootfs":{"type":"layers","diff_ids":["sha256:%s"]},"history":[{"created":"%s","created_by":"%s"}]}' \
        "$created" "$arch" "$config" "$diff_id" "$created" "nuncio examples/images/oci.sh" >"$work/image.json"
    image=$(oci_digest "$work/image.json")
    image_size=$(stat -c %s "$work/image.json")
    mv "$work/image.json" "$blobs/$image"

    printf '{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:%s","size":%s},"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":"sha256:%s","size":%s}]}' \
        "$image" "$image_size" "$layer" "$layer_size" >"$work/manifest.json"
    manifest=$(oci_digest "$work/manifest.json")
    manifest_size=$(stat -c %s "$work/manifest.json")
    mv "$work/manifest.json" "$blobs/$manifest"

    local full=$name files=(oci-layout index.json blobs)
    case $name in */*) ;; *) full=library/$name ;; esac
    if [ -n "${OCI_FOR_DOCKER:-}" ]; then
        printf '[{"Config":"blobs/sha256/%s","RepoTags":["%s"],"Layers":["blobs/sha256/%s"]}]' \
            "$image" "$name" "$layer" >"$work/manifest.json"
        files=(manifest.json "${files[@]}")
    fi
    printf '{"imageLayoutVersion":"1.0.0"}' >"$work/oci-layout"
    printf '{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:%s","size":%s,"platform":{"architecture":"%s","os":"linux"},"annotations":{"org.opencontainers.image.ref.name":"%s","io.containerd.image.name":"docker.io/%s"}}]}' \
        "$manifest" "$manifest_size" "$arch" "${name#*:}" "$full" >"$work/index.json"

    tar --sort=name --mtime="@$SOURCE_DATE_EPOCH" --format=gnu --numeric-owner --owner=0 --group=0 \
        -C "$work" -cf "$archive.new" "${files[@]}"
    mv "$archive.new" "$archive"
}

oci_digest() {
    sha256sum "$1" | cut -d' ' -f1
}

# Debian's name of this machine's architecture, as OCI spells it.
oci_architecture() {
    case $(dpkg --print-architecture) in
        i386) echo 386 ;;
        armhf | armel) echo arm ;;
        ppc64el) echo ppc64le ;;
        *) dpkg --print-architecture ;;
    esac
}
