# shellcheck shell=bash
# The image, and the one line of docker that runs it. Sourced by run.sh.

UNRELEASED=sha256:0000000000000000000000000000000000000000000000000000000000000000
FOR_COMMENTS=(GITHUB_TOKEN GITHUB_API_URL GITHUB_EVENT_PATH GITHUB_EVENT_NAME GITHUB_REPOSITORY GITHUB_SERVER_URL
    GITHUB_RUN_ID GITHUB_RUN_ATTEMPT GITHUB_WORKFLOW GITHUB_JOB GITHUB_SHA)

prepare_docker() {
    check_image
    command -v docker >/dev/null ||
        fail 3 "runtime docker: there is no docker on this runner; use the image as the container of the job, or set runtime to path where quant-verify is installed"
    case $workspace/ in
        /__w/*) fail 2 "runtime docker: this job runs in a container, whose folders docker cannot mount; use $image as the container of the job, or set runtime to python or path" ;;
    esac
    docker_gpus
    docker_options
    export HF_HOME=${HF_HOME:-${XDG_CACHE_HOME:-${HOME:-$work/home}/.cache}/huggingface}
    export QUANT_VERIFY_CACHE=${QUANT_VERIFY_CACHE:-${XDG_CACHE_HOME:-${HOME:-$work/home}/.cache}}
    make_caches # or docker would, and they would belong to root
    require_visible
    run_child docker image inspect "$image" >/dev/null 2>&1
    if [[ $status != 0 ]]; then
        group "docker pull $image"
        run_child docker pull "$image"
        end_group
        stop_if_interrupted
        [[ $status == 0 ]] ||
            fail 3 "the image $image could not be pulled, docker's message stands above; see the input image, or set runtime to python (depth static) or path"
    fi
}

check_image() {
    image=${QUANT_VERIFY_IMAGE:-}
    if [[ -z $image || $image == *"@$UNRELEASED" ]]; then
        fail 2 "runtime docker: this is no release of the Action and names no image yet; build one (docker build -t quant-verify .) and set the input image, or set runtime to python (depth static) or path"
    fi
    [[ $image =~ ^[A-Za-z0-9][A-Za-z0-9._/:@-]*$ ]] || fail 2 "the input image is '$image', which is no name of an image"
}

docker_options() { # sets extra_words: the words of the input docker-options, quoted as in a shell, nothing expanded
    local word
    extra_words=()
    [[ -n ${QUANT_VERIFY_DOCKER_OPTIONS//[[:space:]]/} ]] || return 0
    printf '%s\n' "$QUANT_VERIFY_DOCKER_OPTIONS" | xargs printf '%s\0' >"$work/words" 2>/dev/null ||
        fail 2 "the input docker-options has a quote that is not closed: $QUANT_VERIFY_DOCKER_OPTIONS"
    while IFS= read -r -d '' word; do
        extra_words+=("$word")
    done <"$work/words"
}

require_visible() { # what the inputs name lies where the container sees it, or is mounted by docker-options
    local path
    case " ${extra_words[*]-}" in *' -v'* | *' --volume'* | *' --mount'*) return ;; esac
    while IFS= read -r path; do
        path=${path#"${path%%[![:space:]]*}"}
        case $path/ in "$workspace"/* | "$temp"/* | "$HF_HOME"/* | "$QUANT_VERIFY_CACHE"/quant-verify/* | [!/]*) continue ;; esac
        path=${path%%[*?[]*}
        if [[ -e $path ]]; then
            fail 2 "$path lies outside the workspace, and the container does not see it; mount it with the input docker-options: --volume $path:$path:ro"
        fi
    done <<<"${QUANT_VERIFY_CHECKPOINT:-}
${QUANT_VERIFY_MATRIX:-}
${QUANT_VERIFY_BASELINE:-}"
}

docker_line() { # action|comment: sets line, the words of the whole command
    line=(docker run --rm --init --shm-size 1g --user "$(id -u):$(id -g)" --cap-drop ALL
        --security-opt no-new-privileges --read-only --tmpfs /tmp --workdir "$folder"
        --env "HOME=$work/home" --env "TMPDIR=$work/tmp" --env USER=quant-verify)
    if [[ $1 == action ]]; then
        mount "$workspace"
        mount "$temp"
        hide_from_models
        mount_caches
        hide_saved_tokens
        mount_certificates
        [[ $offline == false ]] || line+=(--network none)
        line+=(${gpu_words[@]+"${gpu_words[@]}"})
        [[ -n ${gpu_words[*]-} ]] || line+=(--env NVIDIA_VISIBLE_DEVICES=void) # also where every container gets GPUs
    else
        mount "$workspace" ro
        mount "$temp" ro
        mount_certificates
        [[ ! -f ${GITHUB_EVENT_PATH:-} ]] || mount "$GITHUB_EVENT_PATH" ro
    fi
    forward "$1"
    line+=(${extra_words[@]+"${extra_words[@]}"} "$image" "$1")
}

mount() { # PATH [ro]: at the same place in the container
    case $1 in
        *:*) fail 2 "docker cannot mount $1, because of the colon; choose a path without one" ;;
        /*) line+=(--volume "$1:$1${2:+:$2}") ;;
    esac
}

# What other steps leave in RUNNER_TEMP: the orders to the runner, the event that a comment follows, credentials of
# actions/checkout. And what git would run for the next step that calls it: hooks and commands in .git.
hide_from_models() {
    local path
    for path in "$temp/_runner_file_commands" "$workspace/.git" "$workspace"/*/.git; do
        [[ ! -d $path ]] || line+=(--tmpfs "$path:ro,size=64k")
    done
    if [[ -d $temp/_github_workflow ]]; then mount "$temp/_github_workflow" ro; fi
    for path in "$temp"/git-credentials-*.config; do
        [[ ! -f $path ]] || line+=(--volume "/dev/null:$path:ro")
    done
}

