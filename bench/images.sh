# The image that is pulled, loaded and saved. Sourced by runtime.sh.
# shellcheck shell=bash

# Bytes of its files, and its layers: MB, and the KiB of the smallest and of the largest file.
image_bytes=300000000
image_layers=("80 4 64" "120 1024 8192" "60 1 20" "30 64 512" "10 1 4096")

# make_image : the image, with layers compressed by gzip and without, as docker's archives; only if they are not there.
make_image() {
    local directory=$here/../target/images made
    made=$(oci_recipe_id "$here/images.sh" "$here/src/runtime/files.rs")
    image_gzip=$directory/bench-gzip.tar image_plain=$directory/bench-plain.tar
    [ "$(cat "$image_plain.recipe" 2>/dev/null)" != "$made" ] || return 0
    echo "== make an image of 300 MB"
    mkdir -p "$directory"
    local number=0 sizes tar=(tar --sort=name --mtime="@$SOURCE_DATE_EPOCH" --format=gnu --numeric-owner --owner=0 --group=0)
    mkdir "$work"/{plain,gzip}
    local diffs=()
    for sizes in "${image_layers[@]}"; do
        number=$((number + 1))
        read -r megabytes from to <<<"$sizes"
        "$LOAD" files "$work/layer" --megabytes "$megabytes" --from "$from" --to "$to" --seed $number
        "${tar[@]}" -C "$work/layer" -cf "$work/plain/$number.tar" .
        gzip -n -6 <"$work/plain/$number.tar" >"$work/gzip/$number.tar"
        diffs+=("\"sha256:$(oci_digest "$work/plain/$number.tar")\"")
        rm -rf "$work/layer"
    done
    local kind
    for kind in plain gzip; do
        describe_image "$(IFS=,; echo "${diffs[*]}")" "$number" "$work/$kind"
        "${tar[@]}" -C "$work/$kind" -cf "$directory/bench-$kind.tar" .
        rm -rf "${work:?}/$kind"
    done
    echo "$made" >"$image_plain.recipe"
}

# describe_image DIFFS LAYERS DIRECTORY
describe_image() {
    local number layers=()
    for ((number = 1; number <= $2; number++)); do layers+=("\"$number.tar\""); done
    printf '{"created":"2025-01-01T00:00:00Z","architecture":"%s","os":"linux","config":{"Cmd":["true"]},"rootfs":{"type":"layers","diff_ids":[%s]},"history":[]}' \
        "$(oci_architecture)" "$1" >"$3/config.json"
    printf '[{"Config":"config.json","RepoTags":["bench:latest"],"Layers":[%s]}]' "$(IFS=,; echo "${layers[*]}")" >"$3/manifest.json"
}
