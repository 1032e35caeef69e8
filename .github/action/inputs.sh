# shellcheck shell=bash
# Where the inputs say something about the runner and not about models. Sourced by run.sh.

boolean() { # VALUE: true or false, as the command line reads it; fails where it is neither
    case $(printf '%s' "$1" | tr '[:upper:]' '[:lower:]') in
        '' | 0 | false | f | no | n | off) echo false ;;
        1 | true | t | yes | y | on) echo true ;;
        *) return 1 ;;
    esac
}

check_inputs() { # what would be found out only after the run, or not at all
    [[ ${RUNNER_OS:-} != Windows ]] ||
        fail 2 "quant-verify runs on Linux and macOS, and this runner is a Windows one; choose another in runs-on"
    offline=$(boolean "${QUANT_VERIFY_OFFLINE:-}") ||
        fail 2 "the input offline is '$QUANT_VERIFY_OFFLINE', which is neither true nor false"
    if [[ $offline == true ]]; then export QUANT_VERIFY_OFFLINE=true; else unset QUANT_VERIFY_OFFLINE; fi
    case ${QUANT_VERIFY_COMMENT:-never} in
        never | changes | failures | always) ;;
        *) fail 2 "the input comment is '$QUANT_VERIFY_COMMENT', which is none of never, changes, failures, always" ;;
    esac
}

enter_folder() { # the working directory, which lies in the workspace
    local wish=${QUANT_VERIFY_WORKING_DIRECTORY:-.} top
    cd "$workspace" || fail 3 "there is no workspace $workspace; run actions/checkout before this step"
    top=$(pwd -P)
    [[ $wish == /* ]] || wish=./$wish
    folder=$(cd "$wish" 2>/dev/null && pwd -P) ||
        fail 2 "the input working-directory is '$QUANT_VERIFY_WORKING_DIRECTORY', but there is no such folder in the workspace $workspace"
    case $folder/ in
        "$top"/*) ;;
        *) fail 2 "the input working-directory is '$QUANT_VERIFY_WORKING_DIRECTORY', which lies outside the workspace $workspace; name a folder in it" ;;
    esac
    folder=$workspace${folder#"$top"}
    cd "$folder"
}

forget_reports() { # those of an earlier run, which an upload could take for this one's
    local name
    case ${QUANT_VERIFY_COMMAND:-run} in
        run | check)
            for name in report.json junit.xml report.html summary.md; do
                rm -f -- "${QUANT_VERIFY_REPORT_DIR:-quant-verify-report}/$name" || true
            done
            ;;
    esac
}

use_caches() { # those in the folder of the input cache-dir, if it is given
    local given=${QUANT_VERIFY_CACHE_DIR:-}
    case $given in
        '') return ;;
        '~' | '~/'*) given=${HOME:-}${given#'~'} ;;
        /*) ;;
        *) given=$workspace/$given ;;
    esac
    unset HF_HUB_CACHE HUGGINGFACE_HUB_CACHE HF_XET_CACHE HF_ASSETS_CACHE
    export HF_HOME=$given/huggingface QUANT_VERIFY_CACHE=$given
    make_caches
}

make_caches() {
    mkdir -p "$HF_HOME" "$QUANT_VERIFY_CACHE/quant-verify" 2>/dev/null ||
        fail 2 "the caches $HF_HOME and $QUANT_VERIFY_CACHE/quant-verify cannot be made; set the input cache-dir to a folder that can be written"
}

choose_runtime() { # in the image: directly; what needs no torch: python; else docker
    local command=${QUANT_VERIFY_COMMAND:-}
    runtime=${QUANT_VERIFY_RUNTIME:-auto}
    if [[ -z $command ]]; then
        if [[ -n ${QUANT_VERIFY_CHECKPOINT:-} ]]; then command=check; else command=run; fi
    fi
    case $runtime in
        docker | path) return ;;
        python)
            if [[ $command == record || ${QUANT_VERIFY_DEPTH:-} == load || ${QUANT_VERIFY_DEPTH:-} == full ]]; then
                fail 2 "runtime python installs no torch, which command record and the depths load and full need; set runtime to docker, or to path where torch is installed"
            fi
            return
            ;;
        auto) ;;
        *) fail 2 "the input runtime is '$runtime', which is none of auto, docker, python, path" ;;
    esac
    if [[ ${QUANT_VERIFY_IN_IMAGE:-} == 1 ]]; then
        runtime=path
    elif [[ $command == plan || $command == merge || $command == compare ]] || is_static "$command"; then
        runtime=python
    else
        runtime=docker
    fi
}

is_static() { # COMMAND: whether it judges files alone, so that nothing needs torch
    local said="${QUANT_VERIFY_ARGS:-} "
    case $said in *--depth* | *--architecture*) return 1 ;; esac
    [[ $(boolean "${QUANT_VERIFY_ARCHITECTURE:-}" || true) == false ]] || return 1
    [[ $1 != record && ${QUANT_VERIFY_DEPTH:-} == static || $1 == check && -z ${QUANT_VERIFY_DEPTH:-} ]]
}