mount_caches() {
    local name
    mount "$HF_HOME"
    mount "$QUANT_VERIFY_CACHE/quant-verify"
    for name in HF_HUB_CACHE HUGGINGFACE_HUB_CACHE HF_XET_CACHE HF_ASSETS_CACHE; do
        [[ -n ${!name:-} && ${!name}/ != "$HF_HOME"/* ]] || continue
        mkdir -p "${!name}"
        mount "${!name}"
    done
}

# A token that was saved on the runner goes in as a variable: the processes that open models do not get that.
hide_saved_tokens() {
    local path saved=${HF_TOKEN_PATH:-$HF_HOME/token}
    if [[ -z ${HF_TOKEN:-} && -z ${HUGGING_FACE_HUB_TOKEN:-} && -f $saved ]]; then
        HF_TOKEN=$(tr -d '[:space:]' <"$saved")
        export HF_TOKEN
        mask_tokens
    fi
    for path in "$HF_HOME/token" "$HF_HOME/stored_tokens"; do
        [[ ! -f $path ]] || line+=(--volume "/dev/null:$path:ro")
    done
}

mount_certificates() { # whatever authority this runner trusts, the container does
    local name path mounted=:
    for name in SSL_CERT_FILE SSL_CERT_DIR REQUESTS_CA_BUNDLE CURL_CA_BUNDLE PIP_CERT; do
        while IFS= read -r -d : path; do
            [[ -e $path && $mounted != *":$path:"* ]] || continue
            mounted+=$path:
            mount "$path" ro
        done <<<"${!name:-}:"
    done
}

forward() { # action|comment: variables by name, so that no value stands on a command line
    local name
    for name in $(compgen -e); do
        [[ -n ${!name} ]] || continue
        case $name in
            QUANT_VERIFY_IN_IMAGE) ;; # the image says so itself
            QUANT_VERIFY_* | [Hh][Tt][Tt][Pp]_[Pp][Rr][Oo][Xx][Yy] | [Hh][Tt][Tt][Pp][Ss]_[Pp][Rr][Oo][Xx][Yy] | \
                [Nn][Oo]_[Pp][Rr][Oo][Xx][Yy] | [Aa][Ll][Ll]_[Pp][Rr][Oo][Xx][Yy] | SSL_CERT_FILE | SSL_CERT_DIR | \
                REQUESTS_CA_BUNDLE | CURL_CA_BUNDLE | CI | GITHUB_ACTIONS | GITHUB_WORKSPACE | RUNNER_TEMP)
                line+=(--env "$name")
                ;;
            HF_* | HUGGING_FACE_* | HUGGINGFACE_* | GITHUB_STEP_SUMMARY | PIP_CERT | PIP_INDEX_URL | \
                PIP_EXTRA_INDEX_URL | PIP_TRUSTED_HOST | NO_COLOR | FORCE_COLOR)
                [[ $1 == comment ]] || line+=(--env "$name")
                ;;
            CUDA_VISIBLE_DEVICES) [[ $1 == comment || ${gpu_words[*]-} != "--gpus all" ]] || line+=(--env "$name") ;;
        esac
    done
    [[ $1 == action ]] || for name in "${FOR_COMMENTS[@]}"; do
        [[ -z ${!name:-} ]] || line+=(--env "$name")
    done
}
